//! HTTP/2 by prior knowledge: so many streams at once on each connection.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;

use super::Tally;

/// Asks for `size` bytes on so many streams, each again as soon as it is answered.
pub(crate) async fn connection(addr: SocketAddr, size: u64, streams: usize, tally: Tally) {
    if let Err(e) = ask(addr, size, streams, &tally).await {
        tally.failed(e);
    }
}

type Error = Box<dyn std::error::Error>;

async fn ask(addr: SocketAddr, size: u64, streams: usize, tally: &Tally) -> Result<(), Error> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    let driver = tokio::task::spawn_local(connection);
    let tasks: Vec<_> = (0..streams)
        .map(|_| {
            let (client, tally) = (client.clone(), tally.clone());
            tokio::task::spawn_local(async move {
                while !tally.is_over() {
                    let since = Instant::now();
                    match get(&client, size).await {
                        Ok(()) => tally.done(since),
                        Err(e) => return tally.failed(e),
                    }
                }
            })
        })
        .collect();
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
