//! The certificate authority against callers who ask for too much and an API server that lies, stalls and fails.

#![allow(missing_docs)]

mod cluster;
mod refused;
mod rotation;
mod sidecar;
mod signed;
