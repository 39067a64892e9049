//! What the operating system says of this process.

use std::fs;

/// Figures under the names Prometheus's client libraries use.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) start_time_seconds: f64,
    pub(crate) open_fds: u64,
    pub(crate) max_fds: u64,
}

/// Kernel clock ticks a second, as user space has seen them on every architecture since Linux 2.6.
const TICKS: f64 = 100.0;
/// Bytes of a page where the kernel's own count is in pages; `status` tells in kB, whatever the page size.
const KIB: u64 = 1024;

impl Process {
    /// Reads `/proc/self`; figures that cannot be read stay zero.
    pub(crate) fn read() -> Self {
        let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
        let mut process = Self::parse(
            &read("/proc/self/stat"),
            &read("/proc/self/status"),
            &read("/proc/self/limits"),
            &read("/proc/stat"),
        );
        process.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64);
        process
    }

    fn parse(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let tick = |place: usize| fields.get(place).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
        let kib = |key: &str| {
            line(status, key).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * KIB
        };
        let boot = line(system, "btime ").and_then(|v| v.trim().parse::<f64>().ok()).unwrap_or(0.0);
        Self {
            cpu_seconds: tick(11) + tick(12),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            threads: line(status, "Threads:").and_then(|v| v.trim().parse().ok()).unwrap_or(0),
            start_time_seconds: boot + tick(19),
            open_fds: 0,
            max_fds: line(limits, "Max open files")
                .and_then(|v| v.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
        }
    }
}

fn line<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_whatever_the_programs_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 7 0 1000 1 2";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t7\n";
        let limits = "Limit  Soft  Hard\nMax open files            1024                 4096                 files\n";
        let process = Process::parse(stat, status, limits, "cpu 1\nbtime 1700000000\n");
        let expected = Process {
            cpu_seconds: 2.0,
            resident_bytes: 1 << 20,
            virtual_bytes: 2 << 20,
            threads: 7,
            start_time_seconds: 1_700_000_010.0,
            open_fds: 0,
            max_fds: 1024,
        };
        assert_eq!(process, expected);
        assert!(Process::read().open_fds > 0 && Process::read().start_time_seconds > 1e9);
    }
}
