//! WebSocket: an upgrade, then a message and its echo, again and again.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Tally;
use crate::websocket;

pub(crate) async fn connection(addr: SocketAddr, size: usize, tally: Tally) {
    if let Err(e) = talk(addr, size, &tally).await {
        tally.failed(e);
    }
}

async fn talk(addr: SocketAddr, size: usize, tally: &Tally) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(addr).await?);
    stream.get_ref().set_nodelay(true)?;
    let request = format!(
        "GET /websocket HTTP/1.1\r\nHost: app.test\r\nUser-Agent: benches\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        websocket::KEY
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(&websocket::accept(websocket::KEY.as_bytes())) {
        return Err(io::Error::other(format!("no upgrade: {head}")));
    }
    let message = vec![b'x'; size];
    let framed = websocket::frame(&message, true);
    let mut answer = Vec::new();
    while !tally.is_over() {
        let since = Instant::now();
        stream.write_all(&framed).await?;
        if !websocket::read(&mut stream, &mut answer).await? || answer != message {
            return Err(io::Error::other("not the message that was sent"));
        }
        tally.done(since);
    }
    Ok(())
}
