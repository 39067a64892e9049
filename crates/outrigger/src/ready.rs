//! `outrigger ready`: asks a running sidecar how it is, for health checks in images that have nothing else to ask with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Success where the sidecar's public admin server answers 200; else its answer on standard error.
pub(crate) fn ready(admin: SocketAddr, path: &str) -> ExitCode {
    match ask(admin, path) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
        Ok(answer) => {
            eprintln!("{}", answer.rsplit("\r\n").next().unwrap_or_default().trim_end());
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("no sidecar answers on {admin}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The whole answer to a `GET`, head and body.
pub(crate) fn ask(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(4 * 1024 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_200_is_success() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nready\n", ExitCode::SUCCESS),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n", ExitCode::FAILURE),
            ("", ExitCode::FAILURE),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 64];
                let n = stream.read(&mut asked).unwrap();
                assert!(asked[..n].starts_with(b"GET /livez HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ready(addr, "/livez"), expected, "{answer}");
            server.join().unwrap();
            assert_eq!(ready(addr, "/livez"), ExitCode::FAILURE, "nobody listens any more");
        }
    }
}
