//! The way out: which service a call is for, or whom else it may go to.

mod route;
mod routes;
pub(crate) mod strangers;

pub(crate) use route::{Route, check_loop, of_bytes, of_request, permitted_endpoint, split_authority};
pub(crate) use routes::is_link_local;
pub use routes::{Destinations, Routes, Share, Split, Unmatched};
