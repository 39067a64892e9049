use super::*;
use crate::{ClientAddr, Direction, PeerAddr, Scheme, SpiffeId, Version};

fn rule(name: &str, action: Action, from: Origin, to: Target) -> Rule {
    Rule { name: name.into(), action, from, to }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy { mode: Mode::Enforce, default: Action::Deny, geo_unknown: Action::Allow, rules }
}

/// Who asks for what, from where.
#[derive(Clone, Copy)]
struct Ask {
    ip: &'static str,
    country: Option<&'static str>,
    asn: Option<u32>,
    identity: Option<&'static str>,
    request: Option<(&'static str, &'static str, &'static str)>,
}

const ASK: Ask = Ask {
    ip: "8.8.8.8",
    country: Some("US"),
    asn: Some(15169),
    identity: None,
    request: Some(("GET", "login.example.org", "/login")),
};

fn decide(policy: &Policy, ask: Ask) -> (Action, String) {
    let ip = ask.ip.parse().unwrap();
    let peer = PeerAddr::new(std::net::SocketAddr::new(ip, 4000));
    let place = Place {
        scope: Scope::of(ip),
        country: ask.country.map(|code| code.parse().unwrap()),
        asn: ask.asn,
        ..Place::default()
    };
    let identity: Option<SpiffeId> = ask.identity.map(|id| id.parse().unwrap());
    let head = ask.request.map(|(method, host, path)| Head::new(Version::Http11, Scheme::Http, method, host, path));
    let facts = Facts {
        direction: Direction::Inbound,
        head: head.as_ref(),
        peer,
        identity: identity.as_ref(),
        client: ClientAddr::from_peer(peer),
        place: &place,
    };
    let decision = policy.decide(&facts);
    let enforced = policy.authorize(&facts);
    assert_eq!(enforced.is_err(), decision.action == Action::Deny && policy.mode == Mode::Enforce);
    (decision.action, decision.rule.to_owned())
}

fn countries(codes: &[&str]) -> Origin {
    Origin { countries: codes.iter().map(|code| code.parse().unwrap()).collect(), ..Origin::default() }
}

fn paths(patterns: &[&str]) -> Target {
    Target { paths: patterns.iter().map(|path| PathPattern::new(path).unwrap()).collect(), ..Target::default() }
}

#[test]
fn the_first_rule_that_matches_decides_and_is_named() {
    let policy = policy(vec![
        rule("embargo", Action::Deny, countries(&["KP", "IR"]), Target::default()),
        rule("login", Action::Allow, Origin::default(), paths(&["/login"])),
        rule("never", Action::Deny, Origin::default(), paths(&["/login"])),
    ]);
    assert_eq!(decide(&policy, ASK), (Action::Allow, "login".into()));
    assert_eq!(decide(&policy, Ask { country: Some("KP"), ..ASK }), (Action::Deny, "embargo".into()));
    let other = Ask { request: Some(("GET", "a", "/other")), ..ASK };
    assert_eq!(decide(&policy, other), (Action::Deny, DEFAULT_RULE.into()));
}

#[test]
fn every_key_of_a_rule_must_match() {
    let from = Origin {
        identities: vec!["spiffe://a/ns/monitoring/*".parse().unwrap()],
        networks: Networks::new(["10.0.0.0/8".parse().unwrap()]),
        ..Origin::default()
    };
    let to = Target {
        methods: vec!["GET".into(), "HEAD".into()],
        paths: vec![PathPattern::new("/metrics").unwrap()],
        hosts: vec![HostPattern::new("*.example.org").unwrap()],
    };
    let policy = policy(vec![rule("scrape", Action::Allow, from, to)]);
    let good = Ask {
        ip: "10.1.2.3",
        country: None,
        identity: Some("spiffe://a/ns/monitoring/sa/p"),
        request: Some(("GET", "Login.Example.org:8080", "/metrics")),
        ..ASK
    };
    assert_eq!(decide(&policy, good).0, Action::Allow);
    for bad in [
        Ask { identity: None, ..good },
        Ask { identity: Some("spiffe://a/ns/other/sa/p"), ..good },
        Ask { ip: "11.1.2.3", ..good },
        Ask { request: Some(("POST", "login.example.org", "/metrics")), ..good },
        Ask { request: Some(("get", "login.example.org", "/metrics")), ..good },
        Ask { request: Some(("GET", "example.org", "/metrics")), ..good },
        Ask { request: Some(("GET", "evilexample.org", "/metrics")), ..good },
        Ask { request: Some(("GET", "login.example.org", "/METRICS")), ..good },
        Ask { request: None, ..good },
    ] {
        assert_eq!(decide(&policy, bad).0, Action::Deny);
    }
}

#[test]
fn the_path_is_matched_as_the_app_will_see_it() {
    let guarded = Policy {
        default: Action::Allow,
        ..policy(vec![rule("admin", Action::Deny, Origin::default(), paths(&["/admin/*"]))])
    };
    for path in
        ["/admin", "/admin/", "/admin/x", "//admin", "/a/../admin", "/%61dmin", "/admin;x=1/y", "/ADMIN/x", "/./admin"]
    {
        let ask = Ask { request: Some(("GET", "a", path)), ..ASK };
        assert_eq!(decide(&guarded, ask), (Action::Deny, "admin".into()), "{path}");
    }
    for path in ["/a%2fadmin", "/x/..;/admin", "/%2561dmin"] {
        let ask = Ask { request: Some(("GET", "a", path)), ..ASK };
        assert_eq!(decide(&guarded, ask), (Action::Deny, AMBIGUOUS_PATH.into()), "{path}");
    }
    // Where no rule asks for the path, it is nobody's concern.
    let open = Policy {
        default: Action::Allow,
        ..policy(vec![rule("kp", Action::Deny, countries(&["KP"]), Target::default())])
    };
    assert_eq!(decide(&open, Ask { request: Some(("GET", "a", "/a%2fb")), ..ASK }).0, Action::Allow);
}

#[test]
fn an_unknown_country_is_as_configured_and_a_private_address_is_at_home() {
    let unknown = Ask { country: None, ..ASK };
    let private = Ask { ip: "192.168.1.1", country: None, asn: None, ..ASK };
    for geo_unknown in [Action::Allow, Action::Deny] {
        let embargo = Policy {
            default: Action::Allow,
            geo_unknown,
            ..policy(vec![rule("embargo", Action::Deny, countries(&["KP"]), Target::default())])
        };
        let only_home =
            Policy { geo_unknown, ..policy(vec![rule("home", Action::Allow, countries(&["DE"]), Target::default())]) };
        for policy in [&embargo, &only_home] {
            assert_eq!(decide(policy, unknown).0, geo_unknown);
            assert_eq!(decide(policy, private).0, Action::Allow);
        }
        let asn = Origin { asns: vec![64500], ..Origin::default() };
        let asn = Policy {
            default: Action::Allow,
            geo_unknown,
            ..policy(vec![rule("as", Action::Deny, asn, Target::default())])
        };
        assert_eq!(decide(&asn, Ask { asn: None, ..ASK }).0, geo_unknown);
        assert_eq!(decide(&asn, Ask { asn: Some(64500), ..ASK }).0, Action::Deny);
    }
}

#[test]
fn an_opaque_connection_is_judged_by_who_calls_alone() {
    let policy = policy(vec![
        rule("path", Action::Allow, Origin::default(), paths(&["/*"])),
        rule(
            "net",
            Action::Allow,
            Origin { networks: Networks::new(["8.0.0.0/8".parse().unwrap()]), ..Origin::default() },
            Target::default(),
        ),
    ]);
    assert_eq!(decide(&policy, Ask { request: None, ..ASK }), (Action::Allow, "net".into()));
    assert_eq!(decide(&policy, Ask { request: None, ip: "9.9.9.9", ..ASK }), (Action::Deny, DEFAULT_RULE.into()));
}

#[test]
fn audit_lets_through_and_tells() {
    let audit = Policy { mode: Mode::Audit, ..policy(Vec::new()) };
    assert_eq!(decide(&audit, ASK), (Action::Deny, DEFAULT_RULE.into()));
    let place = Place::default();
    let peer = PeerAddr::new("8.8.8.8:1".parse().unwrap());
    let facts = Facts {
        direction: Direction::Inbound,
        head: None,
        peer,
        identity: None,
        client: ClientAddr::from_peer(peer),
        place: &place,
    };
    let (_permit, denial) = audit.authorize(&facts).unwrap();
    assert_eq!(denial, Some(Denial { rule: DEFAULT_RULE.into() }));
}
