//! Rules as read back, and in what they differ from those expected. Pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::rules::Family;

/// What of the rules in place is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There are no rules of ours.
    Missing,
    /// One family has none.
    MissingFamily(Family),
    /// A chain is gone.
    MissingChain {
        /// Its name.
        chain: String,
    },
    /// A rule is gone, or another than expected.
    MissingRule {
        /// Where it should be.
        chain: String,
        /// The rule, as it was put.
        rule: String,
    },
    /// Another has put something among ours.
    Foreign {
        /// Where it is.
        place: String,
        /// What it is, as the tool lists it; empty where it is the place itself.
        what: String,
    },
    /// The rules are those expected, in another order.
    Reordered {
        /// Where they are.
        chain: String,
    },
    /// Rules put by iptables are there beside those of nftables, with settings of their own.
    LeftOver(Family),
}

impl Finding {
    /// The kind's name, for machines: `missing`, `missing_family`, `missing_chain`, `missing_rule`, `foreign`,
    /// `reordered` or `left_over`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::MissingFamily(_) => "missing_family",
            Self::MissingChain { .. } => "missing_chain",
            Self::MissingRule { .. } => "missing_rule",
            Self::Foreign { .. } => "foreign",
            Self::Reordered { .. } => "reordered",
            Self::LeftOver(_) => "left_over",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no rules are in place, connections go around the proxy")?,
            Self::MissingFamily(family) => {
                write!(f, "no rules are in place for {0}, {0} connections go around the proxy", family.as_str())?;
            }
            Self::MissingChain { chain } => write!(f, "{chain} is missing")?,
            Self::MissingRule { chain, rule } => write!(f, "{chain} lacks the rule `{rule}`")?,
            Self::Foreign { place, what } if what.is_empty() => write!(f, "{place} is not ours")?,
            Self::Foreign { place, what } => write!(f, "`{what}` in {place} is not ours")?,
            Self::Reordered { chain } => write!(f, "the rules in {chain} are in another order")?,
            Self::LeftOver(family) => {
                write!(f, "older rules put by iptables are in place for {} beside the table", family.as_str())?;
            }
        }
        f.write_str(": `outrigger init` puts that right")
    }
}

/// Rules by the place they are in.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    places: BTreeMap<String, Vec<Line>>,
}

/// One rule, or something else that is said of a place.
#[derive(Debug)]
struct Line {
    text: String,
    /// The same for all texts that mean the same.
    meaning: String,
}

impl Listing {
    pub(crate) fn open(&mut self, place: &str) {
        self.places.entry(place.to_owned()).or_default();
    }

    pub(crate) fn push(&mut self, place: &str, text: &str, meaning: String) {
        self.places.entry(place.to_owned()).or_default().push(Line { text: text.to_owned(), meaning });
    }

    /// Whatever in `found` is not as expected here.
    pub(crate) fn differences(&self, found: &Self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (place, expected) in &self.places {
            match found.places.get(place) {
                Some(found) => compare(place, expected, found, &mut findings),
                None => findings.push(Finding::MissingChain { chain: place.clone() }),
            }
        }
        for (place, lines) in found.places.iter().filter(|(place, _)| !self.places.contains_key(*place)) {
            let what = lines.first().map(|line| line.text.clone()).unwrap_or_default();
            findings.push(Finding::Foreign { place: place.clone(), what });
        }
        findings
    }
}

fn compare(place: &str, expected: &[Line], found: &[Line], findings: &mut Vec<Finding>) {
    let before = findings.len();
    let mut unexpected: Vec<&Line> = found.iter().collect();
    for line in expected {
        match unexpected.iter().position(|other| other.meaning == line.meaning) {
            Some(at) => _ = unexpected.remove(at),
            None => findings.push(Finding::MissingRule { chain: place.to_owned(), rule: line.text.clone() }),
        }
    }
    let foreign = unexpected.iter().map(|line| Finding::Foreign { place: place.to_owned(), what: line.text.clone() });
    findings.extend(foreign);
    let same_order = expected.iter().map(|line| &line.meaning).eq(found.iter().map(|line| &line.meaning));
    if findings.len() == before && !same_order {
        findings.push(Finding::Reordered { chain: place.to_owned() });
    }
}
