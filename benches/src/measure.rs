//! What the operating system accounts to a process and all its children.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// A process and its descendants.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything; the fields behind it do not.
            let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// CPU time used so far, by the scheduler's own account of every thread.
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let nanos = threads.filter_map(|thread| {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory in KiB, pages shared with others counted in part.
pub(crate) fn memory(pids: &[u32]) -> u64 {
    let one = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
    };
    pids.iter().filter_map(one).sum()
}

/// KiB of `part`, which the process's program contains, that it has in memory: see proc_pid_pagemap(5). `None` where the program
/// does not contain it, or is gone.
pub(crate) fn resident(pid: u32, part: &[u8]) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let start = find(&fs::read(&program).ok()?, part)? as u64;
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok()?;
    let page = rustix::param::page_size() as u64;
    let present = |address: u64| {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, address / page * 8).is_ok() && u64::from_ne_bytes(entry) >> 63 == 1
    };
    let mut pages = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).ok()?.lines() {
        // address perms offset dev inode path
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, _, offset, _, _, path] = fields[..] else { continue };
        let (Some((from, to)), true) = (range.split_once('-'), Path::new(path) == program) else { continue };
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        let (from, to, offset) = (number(from)?, number(to)?, number(offset)?);
        let first = start.max(offset);
        let last = (start + part.len() as u64).min(offset + (to - from));
        if first < last {
            let address = |place: u64| from + place - offset;
            pages += (address(first) / page..address(last).div_ceil(page)).filter(|n| present(n * page)).count();
        }
    }
    Some(pages as u64 * page / 1024)
}

fn find(within: &[u8], part: &[u8]) -> Option<usize> {
    let start = part.get(..8)?;
    within
        .windows(8)
        .enumerate()
        .filter(|(_, eight)| *eight == start)
        .map(|(n, _)| n)
        .find(|n| within[*n..].starts_with(part))
}

/// How long a core has been busy since the machine began, whoever kept it so.
pub(crate) fn busy(core: usize) -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let ticks: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix(&name))
        .map(|line| {
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            // user, nice, system, idle, iowait, irq, softirq, steal; the guests' are in user already.
            fields.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, n)| n).sum()
        })
        .unwrap_or(0);
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    static PART: [u8; 256 * 1024] = {
        let mut part = [0; 256 * 1024];
        let mut n = 0;
        while n < part.len() {
            part[n] = (n % 251) as u8 ^ (n / 251 % 256) as u8;
            n += 1;
        }
        part
    };

    #[test]
    fn what_was_touched_of_a_part_of_the_program_is_resident() {
        let all: u32 = PART.iter().map(|b| u32::from(*b)).sum();
        assert!(all > 0);
        let kib = resident(std::process::id(), &PART).unwrap();
        assert!((256..=260).contains(&kib), "{kib} KiB of 256, all of which was read");
        let elsewhere: Vec<u8> = PART.iter().take(64).map(|b| b.wrapping_mul(7) ^ 0x5a).collect();
        assert_eq!(resident(std::process::id(), &elsewhere), None);
    }
}
