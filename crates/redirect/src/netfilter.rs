//! The tools of this place, and what is done with them: put rules in place, take them away, read them back.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::iptables::Chains;
use crate::listing::{Finding, Listing};
use crate::lock::Lock;
use crate::nft;
use crate::program::{Program, usual_directories};
use crate::rules::{Family, Rules};

/// `-w`: older iptables gives up at once where another one runs.
const RESTORE: [&str; 3] = ["--noflush", "-w", "10"];

/// Netfilter of the network namespace that the calling thread is in, by the tools that are installed.
#[derive(Debug)]
pub struct Netfilter {
    nft: Option<Program>,
    /// For each family there is; empty unless complete.
    iptables: Vec<IpTables>,
}

/// By which the rules are put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `nft`: one table for both families.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`: chains for each.
    Iptables,
}

#[derive(Debug)]
struct IpTables {
    family: Family,
    save: Program,
    restore: Program,
}

/// One transaction.
#[derive(Debug)]
struct Step<'a> {
    program: &'a Program,
    args: &'a [&'a str],
    input: String,
    /// For iptables, which takes more than one: what was there before.
    before: Option<(&'a IpTables, Chains)>,
}

impl Netfilter {
    /// Looks for the tools on `PATH` and where system tools are.
    ///
    /// # Errors
    /// [`Error::NoTool`] where neither `nft` nor all of iptables is found. `ip6tables` may only be missing where the
    /// kernel has no IPv6.
    pub fn find() -> Result<Self, Error> {
        Self::find_in(&usual_directories())
    }

    /// Looks for the tools in these directories only, the first first.
    ///
    /// # Errors
    /// As [`Netfilter::find`].
    pub fn find_in(directories: &[PathBuf]) -> Result<Self, Error> {
        let nft = Program::find("nft", directories);
        let find = |family, save, restore| {
            let (save, restore) = (Program::find(save, directories)?, Program::find(restore, directories)?);
            Some(IpTables { family, save, restore })
        };
        let v4 = find(Family::V4, "iptables-save", "iptables-restore");
        let v6 = find(Family::V6, "ip6tables-save", "ip6tables-restore");
        let missing = match (&v4, &v6) {
            (None, _) => Some("nft, or iptables-restore with iptables-save, and none is found"),
            (Some(_), None) if has_ipv6() => {
                Some("ip6tables-restore and ip6tables-save, since this kernel has IPv6, or nft, and none is found")
            }
            _ => None,
        };
        match missing {
            Some(missing) if nft.is_none() => Err(Error::NoTool { missing }),
            Some(_) => Ok(Self { nft, iptables: Vec::new() }),
            None => Ok(Self { nft, iptables: v4.into_iter().chain(v6.filter(|_| has_ipv6())).collect() }),
        }
    }

    /// Puts the rules in place, instead of any of ours that are there, and says by which tool. By nftables where it is
    /// installed and the kernel has it; then rules that iptables put before are taken away.
    ///
    /// # Errors
    /// Nothing is changed then, unless it is [`Error::HalfDone`].
    pub fn apply(&self, rules: &Rules) -> Result<Tool, Error> {
        self.change(Some(rules))
    }

    /// Takes our rules away, by whichever tool they were put. That there are none is no error.
    ///
    /// # Errors
    /// Nothing is changed then, unless it is [`Error::HalfDone`].
    pub fn remove(&self) -> Result<(), Error> {
        self.change(None).map(|_| ())
    }

    /// What [`Netfilter::apply`] would do now: for each program its command line, as a comment, and its input.
    ///
    /// # Errors
    /// With iptables it depends on what is there: that it can't be read.
    pub fn dry_run(&self, rules: &Rules) -> Result<String, Error> {
        let tool = if self.nft.is_some() { Tool::Nft } else { Tool::Iptables };
        let steps = self.steps(tool, Some(rules)).or_else(|error| match (&self.nft, error) {
            // Who may not look can't know of older rules by iptables; with nftables, nothing else depends on it.
            (Some(nft), Error::NotPermitted { .. }) => Ok(vec![nft_step(nft, Some(rules))]),
            (_, error) => Err(error),
        })?;
        let text = |step: &Step| format!("# {} {}\n{}", step.program.name(), step.args.join(" "), step.input);
        Ok(steps.iter().map(text).collect())
    }

    /// Reads the rules back: what is not as these would have it; nothing, where all is. Changes nothing.
    ///
    /// # Errors
    /// The rules can't be read; that takes NET_ADMIN too.
    pub fn verify(&self, rules: &Rules) -> Result<Vec<Finding>, Error> {
        let Some(nft) = &self.nft else { return self.verify_iptables(rules) };
        match verify_nft(nft, rules) {
            // No table: then by iptables perhaps, as where the kernel can't do it otherwise.
            Ok(None) if !self.iptables.is_empty() => self.verify_iptables(rules),
            Ok(None) => Ok(vec![Finding::Missing]),
            Ok(Some(mut findings)) => {
                for tables in &self.iptables {
                    if !tables.read()?.is_empty() {
                        findings.push(Finding::LeftOver(tables.family));
                    }
                }
                Ok(findings)
            }
            Err(error) if error.is_unsupported() && !self.iptables.is_empty() => self
                .verify_iptables(rules)
                .map_err(|iptables| Error::Neither { nft: error.into(), iptables: iptables.into() }),
            Err(error) => Err(error),
        }
    }

