//! gRPC over HTTP/2 by prior knowledge: calls of one message each way, and streams of many.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};

use super::Tally;
use super::http2::{Error, on_streams};
use crate::backend::grpc::message;

/// Calls for a message of `size` bytes on so many streams, again and again.
pub(crate) async fn unary(addr: SocketAddr, size: usize, streams: usize, tally: Tally) {
    let calls = move |client: SendRequest<Bytes>, tally: Tally| async move {
        while !tally.is_over() {
            let since = Instant::now();
            match call(&client, size).await {
                Ok(()) => tally.done(since),
                Err(e) => return tally.failed(e),
            }
        }
    };
    if let Err(e) = on_streams(addr, streams, &tally, calls).await {
        tally.failed(e);
    }
}

/// Keeps so many streams open, and on each sends a message of `size` bytes as soon as the last has come back.
pub(crate) async fn streaming(addr: SocketAddr, size: usize, streams: usize, tally: Tally) {
    let talks = move |client: SendRequest<Bytes>, tally: Tally| async move {
        if let Err(e) = talk(&client, size, &tally).await {
            tally.failed(e);
        }
    };
    if let Err(e) = on_streams(addr, streams, &tally, talks).await {
        tally.failed(e);
    }
}

async fn begin(client: &SendRequest<Bytes>, method: &str) -> Result<(ResponseFuture, SendStream<Bytes>), Error> {
    let request = Request::post(format!("http://app.test/bench.App/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "benches")
        .body(())?;
    let mut client = client.clone().ready().await?;
    Ok(client.send_request(request, false)?)
}

async fn call(client: &SendRequest<Bytes>, size: usize) -> Result<(), Error> {
    let (answer, mut send) = begin(client, &size.to_string()).await?;
    send.send_data(message(32), true)?;
    let mut body = answer.await?.into_body();
    let mut read = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read.extend_from_slice(&data);
    }
    if read.len() != 5 + size {
        return Err(format!("{} of {} bytes", read.len(), 5 + size).into());
    }
    check(body.trailers().await?)
}

async fn talk(client: &SendRequest<Bytes>, size: usize, tally: &Tally) -> Result<(), Error> {
    let (answer, mut send) = begin(client, "Echo").await?;
    let message = message(size);
    let mut body: Option<RecvStream> = None;
    let mut answer = Some(answer);
    while !tally.is_over() {
        let since = Instant::now();
        send.send_data(message.clone(), false)?;
        // The answer's head comes with the first message.
        if let Some(answer) = answer.take() {
            body = Some(answer.await?.into_body());
        }
        let Some(body) = &mut body else { break };
        let mut left = message.len();
        while left > 0 {
            let data = body.data().await.ok_or("the stream ended")??;
            body.flow_control().release_capacity(data.len())?;
            left = left.checked_sub(data.len()).ok_or("more came back than was sent")?;
        }
        tally.done(since);
    }
    send.send_data(Bytes::new(), true)?;
    match body {
        Some(mut body) => {
            while let Some(data) = body.data().await {
                data?;
            }
            check(body.trailers().await?)
        }
        None => Ok(()),
    }
}

fn check(trailers: Option<HeaderMap>) -> Result<(), Error> {
    let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    if status.is_some_and(|status| status == "0") { Ok(()) } else { Err(format!("ended with {status:?}").into()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::backend;
    use crate::load;

    /// Without a proxy between; every stream ends with its status.
    #[test]
    fn load_and_app_understand_each_other() {
        let addr = backend::start_grpc().unwrap();
        let length = Duration::from_millis(100);
        for outcome in [
            load::run(2, length, false, |tally, _| super::unary(addr, 1024, 4, tally)).unwrap(),
            load::run(2, length, false, |tally, _| super::streaming(addr, 1024, 4, tally)).unwrap(),
        ] {
            assert!(outcome.done > 0 && outcome.failed == 0, "{outcome:?}");
        }
    }
}
