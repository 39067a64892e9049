//! Whose address is it, and where is it.
//!
//! The first half is pure: [`client_address`] decides, from the socket, a PROXY header and the forwarding headers, whom to
//! hold to be the caller. Nothing a caller writes can make it name anybody whom no trusted hop named. The second half looks
//! an address up in databases that a control thread loads and swaps ([`Geo`]), each worker through its own [`Lookup`].

mod address;
mod trust;

mod forwarded;
mod node;
mod x_forwarded_for;

mod lookup;
mod reload;

mod embedded;
mod generation;
mod mmdb;
mod record;

pub use address::{AddressPolicy, ForwardingHeader, MAX_ENTRIES, Resolved, client_address};
pub use forwarded::{Element, forwarded};
pub use generation::{Generation, Kind};
pub use lookup::Lookup;
pub use mmdb::{MAX_DATABASE_BYTES, OpenError};
pub use node::{Malformed, Node};
pub use reload::{FileState, Geo, GeoSettings, GeoState};
pub use trust::{Proxies, Trust};
pub use x_forwarded_for::x_forwarded_for;
