//! The vocabulary every crate shares: addresses by role, the facts a decision may look at, the decision itself, and the
//! causes of failure. Pure: no I/O, no clock, no engine.

mod addr;
mod cause;
mod facts;
mod field;
mod network;
mod path;
mod place;
mod places;
mod policy;
mod spiffe;
mod tls;

pub use addr::{AddressSource, ClientAddr, Direction, PeerAddr, canonical_ip, write_ip, write_socket_addr};
pub use cause::{Cause, Failure, Fault};
pub use facts::{Edits, Facts, FieldLines, Head, Scheme, Version};
pub use field::{FieldName, FieldSet};
pub use network::canonical_network;
pub use path::{Ambiguous, PathPattern, canonical_path};
pub use place::{Code, Place, Scope};
pub use places::{Answering, Places, Seat};
pub use policy::{
    AMBIGUOUS_PATH, Action, DEFAULT_RULE, Decision, Denial, HostPattern, Mode, Networks, Origin, Permit, Policy, Rule,
    Target,
};
pub use spiffe::{IdentityPattern, IdentityPatternError, SpiffeId, SpiffeIdError, TrustDomain};
pub use tls::TlsFault;
