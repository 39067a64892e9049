//! The floor: a relay of raw bytes, one thread, a connection to the app for each of a caller's.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Relays each listener's connections to its app.
pub(crate) fn run(routes: &[(SocketAddr, SocketAddr)]) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listening = tokio::task::JoinSet::new();
        for &(listen, app) in routes {
            listening.spawn(accept(TcpListener::bind(listen).await?, app));
        }
        match listening.join_next().await {
            Some(ended) => Ok(ended??),
            None => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener, app: SocketAddr) -> io::Result<()> {
    loop {
        let (mut caller, _) = listener.accept().await?;
        tokio::spawn(async move {
            caller.set_nodelay(true)?;
            let mut app = TcpStream::connect(app).await?;
            app.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut caller, &mut app).await
        });
    }
}
