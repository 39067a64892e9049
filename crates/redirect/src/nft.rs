//! The rules as a table of nftables, and reading such a table back.

use std::fmt::Write;

use model::Direction;

use crate::listing::Listing;
use crate::rules::{Match, Rule, Rules, Verdict};

/// All that is ours is in this table; nobody else has business in it.
pub(crate) const TABLE: &str = "inet outrigger";
/// Takes our table away, and is no error where there is none. One transaction.
pub(crate) const REMOVAL: &str = "add table inet outrigger\ndelete table inet outrigger\n";
/// Lists our table: no counters, and numbers where names depend on the place. [`Listing::of_nft`] reads it.
pub(crate) const LIST: [&str; 5] = ["--stateless", "--numeric-priority", "list", "table", TABLE];

/// Those packets that open no connection, as written and as some versions list it.
const OPEN: [&str; 2] = ["tcp flags & (fin | syn | rst | ack) != syn", "tcp flags != syn / fin,syn,rst,ack"];

impl Rules {
    /// The rules as input of `nft -f -`: whatever was in our table before is replaced, in one transaction.
    pub fn nft(&self) -> String {
        let mut text = format!("{REMOVAL}table {TABLE} {{\n");
        for (direction, name, hook) in
            [(Direction::Inbound, "inbound", "prerouting"), (Direction::Outbound, "outbound", "output")]
        {
            // Where destinations are translated: `dstnat`, a name that some versions refuse for `output`.
            _ = writeln!(
                text,
                "\tchain {name} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n\
                 \t\tmeta l4proto != tcp return comment \"only TCP\""
            );
            for rule in self.of(direction) {
                _ = writeln!(text, "\t\t{}", line(rule, direction));
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
        text
    }
}

impl Listing {
    /// Reads a table as nft lists it; rules count as equal where they mean the same.
    pub(crate) fn of_nft(text: &str) -> Self {
        let mut listing = Self::default();
        let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("table "));
        lines.next();
        let mut place = None;
        let mut unfinished = String::new();
        for line in lines.filter(|line| !line.is_empty()) {
            match (&place, line) {
                (Some(_), "}") if unfinished.is_empty() => place = None,
                (None, "}") => break,
                (None, line) if line.ends_with('{') => {
                    let name = line.trim_end_matches('{').trim().to_owned();
                    listing.open(&name);
                    place = Some(name);
                }
                _ => {
                    // A long set goes on in the next line.
                    unfinished = if unfinished.is_empty() { line.to_owned() } else { format!("{unfinished} {line}") };
                    if unfinished.matches('{').count() == unfinished.matches('}').count() {
                        let place = place.as_deref().unwrap_or("table");
                        listing.push(place, &unfinished, canonical(&unfinished));
                        unfinished.clear();
                    }
                }
            }
        }
        listing
    }
}

fn line(rule: &Rule, direction: Direction) -> String {
    let conditions: Vec<String> = rule.when.iter().map(|when| condition(when, direction)).collect();
    let conditions = conditions.join(" ");
    let verdict = match rule.then {
        Verdict::LeaveAlone => format!("{conditions} return"),
        Verdict::Redirect(port) if rule.when.iter().any(|when| matches!(when, Match::Ports(_))) => {
            format!("{conditions} redirect to :{port}")
        }
        // nft wants to be told in the rule itself that there are ports to speak of.
        Verdict::Redirect(port) => format!("meta l4proto tcp {conditions} redirect to :{port}").replace("  ", " "),
    };
    format!("{verdict} comment \"{}\"", rule.why)
}

fn condition(when: &Match, direction: Direction) -> String {
    match (when, direction) {
        (Match::Open, _) => OPEN[0].to_owned(),
        (Match::Loopback, Direction::Inbound) => "iifname \"lo\"".to_owned(),
        (Match::Loopback, Direction::Outbound) => "oifname \"lo\"".to_owned(),
        (Match::NotLocal, _) => "fib daddr type != local".to_owned(),
        (Match::User(uid), _) => format!("meta skuid {uid}"),
        (Match::Ports(ports), _) => format!("tcp dport {}", set(ports)),
        (Match::Networks4(networks), _) => format!("ip daddr {}", set(networks)),
        (Match::Networks6(networks), _) => format!("ip6 daddr {}", set(networks)),
    }
}

fn set(elements: &[impl ToString]) -> String {
    let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
    match elements.as_slice() {
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

/// A rule in a spelling that all versions of nft agree in: known synonyms replaced, and sets as sorted ranges, since
/// nft joins elements that touch.
fn canonical(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ").replace(OPEN[1], OPEN[0]);
    let mut canonical = String::new();
    let mut rest = line.as_str();
    while let Some(end) = ["dport ", "daddr "].iter().filter_map(|key| Some(rest.find(key)? + key.len())).min() {
        canonical.push_str(&rest[..end]);
        rest = &rest[end..];
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (elements, after) = braced.or_else(|| rest.split_once(' ')).unwrap_or((rest, ""));
        if let Some(ranges) = ranges(elements) {
            _ = write!(canonical, "{ranges:x?} ");
            rest = after.trim_start();
        }
    }
    canonical + rest
}

/// The elements of a set of ports or addresses, first and last of each.
fn ranges(elements: &str) -> Option<Vec<(u128, u128)>> {
    let mut ranges = elements.split(',').map(|element| range(element.trim())).collect::<Option<Vec<_>>>()?;
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touches = next.0 <= last.1.saturating_add(1);
        if touches {
            last.1 = last.1.max(next.1);
        }
        touches
    });
    Some(ranges)
}

fn range(element: &str) -> Option<(u128, u128)> {
    if let Ok(network) = element.parse::<ipnet::IpNet>() {
        return Some((number(network.network()), number(network.broadcast())));
    }
    let (first, last) = element.split_once('-').unwrap_or((element, element));
    let value = |text: &str| text.parse().map(number).ok().or_else(|| text.parse::<u16>().map(u128::from).ok());
    value(first).zip(value(last))
}

fn number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(v4) => u32::from(v4).into(),
        std::net::IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests;
