//! HTTP/1.1 over kept-alive connections, one request at a time on each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use h1::{Body, Method, ResponseHead};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls::Client;
use super::{Pace, Tally};

/// Asks for `size` bytes, again and again.
pub(crate) async fn connection(addr: SocketAddr, size: u64, pace: Option<Pace>, tally: Tally) {
    let asked = async { ask(Caller::connect(addr).await?, size, pace, &tally).await };
    if let Err(e) = asked.await {
        tally.failed(e);
    }
}

/// The same for callers all over the world, as a proxy before us would name them: a new one with each request.
pub(crate) async fn connection_for_others(addr: SocketAddr, size: u64, first: u32, tally: Tally) {
    let asked = async {
        let mut caller = Caller::connect(addr).await?;
        let mut ip = first;
        while !tally.is_over() {
            let since = Instant::now();
            ip = ip.wrapping_mul(2_654_435_761).wrapping_add(1);
            caller.ask(size, Some(Ipv4Addr::from_bits(0x0100_0000 + ip % 0x7000_0000))).await?;
            tally.done(since);
        }
        Ok::<_, io::Error>(())
    };
    if let Err(e) = asked.await {
        tally.failed(e);
    }
}

/// The same over TLS.
pub(crate) async fn over_tls(tls: Client, addr: SocketAddr, size: u64, tally: Tally) {
    let asked = async { ask(Caller::new(tls.connect(addr).await?), size, None, &tally).await };
    if let Err(e) = asked.await {
        tally.failed(e);
    }
}

/// A new TLS connection for each request.
pub(crate) async fn connections_over_tls(tls: Client, addr: SocketAddr, size: u64, tally: Tally) {
    while !tally.is_over() {
        let since = Instant::now();
        let asked = async { Caller::new(tls.connect(addr).await?).get(size).await };
        match asked.await {
            Ok(()) => tally.done(since),
            Err(e) => return tally.failed(e),
        }
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut caller: Caller<S>,
    size: u64,
    mut pace: Option<Pace>,
    tally: &Tally,
) -> io::Result<()> {
    while !tally.is_over() {
        let since = match &mut pace {
            Some(pace) => pace.wait().await,
            None => Instant::now(),
        };
        caller.get(size).await?;
        tally.done(since);
    }
    Ok(())
}

/// A kept-alive connection.
pub(crate) struct Caller<S> {
    stream: S,
    head: ResponseHead,
    bytes: Vec<u8>,
}

impl Caller<TcpStream> {
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, head: ResponseHead::new(), bytes: vec![0; 64 * 1024] }
    }

    /// Gives its buffer back: an idle connection is to cost the proxy memory, not us.
    pub(crate) fn into_idle(self) -> S {
        self.stream
    }

    /// One request; its answer is read to the end and must be of this size.
    pub(crate) async fn get(&mut self, size: u64) -> io::Result<()> {
        self.ask(size, None).await
    }

    /// One request, perhaps for somebody else.
    async fn ask(&mut self, size: u64, whose: Option<Ipv4Addr>) -> io::Result<()> {
        let whose = whose.map(|ip| format!("X-Forwarded-For: {ip}\r\n")).unwrap_or_default();
        let request =
            format!("GET /{size} HTTP/1.1\r\nHost: app.test\r\nUser-Agent: benches\r\nAccept: */*\r\n{whose}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let limits = h1::Limits::default();
        let mut filled = 0;
        let length = loop {
            let n = self.stream.read(&mut self.bytes[filled..]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += n;
            let parsed = self.head.parse(&self.bytes[..filled], &limits, Method::Get);
            if let Some(length) = parsed.map_err(|e| io::Error::other(e.reason()))? {
                break length;
            }
        };
        if self.head.status() != 200 || self.head.body() != Body::Length(size) {
            return Err(io::Error::other(format!("answered {} {:?}", self.head.status(), self.head.body())));
        }
        let mut left = size - (filled - length) as u64;
        while left > 0 {
            let n = self.stream.read(&mut self.bytes).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= n as u64;
        }
        Ok(())
    }
}
