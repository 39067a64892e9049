//! The data path: from an accepted connection to the app and back, one task per connection, one thread per worker.
//!
//! [`bind`] opens the listeners, [`Workers::start`] serves them until the [`Lifecycle`] ends. What happens to a
//! connection reads top to bottom in `inbound`; what happens to a request is the same for every protocol and stands in
//! `inbound::stages`.

mod app;
mod cluster;
pub mod config;
mod handshake;
mod inbound;
mod lifecycle;
mod linger;
mod listener;
mod outbound;
mod rate;
mod supervise;
mod tries;
mod worker;

pub use cluster::{Cluster, ClusterState, EndpointState, Resolution};
pub use lifecycle::{Departure, Lifecycle, Phase};
pub use listener::bind;
pub use worker::{Capacity, Shared, Workers};
