//! HTTP/2 by prior knowledge: so many streams at once on each connection.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use super::Tally;

pub(super) type Error = Box<dyn std::error::Error>;

/// Asks for `size` bytes on so many streams, each again as soon as it is answered.
pub(crate) async fn connection(addr: SocketAddr, size: u64, streams: usize, tally: Tally) {
    let asks = move |client: SendRequest<Bytes>, tally: Tally| async move {
        while !tally.is_over() {
            let since = Instant::now();
            match get(&client, size).await {
                Ok(()) => tally.done(since),
                Err(e) => return tally.failed(e),
            }
        }
    };
    if let Err(e) = on_streams(addr, streams, &tally, asks).await {
        tally.failed(e);
    }
}

/// Runs `work` so many times side by side on one connection.
pub(super) async fn on_streams<W, F>(addr: SocketAddr, streams: usize, tally: &Tally, work: W) -> Result<(), Error>
where
    W: Fn(SendRequest<Bytes>, Tally) -> F,
    F: Future<Output = ()> + 'static,
{
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    let driver = tokio::task::spawn_local(connection);
    let tasks: Vec<_> = (0..streams).map(|_| tokio::task::spawn_local(work(client.clone(), tally.clone()))).collect();
    for task in tasks {
        task.await?;
    }
    drop(client);
    driver.abort();
    Ok(())
}

async fn get(client: &SendRequest<Bytes>, size: u64) -> Result<(), Error> {
    let request = http::Request::get(format!("http://app.test/{size}")).header("user-agent", "benches").body(())?;
    let mut client = client.clone().ready().await?;
    let (answer, _) = client.send_request(request, true)?;
    let answer = answer.await?;
    if answer.status() != 200 {
        return Err(format!("answered {}", answer.status()).into());
    }
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read += data.len() as u64;
    }
    if read == size { Ok(()) } else { Err(format!("{read} of {size} bytes").into()) }
}
