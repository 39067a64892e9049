//! Connecting to the app.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::Io;
use crate::listen::{keep_watch, spare_control};

/// How long an address may take where there are others.
const AMONG_OTHERS: Duration = Duration::from_secs(2);

/// Connects to the first of these addresses that accepts, and says which; `within` bounds each try, and two seconds those that
/// have others behind them.
///
/// # Errors
/// The last address's error; [`io::ErrorKind::TimedOut`] where it did not answer in time.
pub async fn dial(addrs: &[SocketAddr], within: Duration) -> io::Result<(Io, SocketAddr)> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for (i, &addr) in addrs.iter().enumerate() {
        let within = if i + 1 < addrs.len() { within.min(AMONG_OTHERS) } else { within };
        match timeout(within, connect(addr)).await {
            Ok(Ok(tcp)) => return Ok((tcp.into(), addr)),
            Ok(Err(e)) => last = e,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    keep_watch(&socket)?;
    spare_control(&socket, addr.ip());
    socket.connect(addr).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_address_is_tried_where_the_first_refuses() {
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        dial(&[refused, listener.local_addr().unwrap()], Duration::from_secs(1)).await.unwrap();
        let error = dial(&[refused], Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
