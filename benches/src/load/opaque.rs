//! Opaque bytes: a message to an echo and back, again and again.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Tally;

pub(crate) async fn connection(addr: SocketAddr, size: usize, tally: Tally) {
    if let Err(e) = talk(addr, size, &tally).await {
        tally.failed(e);
    }
}

async fn talk(addr: SocketAddr, size: usize, tally: &Tally) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let message = vec![b'x'; size];
    let mut answer = vec![0; size];
    while !tally.is_over() {
        let since = Instant::now();
        stream.write_all(&message).await?;
        stream.read_exact(&mut answer).await?;
        tally.done(since);
    }
    Ok(())
}
