//! A service in trouble: one endpoint slow, one failing, one killed and started again and again; and nobody notices.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::pods::answer;
use crate::web::{Outcome, load, percentile, talk};
use crate::{Outrigger, PATIENCE, free};

const ANSWERS_IN: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(200);
/// A program starts in 100 to 200 ms here, is left alone for 100 ms after it refused a connection, and what waited for the
/// slow one until then has been answered.
const ALONE: Duration = Duration::from_millis(600);

/// An endpoint that can be made slow or failing.
#[derive(Default)]
struct Trouble {
    slow: AtomicBool,
    failing: AtomicBool,
}

fn endpoint(trouble: Arc<Trouble>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let trouble = trouble.clone();
            let answered = move |_: &str| {
                std::thread::sleep(if trouble.slow.load(SeqCst) { SLOW } else { ANSWERS_IN });
                match trouble.failing.load(SeqCst) {
                    true => answer("503 Service Unavailable", "no"),
                    false => answer("200 OK", "yes"),
                }
            };
            std::thread::spawn(move || talk(&stream, &answered));
        }
    });
    port
}

/// An endpoint that is a program of its own.
struct Killed {
    child: Child,
    port: u16,
}

impl Killed {
    fn start(port: u16) -> Self {
        let program = format!(
            "import socket,_thread,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('127.0.0.1',{port})); s.listen(64)
def serve(c):
    c.setsockopt(socket.IPPROTO_TCP,socket.TCP_NODELAY,1)
    while c.recv(9999):
        time.sleep(.01); c.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\nyes')
while True: _thread.start_new_thread(serve,(s.accept()[0],))"
        );
        let python = crate::program("python3").unwrap();
        let child = Command::new(python).args(["-I", "-S", "-c", &program]).stderr(Stdio::null()).spawn().unwrap();
        Self { child, port }
    }

    fn listening(self) -> Self {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the endpoint does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        self
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_slow_one_failing_and_one_killed_over_and_over_fail_no_request() {
    if !crate::has(&["python3"]) {
        return;
    }
    const RATE: u32 = 200;
    let [slow, failing] = [(); 2].map(|()| Arc::<Trouble>::default());
    let [dying] = free();
    let mut killed = Killed::start(dying).listening();
    let [listen] = free();
    let extra = format!(
        "outbound: {{services: [{{name: shop, listen: '127.0.0.1:{listen}', \
         endpoints: {{static: ['127.0.0.1:{}', '127.0.0.1:{}', '127.0.0.1:{dying}']}}, \
         retry: {{budget: {{share: 20%, floor: 10/s}}}}, outlier_detection: {{max_ejected: 67%}}}}]}}",
        endpoint(slow.clone()),
        endpoint(failing.clone())
    );
    let outrigger = Outrigger::start("judged", dying, &extra);
    let to = SocketAddr::from(([127, 0, 0, 1], listen));
    load(to, 16, RATE, Duration::from_secs(1));
    let healthy = load(to, 16, RATE, Duration::from_secs(3));
    let retries = || {
        let page = outrigger.get(outrigger.public, "/metrics").unwrap();
        let value = |result: &str| {
            let series = format!("outrigger_upstream_retries_total{{service=\"shop\",result=\"{result}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        (value("granted"), value("over_budget"))
    };
    let before = retries();
    slow.slow.store(true, SeqCst);
    failing.failing.store(true, SeqCst);
    let lasts = Duration::from_secs(15);
    let begun = Instant::now();
    let (outcomes, deaths) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(to, 16, RATE, lasts));
        let mut deaths = Vec::new();
        while begun.elapsed() < lasts {
            deaths.push(begun.elapsed());
            drop(killed);
            killed = Killed::start(dying).listening();
            std::thread::sleep(Duration::from_secs(3).min(lasts.saturating_sub(begun.elapsed())));
        }
        (load.join().unwrap(), deaths)
    });
    let after = retries();
    let late = outcomes.iter().copied().filter(|outcome| outcome.due >= Duration::from_secs(5));
    // While the killed one is down, and until it has shown that it is up again, there is nobody but the slow one.
    let alone =
        |outcome: &Outcome| deaths.iter().any(|died| (*died..*died + ALONE).contains(&(outcome.due + outcome.took)));
    let (alone, late): (Vec<_>, Vec<_>) = late.partition(alone);
    let shown = |outcomes: &[Outcome]| [0.5, 0.9, 0.99, 1.0].map(|share| percentile(outcomes, share));
    println!("healthy: p50, p90, p99, worst of {}: {:?}", healthy.len(), shown(&healthy));
    println!("in trouble, after 5 s: of {}: {:?}", late.len(), shown(&late));
    println!("in the {ALONE:?} after each death: of {}: {:?}", alone.len(), shown(&alone));
    let all = [&late[..], &alone].concat();
    println!("together: {:?}", shown(&all));
    println!("retries granted {}, over budget {}", after.0 - before.0, after.1 - before.1);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != 200).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}\n", failed.len(), outcomes.len());
    let budget = 0.2 * outcomes.len() as f64 + 10.0 * lasts.as_secs_f64();
    assert!(after.0 - before.0 <= budget, "{} retries", after.0 - before.0);
    assert_eq!(after.1 - before.1, 0.0);
    // Half as much again, and 5 ms for a machine that does other things as well: so for half of the seconds.
    let (healthy, late) = (typical(&healthy), typical(&late));
    println!("p99 of the middle second: {healthy:?} healthy, {late:?} in trouble");
    assert!(late <= healthy.mul_f64(1.5) + Duration::from_millis(5), "p99 {healthy:?}, then {late:?}");
}

/// The p99 of each second; the one in the middle, since what else the machine does comes in bursts.
fn typical(outcomes: &[Outcome]) -> Duration {
    let mut seconds = std::collections::BTreeMap::<u64, Vec<Outcome>>::new();
    for outcome in outcomes {
        seconds.entry(outcome.due.as_secs()).or_default().push(*outcome);
    }
    let mut each: Vec<_> = seconds.values().map(|outcomes| percentile(outcomes, 0.99)).collect();
    each.sort();
    each[each.len() / 2]
}
