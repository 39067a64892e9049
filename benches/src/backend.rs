//! The app behind every proxy: answers `/SIZE` with so many bytes, over HTTP/1.1; and an echo for opaque bytes.

use std::io;
use std::net::SocketAddr;

use h1::RequestHead;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves both until dropped with its thread: the process's end.
pub(crate) fn start(http: SocketAddr, echo: SocketAddr) -> io::Result<()> {
    let http = std::net::TcpListener::bind(http)?;
    let echo = std::net::TcpListener::bind(echo)?;
    for listener in [&http, &echo] {
        listener.set_nonblocking(true)?;
    }
    std::thread::Builder::new().name("backend".into()).spawn(move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (http, echo) = (TcpListener::from_std(http)?, TcpListener::from_std(echo)?);
            loop {
                tokio::select! {
                    accepted = http.accept() => drop(tokio::spawn(answer(accepted?.0))),
                    accepted = echo.accept() => drop(tokio::spawn(repeat(accepted?.0))),
                }
            }
        })
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
