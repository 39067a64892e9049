//! Listening and accepting: sockets that notice dead peers, and a loop that outlives a shortage of file descriptors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Connections the kernel may hold for us until we accept them; `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;
/// A peer that has not acknowledged our bytes for this long is gone (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// The first probe of a silent connection, and the pause between probes.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));

/// Binds and listens. `[::]` takes IPv4 connections too; on a host without IPv6 it becomes `0.0.0.0`.
///
/// # Errors
/// What the kernel says: the address in use, not ours, or a port we may not have.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    match bind(addr) {
        Err(e) if addr.ip() == IpAddr::from([0u16; 8]) && lacks_ipv6(&e) => {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port()))
        }
        result => result,
    }
}

/// Whether an error says that this host has no IPv6, or not at this address.
pub fn lacks_ipv6(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit all of this on Linux: set once here, it costs no system call per connection.
    keep_watch(&socket)?;
    spare_control(&socket, addr.ip());
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a socket send at once, notice a dead peer, and give up on one that no longer acknowledges.
///
/// # Errors
/// None on a TCP socket that is open.
pub fn keep_watch<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1).with_retries(4))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Takes the simplest congestion control where the other end is on this host, as the app always is: memory has no congestion,
/// and the host's choice may pace what is sent (BBR), with a timer and wake-ups for every request. To be called before the
/// socket connects or listens.
pub(crate) fn spare_control<'s>(socket: impl Into<SockRef<'s>>, addr: IpAddr) {
    if addr.to_canonical().is_loopback() {
        // In every kernel; without it the host's choice does.
        let _ = socket.into().set_tcp_congestion(b"reno");
    }
}

/// Accepts connections without registering them with this thread's runtime, so that they can be handed to another's.
#[derive(Debug)]
pub struct Acceptor {
    listener: AsyncFd<TcpListener>,
    pause: Duration,
}

/// What [`Acceptor::accept`] met.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, not blocking.
    Connection(TcpStream, SocketAddr),
    /// The process or the host is out of file descriptors or memory. The acceptor has paused; the connection still waits.
    Exhausted(io::Error),
}

impl Acceptor {
    const FIRST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Takes over a listener that does not block.
    ///
    /// # Errors
    /// What registering it with this thread's runtime gives.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(Self { listener: register(listener)?, pause: Self::FIRST_PAUSE })
    }

    /// The next connection. Out of file descriptors, it pauses (doubling up to a second) instead of spinning, and says so.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let accepted = self.listener.async_io(Interest::READABLE, accept).await;
            match accepted {
                Ok((stream, addr)) => {
                    self.pause = Self::FIRST_PAUSE;
                    return Accepted::Connection(stream, addr);
                }
                Err(e) if is_exhaustion(&e) => {
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
                    return Accepted::Exhausted(e);
                }
                // The caller reset the connection before we took it, or a network error of its own: the next, please.
                Err(_) => {}
            }
        }
    }

    /// A connection that waits already, without waiting for one: what is left in the queue before it is closed, since
    /// closing resets what is in it.
    pub fn accept_waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        accept(self.listener.get_ref()).ok()
    }
}

#[allow(unsafe_code)] // Tokio's own listener registers what it accepts, too early for us.
fn register(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: a `TcpListener` owns its descriptor, gives the same one at every call, and closes it only when dropped,
    // which `AsyncFd` does after deregistering it; nothing here takes the listener out or swaps it.
    let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    registered.map_err(|e| e.into_parts().1)
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, addr) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, addr))
}

fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ipv6_wildcard_listener_takes_ipv4() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut acceptor = Acceptor::new(listener).unwrap();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let Accepted::Connection(stream, _) = acceptor.accept().await else { panic!("exhausted") };
        assert!(stream.nodelay().unwrap(), "options are inherited from the listener");
    }

    #[tokio::test]
    async fn connections_within_the_host_have_no_pacing_and_others_what_the_host_chose() {
        let control = |socket: SockRef<'_>| {
            let name = socket.tcp_congestion().unwrap();
            String::from_utf8(name.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
        };
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        for (bound, name) in [("127.0.0.1:0", "reno"), ("[::1]:0", "reno"), ("0.0.0.0:0", default.trim())] {
            let Ok(listener) = listen(bound.parse().unwrap()) else { continue };
            let mut addr = listener.local_addr().unwrap();
            if addr.ip().is_unspecified() {
                addr.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            let (dialled, _) = crate::dial(&[addr], Duration::from_secs(5)).await.unwrap();
            let (accepted, _) = accept(&listener).unwrap();
            assert_eq!(control(SockRef::from(&accepted)), name, "accepted at {bound}");
            assert_eq!(control(dialled.socket()), "reno", "dialled");
        }
    }

    #[tokio::test]
    async fn what_waits_in_the_queue_can_be_taken_without_waiting() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener).unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let taken = std::iter::from_fn(|| acceptor.accept_waiting()).count();
        assert_eq!(taken, clients.len());
    }

    #[test]
    fn a_taken_address_is_an_error() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
