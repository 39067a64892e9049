//! One change at a time in a network namespace, where a change takes several steps.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long to wait for another who holds the lock.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// An abstract socket's name, without the zero byte at its beginning.
pub(crate) const NAME: &str = "outrigger-redirect";

/// Held until dropped, or until the process ends. It is the name of an abstract socket: each network namespace has
/// names of its own, so that this excludes exactly those who would change the same rules. A lock file would be another
/// file in another container.
#[derive(Debug)]
pub(crate) struct Lock {
    _name: UnixListener,
}

impl Lock {
    /// Waits until nobody else has it, half a minute at most.
    pub(crate) fn take() -> Result<Self, Error> {
        let begun = Instant::now();
        loop {
            match SocketAddr::from_abstract_name(NAME).and_then(|name| UnixListener::bind_addr(&name)) {
                Ok(name) => return Ok(Self { _name: name }),
                Err(e) if e.kind() == ErrorKind::AddrInUse && begun.elapsed() < LIMIT => thread::sleep(PAUSE),
                Err(e) => return Err(Error::Locked(e)),
            }
        }
    }
}
