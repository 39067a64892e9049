//! Netfilter rules as data, as text, applied and verified: they bring a network namespace's TCP to the proxy.
//!
//! [`Rules`] are made from [`Settings`] and written as text without touching anything; [`Netfilter`] puts them in place
//! through `nft`, or `iptables-restore` where nftables is missing, and reads them back. Putting them in place is one
//! transaction (one for each family with iptables, undone where the second fails), may be repeated at any time, and
//! never touches a rule of another's: ours are in a table, or chains, of their own.
//!
//! What is redirected, TCP only:
//!
//! - *Inbound*: connections to an address of this namespace, to the inbound port. Not what arrives over loopback, and
//!   not the proxy's own ports. What is merely forwarded through the namespace goes its way.
//! - *Outbound*: connections that leave the namespace, to the outbound port. Not the proxy's own, known by user id, or
//!   they would go round in circles.
//! - Only a connection's first packet is looked at: connections that are open when rules are put in place, first or
//!   anew, stay with whom they reached. When rules are *removed*, open connections that were redirected break, unless
//!   something else in the namespace uses NAT too: the kernel stops translating addresses when nobody asks for it any
//!   more.
//!
//! **An app that calls itself** works. By its own address, the packets pass over loopback and are left alone, as with
//! Linkerd: nobody else is concerned, and it works without a proxy. By the address of its Service, the connection
//! leaves the namespace and is redirected; the proxy then dials whichever endpoint it picks, and where that is the
//! namespace's own address, the packets again pass over loopback, straight to the app. Istio redirects that last leg to
//! its inbound side, and marks what comes out there by a source address of its own, 127.0.0.6; here, the inbound side
//! dials the app by its original address, so that the same rule would make a circle. So whoever dials has to know: **an
//! endpoint with an address of this namespace is the app, not an outrigger** (no mutual TLS), as in Linkerd.
//!
//! Redirected connections arrive at the address of the interface they came in by (inbound), or at 127.0.0.1 and `::1`
//! (outbound): the inbound listener has to listen on all addresses, the outbound one on both of these.

mod settings;

mod rules;

mod iptables;
mod nft;

mod netfilter;

mod listing;
mod lock;
mod program;

mod error;

pub use error::Error;
pub use listing::Finding;
pub use netfilter::{Netfilter, Tool};
pub use rules::{Family, Rules};
pub use settings::{Choice, PortRange, PortRangeError, Settings, SettingsError};
