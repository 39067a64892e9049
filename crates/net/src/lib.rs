//! Sockets and bytes: listen, PROXY protocol, detect, TLS sessions, dial, copy both ways. Knows no HTTP.

mod buffer;
mod client_hello;
mod cork;
mod deadline;
mod detect;
mod dial;
mod guess;
mod io;
mod listen;
mod original;
mod spare;
mod tunnel;

pub mod dns;
pub mod proxy_protocol;
pub mod tls;

pub use buffer::{Buffer, Buffers};
pub use client_hello::{ClientHello, Hello, client_hello};
pub use cork::{Cork, Corked, cork};
pub use deadline::Deadline;
pub use detect::{Detected, HTTP2_PREFACE, detect};
pub use dial::dial;
pub use guess::{Guess, guess, guess_towards_app};
pub use io::Io;
pub use listen::{Accepted, Acceptor, keep_watch, lacks_ipv6, listen};
pub use original::{is_local, original_dst};
pub use spare::Spare;
pub use tls::{Agreed, Handshake, HandshakeError};
pub use tunnel::{Carried, tunnel};
