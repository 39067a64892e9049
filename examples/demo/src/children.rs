//! The login service and the outrigger as processes of their own, stopped whatever happens.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::{AS_LOGIN_SERVICE, AS_OUTRIGGER, http};

/// How long a child may take to start, and to stop.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);

/// Where everything listens on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) app: u16,
    pub(crate) listen: u16,
    pub(crate) public: u16,
    pub(crate) private: u16,
}

impl Ports {
    /// The usual ports where they are free, any others where they are not.
    pub(crate) fn free() -> io::Result<Self> {
        let mut held = Vec::new();
        let mut pick = |wanted: u16| -> io::Result<u16> {
            let listener = std::net::TcpListener::bind(("127.0.0.1", wanted))
                .or_else(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))?;
            let port = listener.local_addr()?.port();
            // Held until all are picked, so that none is picked twice.
            held.push(listener);
            Ok(port)
        };
        Ok(Self { app: pick(8080)?, listen: pick(6143)?, public: pick(6191)?, private: pick(6192)? })
    }
}

/// Both processes. Dropped, they are killed.
pub(crate) struct Children {
    ports: Ports,
    app: Child,
    outrigger: Option<Child>,
    config: PathBuf,
}

impl Children {
    /// Starts the login service and waits until it answers.
    pub(crate) async fn start_app(ports: Ports) -> Result<Self, Box<dyn Error>> {
        let listen = format!("127.0.0.1:{}", ports.app);
        let app =
            command(AS_LOGIN_SERVICE, &["--listen", &listen]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let config = std::env::temp_dir().join(format!("outrigger-demo-{}.yaml", std::process::id()));
        let mut children = Self { ports, app, outrigger: None, config };
        let up = async {
            while TcpStream::connect(("127.0.0.1", ports.app)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            up = tokio::time::timeout(START, up) => up.map_err(|_| "the login service does not answer")?,
            ended = children.app.wait() => return Err(format!("the login service ended at once: {}", ended?).into()),
        }
        Ok(children)
    }

    /// Starts the outrigger and waits until it is ready; its log comes through the channel, line by line.
    pub(crate) async fn start_outrigger(&mut self) -> Result<mpsc::UnboundedReceiver<String>, Box<dyn Error>> {
        let Ports { app, listen, public, private } = self.ports;
        let config = format!(
            "version: 1
inbound:
  trusted_proxies: [{{cidr: 127.0.0.1/32}}]   # the demo plays the load balancer
  ports:
    - {{name: login, listen: 127.0.0.1:{listen}, app: {app}}}
geo: {{headers_to_app: [country]}}
runtime: {{drain: {{delay: 0s, deadline: 5s}}}}
admin: {{public: 127.0.0.1:{public}, private: 127.0.0.1:{private}}}
"
        );
        std::fs::write(&self.config, config)?;
        let path = self.config.display().to_string();
        let mut outrigger =
            command(AS_OUTRIGGER, &["run", "--config", &path]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (send, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = outrigger.stdout.take() {
            tokio::spawn(forward(stdout, move |line| send.send(line).is_ok()));
        }
        if let Some(stderr) = outrigger.stderr.take() {
            tokio::spawn(forward(stderr, |line| {
                eprintln!("  outrigger: {line}");
                true
            }));
        }
        let ready = async {
            while !matches!(http::get(public, "/readyz").await, Ok((200, _))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(START, ready) => ready.map_err(|_| "the outrigger is not ready")?,
            ended = outrigger.wait() => return Err(format!("the outrigger ended at once: {}", ended?).into()),
        }
        self.outrigger = Some(outrigger);
        Ok(lines)
    }

    /// Tells both to end, the outrigger first, and waits for them.
    pub(crate) async fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        for child in self.outrigger.iter_mut().chain([&mut self.app]) {
            let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
            if let Some(id) = id {
                rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
            }
            if tokio::time::timeout(STOP, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

/// This very program, in another role and in a process group of its own: Ctrl-C is for the demo, which ends its children in
/// order.
fn command(role: &str, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "demo".into()));
    command.arg(role).args(args).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    command
}

/// Hands lines on until there are no more, or nobody wants them.
async fn forward(from: impl tokio::io::AsyncRead + Unpin, mut to: impl FnMut(String) -> bool) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if !to(line) {
            return;
        }
    }
}
