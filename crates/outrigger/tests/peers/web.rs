//! The least that an HTTP/1.1 app or caller does, for many of them at once.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Answers one request after the other, by its head.
pub(crate) fn talk(mut stream: &TcpStream, answer: &(impl Fn(&str) -> String + ?Sized)) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Ok((head, _)) = message(&mut reader) {
        if stream.write_all(answer(&head).as_bytes()).is_err() {
            return;
        }
    }
}

/// A head and what follows it, of a length that it tells.
fn message(reader: &mut impl BufRead) -> io::Result<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((head, String::from_utf8_lossy(&body).into_owned()))
}

/// A caller with a connection of its own, which it keeps.
pub(crate) struct Caller {
    stream: BufReader<TcpStream>,
}

impl Caller {
    /// Waits so long for a connection, and for each answer.
    pub(crate) fn new(to: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Status and body of what is answered to a GET.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> io::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (head, body) = message(&mut self.stream)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.map(|status| (status, body)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// One request of a load: when it was due, how long it took from then, and its status; 0 where there was no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) due: Duration,
    pub(crate) took: Duration,
    pub(crate) status: u16,
}

/// GETs at a constant rate, from callers with a connection each, for so long. A caller that waits for an answer makes up
/// for what was due meanwhile, and that counts as waited for.
pub(crate) fn load(to: SocketAddr, callers: u32, per_second: u32, lasts: Duration) -> Vec<Outcome> {
    let begun = Instant::now();
    let interval = Duration::from_secs(1) * callers / per_second;
    let one = move |number: u32| {
        let mut outcomes = Vec::new();
        let mut caller = None;
        let mut due = interval * number / callers;
        while due < lasts {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let mut ask = || {
                let caller = match &mut caller {
                    Some(caller) => caller,
                    none => none.insert(Caller::new(to, PATIENCE)?),
                };
                caller.get("shop", "/")
            };
            let status = ask().map(|(status, _)| status).unwrap_or_default();
            if status == 0 {
                caller = None;
            }
            outcomes.push(Outcome { due, took: begun.elapsed().saturating_sub(due), status });
            due += interval;
        }
        outcomes
    };
    let callers: Vec<_> = (0..callers).map(|number| std::thread::spawn(move || one(number))).collect();
    callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
}

/// The time that this share of requests took at most.
pub(crate) fn percentile(outcomes: &[Outcome], share: f64) -> Duration {
    let mut took: Vec<_> = outcomes.iter().map(|outcome| outcome.took).collect();
    took.sort();
    took[((took.len() as f64 * share) as usize).min(took.len() - 1)]
}
