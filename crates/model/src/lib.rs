//! The vocabulary every crate shares: addresses by role, the facts a decision may look at, the decision itself, and the
//! causes of failure. Pure: no I/O, no clock, no engine.

mod addr;
mod cause;
mod facts;
mod field;
mod place;
mod policy;
mod spiffe;

pub use addr::{AddressSource, ClientAddr, Direction, PeerAddr, canonical_ip};
pub use cause::{Cause, Failure, Fault};
pub use facts::{Edits, Facts, FieldLines, Head, Scheme, Version};
pub use field::{FieldName, FieldSet};
pub use place::{Code, Place, Scope};
pub use policy::{Denial, Permit, Policy};
pub use spiffe::{SpiffeId, SpiffeIdError};
