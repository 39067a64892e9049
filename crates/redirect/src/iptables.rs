//! The rules as chains of iptables, one text for each family, and reading such chains back.

use std::collections::BTreeMap;

use model::Direction;

use crate::listing::Listing;
use crate::rules::{Family, Match, Rule, Rules, Verdict};

/// All chains that are ours begin with this.
const OURS: &str = "OUTRIGGER_";
/// The chains that connections come from into ours.
const HOOKS: [&str; 2] = ["PREROUTING", "OUTPUT"];

impl Rules {
    /// The rules of one family as input of `iptables-restore --noflush` or `ip6tables-restore --noflush`, where none of
    /// ours is in place yet. One transaction.
    pub fn iptables(&self, family: Family) -> String {
        Chains::default().transition(&Chains::wanted(self, family)).unwrap_or_default()
    }
}

/// Our chains of one family, with what leads into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chains {
    /// The lines of each, beginning with `-A`, or with `#` for a comment.
    chains: BTreeMap<String, Vec<String>>,
    /// Rules in chains of others that go to ours.
    jumps: Vec<String>,
}

impl Chains {
    /// The chains that these rules make. Written as `iptables-save` does, so that the two can be compared.
    pub(crate) fn wanted(rules: &Rules, family: Family) -> Self {
        let mut chains = Self::default();
        for (direction, hook, chain) in
            [(Direction::Inbound, HOOKS[0], "OUTRIGGER_INBOUND"), (Direction::Outbound, HOOKS[1], "OUTRIGGER_OUTBOUND")]
        {
            let mut all = Vec::new();
            for rule in rules.of(direction) {
                let lines = lines(rule, direction, family, chain);
                if !lines.is_empty() {
                    all.push(format!("# {}", rule.why));
                    all.extend(lines);
                }
            }
            chains.chains.insert(chain.to_owned(), all);
            chains.jumps.push(format!("-A {hook} -p tcp -j {chain}"));
        }
        chains
    }

    /// Finds ours in the output of `iptables-save`.
    pub(crate) fn read(saved: &str) -> Self {
        let mut found = Self::default();
        let nat = saved.lines().skip_while(|line| *line != "*nat").take_while(|line| *line != "COMMIT");
        for line in nat {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, ..] if name.starts_with(':') && name[1..].starts_with(OURS) => {
                    found.chains.entry(name[1..].to_owned()).or_default();
                }
                ["-A", chain, ..] if chain.starts_with(OURS) => {
                    found.chains.entry((*chain).to_owned()).or_default().push(line.to_owned());
                }
                ["-A", .., "-j" | "-g", target] if target.starts_with(OURS) => found.jumps.push(line.to_owned()),
                _ => {}
            }
        }
        found
    }

    /// Whether there is nothing of ours.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What `iptables-restore --noflush` is to be told to make these chains those. None where both are empty.
    pub(crate) fn transition(&self, wanted: &Self) -> Option<String> {
        if self.is_empty() && wanted.is_empty() {
            return None;
        }
        let mut lines = vec!["*nat".to_owned()];
        // This makes a chain, or empties it.
        let declared = wanted.chains.keys().chain(self.chains.keys().filter(|name| !wanted.chains.contains_key(*name)));
        lines.extend(declared.map(|name| format!(":{name} - [0:0]")));
        lines.extend(without(&self.jumps, &wanted.jumps).map(|jump| jump.replacen("-A", "-D", 1)));
        lines.extend(wanted.chains.values().flatten().cloned());
        lines.extend(without(&wanted.jumps, &self.jumps).cloned());
        let gone = self.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
        lines.extend(gone.map(|name| format!("-X {name}")));
        lines.push("COMMIT\n".to_owned());
        Some(lines.join("\n"))
    }

    /// For comparing, each place named with its family.
    pub(crate) fn listing(&self, family: Family, listing: &mut Listing) {
        let place = |chain: &str| format!("chain {chain} ({})", family.as_str());
        for chain in HOOKS {
            listing.open(&place(chain));
        }
        for (chain, lines) in &self.chains {
            listing.open(&place(chain));
            for line in lines.iter().filter(|line| !line.starts_with('#')) {
                listing.push(&place(chain), line, line.clone());
            }
        }
        for jump in &self.jumps {
            listing.push(&place(jump.split(' ').nth(1).unwrap_or_default()), jump, jump.clone());
        }
    }
}

/// The first without the second's, one for one.
fn without<'a>(lines: &'a [String], others: &[String]) -> impl Iterator<Item = &'a String> {
    let mut others: Vec<String> = others.to_vec();
    lines.iter().filter(move |line| match others.iter().position(|other| other == *line) {
        Some(at) => {
            others.remove(at);
            false
        }
        None => true,
    })
}

/// A rule as lines for one family, since iptables has no sets: a line for each network and range of ports.
fn lines(rule: &Rule, direction: Direction, family: Family, chain: &str) -> Vec<String> {
    let mut networks = vec![String::new()];
    let mut ports = vec![String::new()];
    let (mut interface, mut matches) = (String::new(), String::new());
    for when in &rule.when {
        match (when, family) {
            (Match::Open, _) => matches.push_str(" -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN"),
            (Match::Loopback, _) => {
                interface = format!(" {} lo", if direction == Direction::Inbound { "-i" } else { "-o" });
            }
            (Match::NotLocal, _) => matches.push_str(" -m addrtype ! --dst-type LOCAL"),
            (Match::User(uid), _) => matches.push_str(&format!(" -m owner --uid-owner {uid}")),
            (Match::Ports(ranges), _) => {
                ports = ranges
                    .iter()
                    .map(|range| format!(" -m tcp --dport {}", range.to_string().replace('-', ":")))
                    .collect();
            }
            (Match::Networks4(all), Family::V4) => networks = all.iter().map(destination).collect(),
            (Match::Networks6(all), Family::V6) => networks = all.iter().map(destination).collect(),
            (Match::Networks4(_), Family::V6) | (Match::Networks6(_), Family::V4) => return Vec::new(),
        }
    }
    let target = match rule.then {
        Verdict::LeaveAlone => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    let with_ports = |network: &String| -> Vec<String> {
        let line = |ports| format!("-A {chain}{network}{interface} -p tcp{ports}{matches} -j {target}");
        ports.iter().map(line).collect()
    };
    networks.iter().flat_map(with_ports).collect()
}

/// All addresses are not mentioned, as `iptables-save` would not.
fn destination(network: &impl ToString) -> String {
    let network = network.to_string();
    if network.ends_with("/0") { String::new() } else { format!(" -d {network}") }
}

#[cfg(test)]
mod tests;
