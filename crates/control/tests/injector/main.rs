//! The injector: recorded reviews and the patches they get, manifests, and a certificate of its own.

#![allow(missing_docs)]

mod certificate;
mod cluster;
mod manifests;
mod patches;
mod server;
