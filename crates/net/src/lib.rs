//! Sockets and bytes: listen, PROXY protocol, detect, TLS sessions, dial, copy both ways. Knows no HTTP.

mod buffer;
mod deadline;
mod detect;
mod dial;
mod io;
mod listen;
mod tls;
mod tunnel;

pub mod proxy_protocol;

pub use buffer::{Buffer, Buffers};
pub use deadline::Deadline;
pub use detect::{Detected, HTTP2_PREFACE, detect};
pub use dial::dial;
pub use io::{Io, Replay};
pub use listen::{Accepted, Acceptor, keep_watch, listen};
pub use tls::HandshakeError;
pub use tunnel::{Carried, tunnel};
