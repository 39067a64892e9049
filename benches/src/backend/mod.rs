//! The apps behind every proxy: one that answers `/SIZE` with so many bytes over HTTP/1.1 and `/websocket` with an upgrade, one
//! for gRPC, and an echo for opaque bytes.

pub(crate) mod grpc;
mod websocket;

use std::io;
use std::net::SocketAddr;

use h1::RequestHead;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peers::Apps;

/// Serves all of them, until the process ends.
pub(crate) fn start(apps: Apps) -> io::Result<()> {
    let (http, echo, grpc) = (listen(apps.http)?, listen(apps.echo)?, listen(apps.grpc)?);
    serve(async move || {
        let (http, echo, grpc) =
            (TcpListener::from_std(http)?, TcpListener::from_std(echo)?, TcpListener::from_std(grpc)?);
        loop {
            tokio::select! {
                accepted = http.accept() => drop(tokio::spawn(answer(accepted?.0))),
                accepted = echo.accept() => drop(tokio::spawn(repeat(accepted?.0))),
                accepted = grpc.accept() => drop(tokio::spawn(grpc::serve(accepted?.0))),
            }
        }
    })
}

/// Serves HTTP/1.1 alone, in the network namespace of whoever calls this.
pub(crate) fn start_http(http: SocketAddr) -> io::Result<()> {
    let http = listen(http)?;
    serve(async move || {
        let http = TcpListener::from_std(http)?;
        loop {
            drop(tokio::spawn(answer(http.accept().await?.0)));
        }
    })
}

/// Serves gRPC alone, somewhere.
#[cfg(test)]
pub(crate) fn start_grpc() -> io::Result<SocketAddr> {
    let grpc = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let addr = grpc.local_addr()?;
    serve(async move || {
        let grpc = TcpListener::from_std(grpc)?;
        loop {
            drop(tokio::spawn(grpc::serve(grpc.accept().await?.0)));
        }
    })?;
    Ok(addr)
}

fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Runs this on a thread of its own.
fn serve(accept: impl AsyncFnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("backend".into()).spawn(move || -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(accept())
    })?;
    Ok(())
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let limits = h1::Limits::default();
    let mut head = RequestHead::new();
    let (mut bytes, mut filled) = (vec![0; 16 * 1024], 0);
    let mut out = Vec::new();
    loop {
        let length = match head.parse(&bytes[..filled], &limits) {
            Ok(Some(length)) => length,
            Ok(None) => {
                let n = stream.read(&mut bytes[filled..]).await?;
                if n == 0 {
                    return Ok(());
                }
                filled += n;
                continue;
            }
            Err(e) => return Err(io::Error::other(e.reason())),
        };
        if let Some(key) = websocket_key(&head, &bytes[..filled]) {
            return websocket::serve(stream, &key).await;
        }
        let size: usize = head.path(&bytes[..filled])[1..].parse().unwrap_or(0);
        bytes.copy_within(length..filled, 0);
        filled -= length;
        out.clear();
        out.extend_from_slice(
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").as_bytes(),
        );
        let whole = size.min(64 * 1024);
        out.resize(out.len() + whole, b'x');
        stream.write_all(&out).await?;
        let mut left = size - whole;
        while left > 0 {
            let n = left.min(whole);
            let start = out.len() - n;
            stream.write_all(&out[start..]).await?;
            left -= n;
        }
    }
}

/// What a request for an upgrade has to be answered with.
fn websocket_key(head: &RequestHead, bytes: &[u8]) -> Option<Vec<u8>> {
    head.upgrade(bytes)?;
    head.fields(bytes)
        .find(|field| field.name.eq_ignore_ascii_case(b"sec-websocket-key"))
        .map(|field| field.value.to_owned())
}

async fn repeat(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let n = stream.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..n]).await?;
    }
}