    fn verify_iptables(&self, rules: &Rules) -> Result<Vec<Finding>, Error> {
        let (mut expected, mut found) = (Listing::default(), Listing::default());
        let mut missing = Vec::new();
        for tables in &self.iptables {
            let chains = tables.read()?;
            if chains.is_empty() {
                missing.push(Finding::MissingFamily(tables.family));
            } else {
                chains.listing(tables.family, &mut found);
                Chains::wanted(rules, tables.family).listing(tables.family, &mut expected);
            }
        }
        if missing.len() == self.iptables.len() {
            return Ok(vec![Finding::Missing]);
        }
        missing.extend(expected.differences(&found));
        Ok(missing)
    }

    fn change(&self, wanted: Option<&Rules>) -> Result<Tool, Error> {
        // nft needs none, being one transaction.
        let _lock = if self.iptables.is_empty() { None } else { Some(Lock::take()?) };
        let by = |tool| self.steps(tool, wanted).and_then(run).map(|()| tool);
        if self.nft.is_none() {
            return by(Tool::Iptables);
        }
        match by(Tool::Nft) {
            Err(error) if error.is_unsupported() && !self.iptables.is_empty() => {
                by(Tool::Iptables).map_err(|iptables| Error::Neither { nft: error.into(), iptables: iptables.into() })
            }
            result => result,
        }
    }

    fn steps(&self, tool: Tool, wanted: Option<&Rules>) -> Result<Vec<Step<'_>>, Error> {
        let nft = self.nft.as_ref().filter(|_| tool == Tool::Nft);
        let mut steps: Vec<Step> = nft.map(|nft| nft_step(nft, wanted)).into_iter().collect();
        for tables in &self.iptables {
            let before = tables.read()?;
            let wanted = wanted.filter(|_| tool == Tool::Iptables);
            let after = wanted.map(|rules| Chains::wanted(rules, tables.family)).unwrap_or_default();
            if let Some(input) = before.transition(&after) {
                let before = Some((tables, before));
                steps.push(Step { program: &tables.restore, args: &RESTORE, input, before });
            }
        }
        Ok(steps)
    }
}

impl IpTables {
    /// Without naming the table: naming it would make one where there is none yet.
    fn read(&self) -> Result<Chains, Error> {
        Error::unless_permitted(self.save.name())?;
        self.save.run(&[], "").map(|saved| Chains::read(&saved))
    }
}

fn nft_step<'a>(nft: &'a Program, wanted: Option<&Rules>) -> Step<'a> {
    let input = wanted.map_or_else(|| nft::REMOVAL.to_owned(), Rules::nft);
    Step { program: nft, args: &["-f", "-"], input, before: None }
}

/// None where there is no table.
fn verify_nft(nft: &Program, rules: &Rules) -> Result<Option<Vec<Finding>>, Error> {
    let tables = nft.run(&["list", "tables"], "")?;
    if !tables.lines().any(|line| line.trim_end() == format!("table {}", nft::TABLE)) {
        return Ok(None);
    }
    let found = Listing::of_nft(&nft.run(&nft::LIST, "")?);
    Ok(Some(Listing::of_nft(&rules.nft()).differences(&found)))
}

/// All steps or none.
fn run(steps: Vec<Step>) -> Result<(), Error> {
    for (at, step) in steps.iter().enumerate() {
        if let Err(error) = step.program.run(step.args, &step.input) {
            return Err(match undo(&steps[..at], step) {
                Ok(()) => error,
                Err(undo) => Error::HalfDone { error: error.into(), undo: undo.into() },
            });
        }
    }
    Ok(())
}

fn undo(done: &[Step], failed: &Step) -> Result<(), Error> {
    // The failed one too: one that took too long may have done its work.
    for step in done.iter().chain([failed]).rev() {
        if let Some((tables, before)) = &step.before {
            let now = tables.read()?;
            if now != *before
                && let Some(input) = now.transition(before)
            {
                step.program.run(step.args, &input)?;
            }
        }
    }
    // It goes before what only takes old rules away: better both than, for a moment, none.
    match done.iter().find(|step| step.before.is_none()) {
        Some(nft) => Err(Error::Failed { program: nft.program.name(), said: "the table is as asked for".to_owned() }),
        None => Ok(()),
    }
}

/// Whether the kernel knows of IPv6 at all; where it doesn't, nothing can go around the proxy that way.
fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}
