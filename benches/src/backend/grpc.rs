//! gRPC over HTTP/2 without TLS: `/bench.App/SIZE` answers with one message of so many bytes, `/bench.App/Echo` repeats
//! messages as they come.

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A message as gRPC puts it: not compressed, its length, its bytes.
pub(crate) fn message(size: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + size);
    out.put_u8(0);
    out.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    out.put_bytes(b'x', size);
    out.freeze()
}

pub(super) async fn serve(stream: TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .max_concurrent_streams(1000)
        .handshake(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        tokio::spawn(answer(request, respond));
    }
    Ok(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let mut received = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut send = respond.send_response(head, false)?;
    if let Ok(size) = method.parse() {
        while let Some(data) = received.data().await {
            received.flow_control().release_capacity(data?.len())?;
        }
        send.send_data(message(size), false)?;
    } else {
        echo(&mut received, &mut send).await?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

async fn echo(received: &mut RecvStream, send: &mut SendStream<Bytes>) -> Result<(), Error> {
    while let Some(data) = received.data().await {
        let data = data?;
        received.flow_control().release_capacity(data.len())?;
        // Of the end nothing is to be repeated: proxies take many empty frames for an attack.
        if !data.is_empty() {
            send.send_data(data, false)?;
        }
    }
    Ok(())
}
