//! Whom a redirected connection was meant for, and which addresses are ours.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::SockRef;

/// The address a connection was made to before netfilter redirected it here (`SO_ORIGINAL_DST`), never IPv4-mapped; for one
/// that was not redirected, the address it came to, or none where the kernel follows no connections. One system call.
pub fn original_dst<'s>(socket: impl Into<SockRef<'s>>) -> Option<SocketAddr> {
    let socket = socket.into();
    // A listener of both families gets IPv4 connections as IPv6 ones, and the kernel keeps their destination as IPv4's.
    let v4 = || socket.original_dst_v4().ok()?.as_socket();
    let v6 = || socket.original_dst_v6().ok()?.as_socket();
    let is_v4 = socket.local_addr().ok()?.as_socket()?.ip().to_canonical().is_ipv4();
    let addr = if is_v4 { v4() } else { v6() }?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

/// Whether an address is one of this network namespace's: whether a socket can have it. Loopback and the unspecified address
/// are. Two system calls.
pub fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_nobody_redirected_was_meant_for_where_it_came_to() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let here = listener.local_addr().unwrap();
            let _caller = TcpStream::connect(here).unwrap();
            let (stream, _) = listener.accept().unwrap();
            assert!(original_dst(&stream).is_none_or(|meant| meant == here));
        }
    }

    #[test]
    fn loopback_is_ours_and_documentation_addresses_are_not() {
        for (ip, ours) in [("127.0.0.1", true), ("127.1.2.3", true), ("192.0.2.1", false), ("2001:db8::1", false)] {
            assert_eq!(is_local(ip.parse().unwrap()), ours, "{ip}");
        }
    }
}
