//! The floor: a relay of raw bytes, one thread, a connection to the app for each of a caller's.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Relays each listener's connections to its app; to where the rules redirected them from, where it has none.
pub(crate) fn run(addresses: &[SocketAddr]) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listening = tokio::task::JoinSet::new();
        for route in addresses.chunks(2) {
            listening.spawn(accept(TcpListener::bind(route[0]).await?, route.get(1).copied()));
        }
        match listening.join_next().await {
            Some(ended) => Ok(ended??),
            None => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener, app: Option<SocketAddr>) -> io::Result<()> {
    loop {
        let (mut caller, _) = listener.accept().await?;
        tokio::spawn(async move {
            caller.set_nodelay(true)?;
            let app = app.or_else(|| net::original_dst(&caller)).ok_or(io::ErrorKind::AddrNotAvailable)?;
            let mut app = TcpStream::connect(app).await?;
            app.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut caller, &mut app).await
        });
    }
}
