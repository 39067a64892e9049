//! Services and outriggers as processes of their own, stopped whatever happens.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::{AS_OUTRIGGER, http};

/// How long a child may take to start, and to stop.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);

/// Where everything listens on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// The login service, and what its outrigger listens on: for callers, for other outriggers, for us.
    pub(crate) app: u16,
    pub(crate) listen: u16,
    pub(crate) mesh: u16,
    pub(crate) public: u16,
    pub(crate) private: u16,
    /// The shop service, and what its outrigger listens on; `shop_login` is where the shop finds the login service.
    pub(crate) shop: u16,
    pub(crate) shop_listen: u16,
    pub(crate) shop_login: u16,
    pub(crate) shop_public: u16,
    pub(crate) shop_private: u16,
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
        Ok(Self {
            app: pick(8080)?,
            listen: pick(6143)?,
            mesh: pick(6144)?,
            public: pick(6191)?,
            private: pick(6192)?,
            shop: pick(8081)?,
            shop_listen: pick(6153)?,
            shop_login: pick(9001)?,
            shop_public: pick(6193)?,
            shop_private: pick(6194)?,
        })
    }
}

/// All processes, and a directory for their files. Dropped, they are killed, and it is removed.
pub(crate) struct Children {
    pub(crate) dir: PathBuf,
    running: Vec<Child>,
}

impl Children {
    pub(crate) fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("outrigger-demo-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, running: Vec::new() })
    }

    /// Starts a service and waits until it answers.
    pub(crate) async fn start_service(&mut self, role: &str, args: &[&str], port: u16) -> Result<(), Box<dyn Error>> {
        let child = command(role, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.until(child, role, async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Starts an outrigger and waits until it is ready; its log comes through the channel, line by line.
    pub(crate) async fn start_outrigger(
        &mut self,
        name: &str,
        config: &str,
        public: u16,
    ) -> Result<mpsc::UnboundedReceiver<String>, Box<dyn Error>> {
        let path = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&path, config)?;
        let path = path.display().to_string();
        let mut child =
            command(AS_OUTRIGGER, &["run", "--config", &path]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (send, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(forward(stdout, move |line| send.send(line).is_ok()));
        }
        if let Some(stderr) = child.stderr.take() {
            let name = name.to_owned();
            tokio::spawn(forward(stderr, move |line| {
                eprintln!("  {name}'s outrigger: {line}");
                true
            }));
        }
        self.until(child, "the outrigger", async {
            while !matches!(http::get(public, "/readyz").await, Ok((200, _))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await?;
        Ok(lines)
    }

    /// Waits until a child is up, unless it ends first.
    async fn until(
        &mut self,
        mut child: Child,
        what: &str,
        up: impl Future<Output = ()>,
    ) -> Result<(), Box<dyn Error>> {
        tokio::select! {
            up = tokio::time::timeout(START, up) => up.map_err(|_| format!("{what} does not answer"))?,
            ended = child.wait() => return Err(format!("{what} ended at once: {}", ended?).into()),
        }
        self.running.push(child);
        Ok(())
    }

    /// Tells all to end, the last started first, and waits for them.
    pub(crate) async fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        for child in self.running.iter_mut().rev() {
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
        let _ = std::fs::remove_dir_all(&self.dir);
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
