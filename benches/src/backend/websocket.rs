//! WebSocket: what comes goes back.

use std::io;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::websocket;

/// Answers the upgrade, then every message.
pub(super) async fn serve(mut stream: TcpStream, key: &[u8]) -> io::Result<()> {
    let accept = websocket::accept(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut stream = BufReader::new(stream);
    let mut message = Vec::new();
    while websocket::read(&mut stream, &mut message).await? {
        stream.write_all(&websocket::frame(&message, false)).await?;
    }
    Ok(())
}
