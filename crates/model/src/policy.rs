//! May this request be forwarded? The one place that can say yes.

use crate::Facts;

/// Who may call what. Today every caller may: rules over identity, path, network and country plug in behind
/// [`Policy::authorize`] without a change to the data path.
#[derive(Clone, Debug, Default)]
pub struct Policy {}

impl Policy {
    /// Decides over one request. Pure: the same facts always give the same answer.
    ///
    /// # Errors
    /// The [`Denial`] names the rule that refused.
    pub fn authorize(&self, _facts: &Facts<'_>) -> Result<Permit, Denial> {
        Ok(Permit { _only_here: () })
    }
}

/// Proof that a request was authorized. Forwarding takes one, and only [`Policy::authorize`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    _only_here: (),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that refused, for log and metric; never told to the caller.
    pub rule: String,
}
