//! What of the program stays in memory.

use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::path::Path;

use rustix::mm::{Advice, madvise};

/// Gives back the pages of the program's file that were touched so far: reading a configuration runs through much code and
/// many tables that no request ever needs, and with each page touched the kernel maps fifteen around it. What is needed again
/// comes back from the kernel's cache, sixteen pages in about a microsecond. Nothing where `/proc` cannot be read.
pub(crate) fn give_back() {
    let (Ok(program), Ok(smaps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/smaps")) else {
        return;
    };
    for Range { start, end } in clean_mappings(&program, &smaps) {
        give_back_range(start, end - start);
    }
}

#[allow(unsafe_code)] // The library's function is unsafe for what it does to memory that was written to.
fn give_back_range(start: usize, length: usize) {
    // SAFETY: the range is one that the kernel mapped of the program's file when it began, which stays until the process ends. It
    // may not be written to, and nothing in it differs from the file (`Anonymous: 0`): read again, every page is as it was before.
    // Only the loader makes such a range writable, and it is done before `main`.
    let _ = unsafe { madvise(start as *mut c_void, length, Advice::LinuxDontNeed) };
}

/// The mappings of the program that are only read or run, and that are as its file is (proc(5), `/proc/pid/smaps`).
fn clean_mappings(program: &Path, smaps: &str) -> Vec<Range<usize>> {
    let mut clean = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = begins_mapping(program, line) {
            current = range;
        } else if line.split_whitespace().take(2).eq(["Anonymous:", "0"]) {
            clean.extend(current.take());
        }
    }
    clean
}

/// Of a line that begins a mapping, its range, if it is one of the program's that cannot be written to; `None` for any other line.
fn begins_mapping(program: &Path, line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let read_only = words.next().is_some_and(|permissions| matches!(permissions, "r--p" | "r-xp"));
    let of_program = line.find('/').is_some_and(|path| Path::new(&line[path..]) == program);
    Some((read_only && of_program).then_some(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555500000000-555500100000 r--p 00000000 fe:00 101                        /usr/bin/out rigger
Size:               1024 kB
Rss:                1024 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
555500100000-555500800000 r-xp 00100000 fe:00 101                        /usr/bin/out rigger
Rss:                4400 kB
Anonymous:             0 kB
555500800000-555500840000 r--p 00800000 fe:00 101                        /usr/bin/out rigger
Rss:                 236 kB
Anonymous:           236 kB
555500840000-555500850000 rw-p 00840000 fe:00 101                        /usr/bin/out rigger
Rss:                  40 kB
Anonymous:             0 kB
555500850000-555500870000 rw-p 00000000 00:00 0                          [heap]
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000001000-7f0000002000 r--s 00000000 fe:00 102                        /etc/outrigger/geo.mmdb
Anonymous:             0 kB
7f0000002000-7f0000004000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
7f0000004000-7f0000008000 r-xp 00001000 fe:00 103                        /usr/lib/libc.so.6
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_the_programs_file_is_can_be_given_back() {
        let clean = clean_mappings(Path::new("/usr/bin/out rigger"), SMAPS);
        assert_eq!(clean, [0x5555_0000_0000..0x5555_0010_0000, 0x5555_0010_0000..0x5555_0080_0000]);
        assert_eq!(clean_mappings(Path::new("/usr/bin/out"), SMAPS), []);
    }

    #[test]
    fn it_is_given_back_and_comes_back_as_it_was() {
        static TABLE: [u8; 1 << 20] = [7; 1 << 20];
        let touched = || TABLE.iter().step_by(4096).map(|byte| usize::from(std::hint::black_box(*byte))).sum::<usize>();
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        };
        let written = vec![9; 1 << 20];
        assert_eq!(touched(), 7 * 256);
        let before = resident();
        give_back();
        let after = resident();
        assert!(after + 1024 < before, "{before} kB of files resident, then {after}");
        assert_eq!(touched(), 7 * 256);
        assert!(written.iter().all(|byte| *byte == 9));
    }
}
