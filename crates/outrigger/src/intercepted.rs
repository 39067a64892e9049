//! What `outrigger check` finds where connections are redirected: whether rules, user and listeners fit together.

use redirect::{Error, Netfilter, Rules, Settings};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What does not fit, each with what to do.
    pub(crate) problems: Vec<String>,
    /// Why the rules were not looked at, where they were not: as in a sidecar's own container, which has neither the tools nor the
    /// right to look. That is no fault of the rules.
    pub(crate) unseen: Option<String>,
}

/// Looks at rules and listeners.
pub(crate) fn look(settings: &Settings) -> Found {
    let mut found = rules(settings);
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    found.problems.extend(listeners(settings, &tables.concat()));
    found
}

fn rules(settings: &Settings) -> Found {
    let wrong = |problem: String| Found { problems: vec![problem], unseen: None };
    let rules = match Rules::new(settings) {
        Ok(rules) => rules,
        Err(e) => return wrong(format!("interception: {e}")),
    };
    match Netfilter::find().and_then(|netfilter| netfilter.verify(&rules)) {
        Ok(findings) => {
            let problem = |finding| format!("interception: {finding}; `outrigger init` puts the rules in place anew");
            Found { problems: findings.iter().map(problem).collect(), unseen: None }
        }
        Err(e @ (Error::NoTool { .. } | Error::NotPermitted { .. })) => {
            Found { problems: Vec::new(), unseen: Some(e.to_string()) }
        }
        Err(e) => wrong(format!("interception: cannot tell whether the rules are in place: {e}")),
    }
}

/// Who listens where redirected connections arrive, by the kernel's table of sockets.
fn listeners(settings: &Settings, tables: &str) -> Vec<String> {
    const LISTENS: &str = "0A";
    let listeners: Vec<(u16, u32)> = tables
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let port = columns.nth(1)?.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok())?;
            let listens = columns.nth(1)? == LISTENS;
            let uid = columns.nth(3)?.parse().ok()?;
            listens.then_some((port, uid))
        })
        .collect();
    [settings.inbound_port, settings.outbound_port]
        .iter()
        .filter_map(|port| match listeners.iter().find(|(listens, _)| listens == port) {
            None => Some(format!("interception: nobody listens on port {port}, where connections are redirected: is the outrigger running?")),
            Some((_, uid)) if *uid != settings.proxy_uid => Some(format!(
                "interception: user {uid} listens on port {port}, and the rules leave user {} alone: what the outrigger itself \
                 calls would come back to it; run it as that user, or set interception.uid",
                settings.proxy_uid
            )),
            Some(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:17FC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  6102        0 1 1 0 100 0 0 10 0
   1: 0100007F:17FC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:17FF 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  6102        0 1 1 0 100 0 0 10 0
";

    #[test]
    fn whoever_listens_must_be_whom_the_rules_leave_alone() {
        let settings = Settings::default();
        assert_eq!(listeners(&settings, TABLES), Vec::<String>::new());
        let other = TABLES.replace("6102", "   0");
        assert!(listeners(&settings, &other).iter().all(|problem| problem.contains("user 0 listens")));
        assert_eq!(listeners(&settings, &other).len(), 2);
        assert!(listeners(&settings, "").iter().all(|problem| problem.contains("nobody listens")));
    }
}
