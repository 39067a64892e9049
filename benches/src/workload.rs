//! What the proxies are put through.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::load::tls::Client;
use crate::load::{self, Outcome, Pace, grpc, http1, http2, opaque, websocket};
use crate::peers::{Kind, Peer, Setup};

/// A load, or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// HTTP/1.1, 64 kept-alive connections, 1 KiB answers, as fast as it goes
    A,
    /// The same at 4,000 requests/s
    Rate,
    /// A for callers that a trusted proxy names, a new one each time, looked up in an MMDB
    Geo,
    /// HTTP/2 without TLS, 16 connections with 32 streams each, 1 KiB answers
    B,
    /// A over mutual TLS from the caller
    C,
    /// A new connection of mutual TLS for each request (X25519, certificates directly below the root)
    D,
    /// The same with X25519MLKEM768 and an intermediate above the client's certificate
    Dpq,
    /// A through the proxy twice, mutual TLS between
    E,
    /// 1 MiB answers, 16 connections
    F1m,
    /// 100 MiB answers, 4 connections
    F100m,
    /// gRPC calls of one message each way, 16 connections with 32 streams each
    G,
    /// gRPC streams, 16 connections with 8 each, 1 KiB messages there and back
    Gstream,
    /// WebSocket, 64 connections, 1 KiB messages there and back
    H,
    /// Opaque TCP, 64 connections, 1 KiB there and back
    I,
    /// A through redirect rules, to where the caller meant to go
    T,
    /// E through redirect rules, two proxies in two network namespaces
    Te,
    /// Resident memory: idle, and with idle kept-alive connections
    Memory,
    /// From exec to the first answer, and the program's size
    Start,
}

/// Requests a second where the rate is fixed.
const RATE: f64 = 4000.0;

/// What requests are like.
pub(crate) struct Shape {
    pub(crate) tls: Client,
    /// Bytes of an answer, or a message.
    pub(crate) size: u64,
}

impl Workload {
    pub(crate) const ALL: [Self; 18] = [
        Self::A,
        Self::Rate,
        Self::Geo,
        Self::B,
        Self::C,
        Self::D,
        Self::Dpq,
        Self::E,
        Self::F1m,
        Self::F100m,
        Self::G,
        Self::Gstream,
        Self::H,
        Self::I,
        Self::T,
        Self::Te,
        Self::Memory,
        Self::Start,
    ];

    /// Its name in the table, and of what its CPU time is told.
    pub(crate) fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::A => ("A: HTTP/1.1, 64 connections", "us/request"),
            Self::Rate => ("A at 4,000 requests/s", "us/request"),
            Self::Geo => ("A for many callers, MMDB", "us/request"),
            Self::B => ("B: h2c, 16 x 32 streams", "us/request"),
            Self::C => ("C: A over mutual TLS", "us/request"),
            Self::D => ("D: a new mTLS connection per request, X25519", "us/request"),
            Self::Dpq => ("D: the same, X25519MLKEM768, one intermediate", "us/request"),
            Self::E => ("E: A through two proxies, mTLS between", "us/request"),
            Self::F1m => ("F: 1 MiB bodies", "us/MiB"),
            Self::F100m => ("F: 100 MiB bodies", "us/MiB"),
            Self::G => ("G: gRPC calls, 16 x 32 streams", "us/request"),
            Self::Gstream => ("G: gRPC messages, 16 x 8 streams", "us/message"),
            Self::H => ("H: WebSocket messages", "us/message"),
            Self::I => ("I: opaque TCP", "us/message"),
            Self::T => ("T: A through redirect rules", "us/request"),
            Self::Te => ("T: E through redirect rules, both proxies", "us/request"),
            Self::Memory | Self::Start => ("", ""),
        }
    }

    /// How many of what CPU time is told of are in one request.
    pub(crate) fn units(self) -> f64 {
        if self == Self::F100m { 100.0 } else { 1.0 }
    }

    pub(crate) fn setup(self) -> Setup {
        match self {
            Self::Geo => Setup::Geo,
            Self::T => Setup::Redirected,
            Self::Te => Setup::RedirectedMesh,
            _ => Setup::Plain,
        }
    }

    /// Where a peer takes it; why it cannot.
    pub(crate) fn target(self, peer: &Peer) -> Result<SocketAddr, &'static str> {
        let (kind, to) = (peer.kind, &peer.addresses);
        let mesh = matches!(self, Self::C | Self::D | Self::Dpq | Self::E | Self::Te);
        match kind {
            Kind::Relay if mesh => return Err("relays bytes, and speaks no TLS"),
            Kind::Relay if matches!(self, Self::B | Self::G | Self::Gstream) => {
                return Err("relays to an app that speaks something else");
            }
            Kind::Relay if self == Self::Geo => return Err("looks nobody up"),
            Kind::Nginx | Kind::Haproxy if self == Self::Geo => return Err("reads no MMDB as Debian has it"),
            // OpenSSL 3.0 is what Debian's are built with.
            Kind::Nginx | Kind::Haproxy if self == Self::Dpq => return Err("OpenSSL 3.0 knows no X25519MLKEM768"),
            Kind::Nginx if self == Self::I => return Err("its stream module is a package of its own"),
            Kind::Nginx if matches!(self, Self::T | Self::Te) => {
                return Err("does not ask for the original destination of what REDIRECT brings");
            }
            _ => {}
        }
        Ok(match self {
            Self::B => to.http2,
            Self::I => to.opaque,
            Self::C | Self::D | Self::Dpq => to.tls,
            Self::E => to.mesh,
            Self::G | Self::Gstream => to.grpc,
            Self::T | Self::Te => crate::redirected::APP,
            _ => to.http1,
        })
    }

    /// Loads an address for so long.
    ///
    /// # Errors
    /// Where there is no load to be: a runtime that does not start. What the proxy does wrong is told in the outcome.
    pub(crate) fn drive(self, addr: SocketAddr, shape: &Shape, length: Duration) -> std::io::Result<Outcome> {
        let Shape { tls, size } = shape;
        let size = *size;
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        match self {
            Self::A | Self::E | Self::T | Self::Te => {
                load::run(64, length, false, |tally, _| http1::connection(addr, size, None, tally))
            }
            Self::Rate => load::run(64, length, true, |tally, i| {
                http1::connection(addr, size, Some(Pace::new(RATE, 64, i)), tally)
            }),
            Self::Geo => load::run(64, length, false, |tally, i| {
                http1::connection_for_others(addr, size, u32::try_from(i).unwrap_or(0), tally)
            }),
            Self::B => load::run(16, length, false, |tally, _| http2::connection(addr, size, 32, tally)),
            Self::C => load::run(64, length, false, |tally, _| http1::over_tls(tls.clone(), addr, size, tally)),
            Self::D | Self::Dpq => {
                load::run(16, length, false, |tally, _| http1::connections_over_tls(tls.clone(), addr, size, tally))
            }
            Self::F1m => load::run(16, length, false, |tally, _| http1::connection(addr, 1 << 20, None, tally)),
            Self::F100m => load::run(4, length, false, |tally, _| http1::connection(addr, 100 << 20, None, tally)),
            Self::G => load::run(16, length, false, |tally, _| grpc::unary(addr, bytes, 32, tally)),
            Self::Gstream => load::run(16, length, false, |tally, _| grpc::streaming(addr, bytes, 8, tally)),
            Self::H => load::run(64, length, false, |tally, _| websocket::connection(addr, bytes, tally)),
            Self::I => load::run(64, length, false, |tally, _| opaque::connection(addr, bytes, tally)),
            Self::Memory | Self::Start => Err(std::io::Error::other("not a load")),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
