//! The kernel does as the rules say: real connections in network namespaces of their own. Where these can't be made,
//! for want of root or of the tools (Debian's nftables, iptables and iproute2), tests say that they were skipped.

#![allow(missing_docs)]

mod redirected;

mod in_place;

mod lasting;

mod failures;

mod room;
mod tools;
