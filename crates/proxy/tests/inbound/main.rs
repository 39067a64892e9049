//! The inbound data path over real sockets: what callers send, what the app sees, what comes back, what is logged.

#![allow(missing_docs)]

mod addresses;
mod ambiguity;
mod capacity;
mod early;
mod failures;
mod h2_peers;
mod h2_servers;
mod harness;
mod http1;
mod http2;
mod leaving;
mod mutual_tls;
mod outbound;
mod policy;
mod services;
mod streams;
mod survival;
mod tls_peers;
