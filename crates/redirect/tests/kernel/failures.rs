//! What is said, and what is left, where something is missing or fails.

use redirect::{Error, Finding, Netfilter, Rules, Settings, Tool};

use crate::room::{APP, Room};
use crate::tools::Tools;

fn rules(inbound_port: u16) -> Rules {
    Rules::new(&Settings { inbound_port, ..Settings::default() }).unwrap()
}

#[test]
fn without_a_tool_it_is_said_which_are_missing() {
    let tools = Tools::none("nothing");
    let find = || Netfilter::find_in(&[tools.directory().to_owned()]).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(
        find(),
        Err("netfilter rules need nft, or iptables-restore with iptables-save, and none is found: \
             install Debian's nftables (or iptables)"
            .to_owned())
    );
    tools.script("iptables-save", "");
    tools.script("iptables-restore", "");
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        let error = find().unwrap_err();
        assert!(error.contains("ip6tables-restore and ip6tables-save, since this kernel has IPv6"), "{error}");
    }
    tools.script("nft", "");
    assert_eq!(find(), Ok(()));
}

#[test]
fn without_net_admin_it_is_said_who_has_to_give_it() {
    for tools in Tools::all() {
        let Some(room) = Room::new() else { return };
        let netfilter = tools.netfilter();
        let errors = room.enter_as(APP, || {
            [
                netfilter.apply(&rules(6143)).unwrap_err(),
                netfilter.remove().unwrap_err(),
                netfilter.verify(&rules(6143)).unwrap_err(),
            ]
        });
        for error in errors {
            assert!(matches!(error, Error::NotPermitted { capable: false, .. }), "{}: {error}", tools.name);
            assert!(error.to_string().contains("lacks the capability NET_ADMIN: in Kubernetes, give"), "{error}");
        }
        assert_eq!(room.enter(|| netfilter.verify(&rules(6143))).unwrap(), [Finding::Missing]);
    }
}

#[test]
fn where_one_family_fails_the_other_is_as_before() {
    for program in ["xtables-nft-multi", "xtables-legacy-multi"] {
        let Some(tools) = Tools::iptables(program) else { continue };
        let Some(room) = Room::new() else { return };
        let broken = Tools::none("broken");
        broken.script(
            "ip6tables-restore",
            "echo \"can't initialize ip6tables table 'nat': Table does not exist\" >&2; exit 3",
        );
        let fails = || {
            let error = room.enter(|| broken.and(&tools).apply(&rules(7000))).unwrap_err();
            assert!(matches!(error, Error::Unsupported { program: "ip6tables-restore", .. }), "{error:?}");
            assert!(error.to_string().contains("It takes ip6table_nat, xt_REDIRECT"), "{error}");
        };
        let netfilter = tools.netfilter();
        fails();
        assert_eq!(room.enter(|| netfilter.verify(&rules(7000))).unwrap(), [Finding::Missing]);
        room.enter(|| netfilter.apply(&rules(6143))).unwrap();
        fails();
        assert_eq!(room.enter(|| netfilter.verify(&rules(6143))).unwrap(), [], "{program}");
        // And where it can't be undone either, that is said.
        broken.script(
            "iptables-restore",
            &format!(
                "test -e $0.used && exit 1; : > $0.used; exec {}/iptables-restore \"$@\"",
                tools.directory().display()
            ),
        );
        let error = room.enter(|| broken.and(&tools).apply(&rules(7000))).unwrap_err();
        assert!(matches!(error, Error::HalfDone { .. }), "{error:?}");
        assert!(error.to_string().contains("repeat `outrigger init`"), "{error}");
    }
}

#[test]
fn where_the_kernel_has_no_nftables_iptables_does_it() {
    let Some(iptables) = Tools::iptables("xtables-legacy-multi") else { return };
    let Some(room) = Room::new() else { return };
    let nft = Tools::none("nft");
    nft.script("nft", "echo 'Error: Could not process rule: Operation not supported' >&2; exit 1");
    let both = nft.and(&iptables);
    assert_eq!(room.enter(|| both.apply(&rules(6143))).unwrap(), Tool::Iptables);
    assert_eq!(room.enter(|| both.verify(&rules(6143))).unwrap(), []);
    room.enter(|| both.remove()).unwrap();
    assert_eq!(room.enter(|| both.verify(&rules(6143))).unwrap(), [Finding::Missing]);
    let error = room.enter(|| nft.netfilter().apply(&rules(6143))).unwrap_err();
    assert!(error.to_string().contains("It takes Linux 5.2 or later"), "{error}");
}
