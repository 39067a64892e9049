//! The tools to test with, each as the only one in a directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use redirect::Netfilter;

const IPTABLES: [&str; 4] = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];

/// A directory of tools, removed when dropped.
pub(crate) struct Tools {
    pub(crate) name: &'static str,
    directory: PathBuf,
}

impl Tools {
    /// Every kind that is installed; the others are said to be skipped.
    pub(crate) fn all() -> Vec<Self> {
        [Self::nft(), Self::iptables("xtables-nft-multi"), Self::iptables("xtables-legacy-multi")]
            .into_iter()
            .flatten()
            .collect()
    }

    pub(crate) fn nft() -> Option<Self> {
        let tools = Self::none("nft");
        tools.link("nft", "nft").then_some(tools)
    }

    /// By the program that is all of them in one: `xtables-nft-multi` or `xtables-legacy-multi`.
    pub(crate) fn iptables(program: &'static str) -> Option<Self> {
        let tools = Self::none(program);
        IPTABLES.iter().all(|name| tools.link(name, program)).then_some(tools)
    }

    pub(crate) fn none(name: &'static str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("outrigger-tools-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { name, directory }
    }

    pub(crate) fn netfilter(&self) -> Netfilter {
        Netfilter::find_in(std::slice::from_ref(&self.directory)).unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tools of both, these first.
    pub(crate) fn and(&self, other: &Self) -> Netfilter {
        Netfilter::find_in(&[self.directory.clone(), other.directory.clone()]).unwrap()
    }

    /// Puts a shell script in a tool's place. Written by another process: a file that this one has open for writing
    /// when it forks, in another test, can't be executed.
    pub(crate) fn script(&self, name: &str, script: &str) {
        let path = self.directory.join(name);
        let put = "rm -f \"$0\"; printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\"; chmod 755 \"$0\"";
        assert!(Command::new("sh").args(["-ec", put]).arg(path).arg(script).status().unwrap().success());
    }

    fn link(&self, name: &str, program: &str) -> bool {
        let installed = ["/usr/sbin", "/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(program));
        let installed = installed.iter().find(|path| path.exists());
        let works = |path: &&PathBuf| {
            Command::new(path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        let Some(path) = installed.filter(works) else {
            eprintln!("skipped: {program} (Debian package nftables or iptables) is not installed");
            return false;
        };
        std::os::unix::fs::symlink(path, self.directory.join(name)).is_ok()
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.directory);
    }
}
