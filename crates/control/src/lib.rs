//! What a cluster may want beside the sidecars, none of which needs it: a certificate authority that knows workloads by their
//! ServiceAccount, and an injector that puts sidecars into pods. It carries nothing of the data path.

pub mod api;
pub mod ca;
mod cli;
pub mod injector;
mod limit;
pub mod serve;

use std::process::ExitCode;

/// The program: parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

/// The one cryptography provider.
fn provider() -> &'static std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<std::sync::Arc<rustls::crypto::CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}
