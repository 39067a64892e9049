//! What happened, told once: the access log and the metrics.
//!
//! A request owns one [`Record`] from its first byte; its drop writes the line and the metrics, so that no exit can forget
//! to. Each worker has a [`Local`] of its own, with plain counters and a buffer for lines; nothing a worker does here waits
//! for anybody.

mod clock;
mod country;
mod line;
mod local;
mod metrics;
mod process;
mod record;
mod settings;
mod shard;
mod sink;
mod writer;

pub use local::{Connection, Local};
pub use metrics::{GeoDatabase, IdentityState, Telemetry, UpstreamState};
pub use record::Record;
pub use settings::{AccessLog, AddressPrivacy, Format, Output, Privacy, QueryPrivacy, Rotate, Settings};
pub use shard::Limit;
