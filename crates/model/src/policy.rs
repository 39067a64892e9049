//! May this request be forwarded? The one place that can say yes.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::path::{Ambiguous, PathPattern, canonical_path};
use crate::{Code, Facts, Head, IdentityPattern, Place, Scope, canonical_network};

/// Who may call what: rules in order, the first that matches decides. The default allows everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether what is denied is refused, or only told.
    pub mode: Mode,
    /// What becomes of requests that no rule matches.
    pub default: Action,
    /// What becomes of public addresses whose country (or system) is not known, where a rule asks for it.
    pub geo_unknown: Action,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mode: Mode::Enforce, default: Action::Allow, geo_unknown: Action::Allow, rules: Vec::new() }
    }
}

/// Whether denials are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What is denied is refused.
    Enforce,
    /// What is denied is logged and counted as if, and goes on.
    Audit,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It may go on.
    Allow,
    /// It may not.
    Deny,
}

/// One rule: matches where every key that is there does; a key does where one of its values does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name in log and metric.
    pub name: Box<str>,
    /// What becomes of what it matches.
    pub action: Action,
    /// Who calls, and from where.
    pub from: Origin,
    /// What is asked for.
    pub to: Target,
}

/// Who calls, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Identities proven by mutual TLS.
    pub identities: Vec<IdentityPattern>,
    /// Networks the client is in.
    pub networks: Networks,
    /// Countries the client is in. A private address is never foreign: it is in no country that is denied, and in every one
    /// that is allowed.
    pub countries: Vec<Code>,
    /// Autonomous systems the client is in; of private addresses, as with countries.
    pub asns: Vec<u32>,
}

/// What is asked for. On an opaque connection nothing is: a rule with any of these does not match it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Methods, as they are sent.
    pub methods: Vec<Box<str>>,
    /// Paths in canonical form. Denial ignores ASCII case, since some apps do; allowance does not.
    pub paths: Vec<PathPattern>,
    /// Hosts, whatever the port.
    pub hosts: Vec<HostPattern>,
}

impl Target {
    /// Whether a request is one of these, in doubt that it is: a path without a canonical form, or in other case, might be.
    pub fn covers(&self, head: &Head<'_>) -> bool {
        let path = match self.paths.is_empty() {
            true => Some(Cow::Borrowed(head.path)),
            false => canonical_path(head.path).ok(),
        };
        path.is_none_or(|path| self.fits(Some(head), Some(&path), true))
    }

    fn fits(&self, head: Option<&Head<'_>>, path: Option<&str>, ignore_case: bool) -> bool {
        let Self { methods, paths, hosts } = self;
        (methods.is_empty() || head.is_some_and(|head| methods.iter().any(|m| **m == *head.method)))
            && (paths.is_empty() || path.is_some_and(|path| paths.iter().any(|p| p.covers(path, ignore_case))))
            && (hosts.is_empty()
                || head.is_some_and(|head| hosts.iter().any(|host| host.covers(without_port(head.authority)))))
    }
}

/// Networks; those of IPv4-mapped addresses are the IPv4 networks they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Takes networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().map(canonical_network).collect())
    }

    /// Whether the address is in one of them. An IPv6 network contains no IPv4 address, `::/0` included.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// A host name such as `login.example.org`, or `*.example.org` for every name below it. Case is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: Box<str>,
    below: bool,
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What it would have to be.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        let (name, below) = match pattern.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (pattern, false),
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        if name.is_empty() || !name.bytes().all(legal) {
            return Err("is a host without a port, or *. and a domain");
        }
        Ok(Self { name: name.into(), below })
    }

    fn covers(&self, host: &str) -> bool {
        // A name may be written with the root's dot at its end.
        let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
        let name = self.name.as_bytes();
        if !self.below {
            return host.eq_ignore_ascii_case(name);
        }
        let Some(start) = host.len().checked_sub(name.len()).filter(|start| *start > 1) else { return false };
        host[start - 1] == b'.' && host[start..].eq_ignore_ascii_case(name)
    }
}

/// Proof that a request was authorized. Forwarding takes one, and only [`Policy::authorize`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    _only_here: (),
}

/// A refusal, carried out or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that refused, for log and metric; never told to the caller.
    pub rule: Box<str>,
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// What becomes of the request.
    pub action: Action,
    /// The rule's name.
    pub rule: &'p str,
}

/// The rule that decides where none matches.
pub const DEFAULT_RULE: &str = "default";
/// The rule that refuses paths that have no canonical form, where any rule asks for the path.
pub const AMBIGUOUS_PATH: &str = "ambiguous_path";

impl Policy {
    /// Decides over one request, or over an opaque connection. Pure: the same facts always give the same answer.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        let path = match facts.head.map(|head| self.path(head)).transpose() {
            Ok(path) => path,
            Err(Ambiguous(_)) => return Decision { action: Action::Deny, rule: AMBIGUOUS_PATH },
        };
        let first = self.rules.iter().find(|rule| self.matches(rule, facts, path.as_deref()));
        first.map_or(Decision { action: self.default, rule: DEFAULT_RULE }, |rule| Decision {
            action: rule.action,
            rule: &rule.name,
        })
    }

    /// Decides, and proves it. In [`Mode::Audit`] a denial comes along with the permit.
    ///
    /// # Errors
    /// The [`Denial`] names the rule that refused.
    pub fn authorize(&self, facts: &Facts<'_>) -> Result<(Permit, Option<Denial>), Denial> {
        let permit = Permit { _only_here: () };
        if self.rules.is_empty() && self.default == Action::Allow {
            return Ok((permit, None));
        }
        let Decision { action, rule } = self.decide(facts);
        if action == Action::Allow {
            return Ok((permit, None));
        }
        let denial = Denial { rule: rule.into() };
        match self.mode {
            Mode::Enforce => Err(denial),
            Mode::Audit => Ok((permit, Some(denial))),
        }
    }

    /// The path as rules see it, where any asks.
    fn path<'h>(&self, head: &Head<'h>) -> Result<Cow<'h, str>, Ambiguous> {
        match self.rules.iter().any(|rule| !rule.to.paths.is_empty()) {
            true => canonical_path(head.path),
            false => Ok(Cow::Borrowed(head.path)),
        }
    }

    fn matches(&self, rule: &Rule, facts: &Facts<'_>, path: Option<&str>) -> bool {
        let Origin { identities, networks, countries, asns } = &rule.from;
        let ip = facts.client.ip;
        (identities.is_empty() || facts.identity.is_some_and(|id| identities.iter().any(|pattern| pattern.matches(id))))
            && (*networks == Networks::default() || networks.contain(ip))
            && (countries.is_empty() || self.located(rule, facts.place, facts.place.country, countries))
            && (asns.is_empty() || self.located(rule, facts.place, facts.place.asn, asns))
            && rule.to.fits(facts.head, path, rule.action == Action::Deny)
    }

    /// Whether a client is in one of these places, for this rule.
    fn located<T: PartialEq>(&self, rule: &Rule, place: &Place, known: Option<T>, listed: &[T]) -> bool {
        match known {
            Some(known) => listed.contains(&known),
            // Nobody on the Internet: at home.
            None if place.scope != Scope::Global => rule.action == Action::Allow,
            None => rule.action == self.geo_unknown,
        }
    }
}

/// The host of an authority (RFC 3986, 3.2): `[::1]:80` has the host `[::1]`.
fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests;
