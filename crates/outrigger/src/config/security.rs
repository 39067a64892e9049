//! From keys to finished types, where trust is concerned: identity, TLS from callers, authorization.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::{Alpn, KeyPair, Settings, Source};
use model::{Action, Mode, Networks, Origin, Policy, Rule, Target};
use proxy::config::{By, RateLimit, Tls};

use super::raw;

/// Tells what is wrong with a key, if anything is.
type Check<'c> = dyn FnMut(&str, Option<String>) + 'c;

/// Who we are.
pub(super) fn identity(raw: &raw::Identity, check: &mut Check<'_>) -> Settings {
    let source = raw.source.unwrap_or(raw::IdentitySource::None);
    let stray =
        |there: bool, wanted: &str| there.then(|| format!("found without source: {wanted}, which alone uses it"));
    check("identity.files", stray(raw.files.is_some() && source != raw::IdentitySource::Files, "files"));
    check("identity.socket", stray(raw.socket.is_some() && source != raw::IdentitySource::Spiffe, "spiffe"));
    check("identity.ca", stray(raw.ca.is_some() && source != raw::IdentitySource::Ca, "ca"));
    let source = match source {
        raw::IdentitySource::None => Source::None,
        raw::IdentitySource::Files => match &raw.files {
            Some(files) => Source::Files(identity::Files {
                cert: (&files.cert).into(),
                key: (&files.key).into(),
                bundles: {
                    let none = files.bundles.is_empty();
                    let problem = none.then(|| "found none, expected that of our trust domain".into());
                    check("identity.files.bundles", problem);
                    bundles(raw, "identity.files.bundles", &files.bundles, check)
                },
            }),
            None => {
                check("identity.files", Some("found no key \"files\", which source: files requires".into()));
                Source::None
            }
        },
        raw::IdentitySource::Spiffe => {
            let endpoint = raw.socket.clone().or_else(|| std::env::var("SPIFFE_ENDPOINT_SOCKET").ok());
            let legal = endpoint.as_ref().is_some_and(|e| e.starts_with("unix:") || e.starts_with("tcp:"));
            let found = endpoint.clone().unwrap_or_else(|| "none, and no SPIFFE_ENDPOINT_SOCKET".into());
            check(
                "identity.socket",
                (!legal).then(|| format!("found {found}, expected an endpoint such as unix:///run/spire/agent.sock")),
            );
            Source::Spiffe(endpoint.unwrap_or_default())
        }
        raw::IdentitySource::Ca => ca(raw, check),
    };
    Settings {
        source,
        trust_domain: raw.trust_domain.as_ref().map(|domain| domain.0.clone()),
        federates_with: raw.federates_with.iter().map(|domain| domain.0.clone()).collect(),
    }
}

fn ca(raw: &raw::Identity, check: &mut Check<'_>) -> Source {
    let Some(ca) = &raw.ca else {
        check("identity.ca", Some("found no key \"ca\", which source: ca requires".into()));
        return Source::None;
    };
    let Ok(server) = ca.url.parse() else {
        let found = &ca.url;
        let help = format!("found \"{found}\", expected a URL such as https://outrigger-ca.outrigger-system.svc:8443");
        check("identity.ca.url", Some(help));
        return Source::None;
    };
    Source::Ca(identity::Ca {
        server,
        token: (&ca.token).into(),
        roots: (&ca.roots).into(),
        bundles: bundles(raw, "identity.ca.bundles", &ca.bundles, check),
    })
}

fn bundles(
    raw: &raw::Identity,
    keys: &str,
    files: &BTreeMap<String, String>,
    check: &mut Check<'_>,
) -> BTreeMap<model::TrustDomain, PathBuf> {
    let mut bundles = BTreeMap::new();
    for (name, path) in files {
        let key = format!("{keys}.{name}");
        match name.parse::<model::TrustDomain>() {
            Ok(domain) => {
                let own = raw.trust_domain.as_ref().is_none_or(|own| own.0 == domain);
                let known = own || raw.federates_with.iter().any(|other| other.0 == domain);
                check(
                    &key,
                    (!known).then(|| "expected identity.trust_domain, or one of identity.federates_with".into()),
                );
                bundles.insert(domain, path.into());
            }
            Err(_) => check(&key, Some("expected a trust domain in lower case, such as prod.example.org".into())),
        }
    }
    bundles
}

/// TLS from callers. Reads the key pair of `server`.
pub(super) fn tls(raw: &raw::Port, has_identity: bool, check: &mut Check<'_>) -> Tls {
    let keys = &raw.tls;
    let passes_through = raw.protocol == Some(raw::Protocol::Tls);
    let mode = keys.mode.unwrap_or(match has_identity {
        true => raw::TlsMode::Permissive,
        false => raw::TlsMode::Disabled,
    });
    let needs_identity = matches!(mode, raw::TlsMode::Permissive | raw::TlsMode::Strict) && !has_identity;
    check(
        "tls.mode",
        (needs_identity && !passes_through).then(|| "mutual TLS needs an identity, and identity.source is none".into()),
    );
    let strict = mode == raw::TlsMode::Strict;
    check(
        "tls.plaintext_paths",
        (!strict && !keys.plaintext_paths.is_empty()).then(|| "found without mode: strict, which alone uses it".into()),
    );
    let odd = keys.plaintext_paths.iter().find(|path| !path.starts_with('/') || path.contains(['*', '?']));
    check(
        "tls.plaintext_paths",
        odd.map(|path| format!("found \"{path}\", expected a path as it is sent, such as /healthz, without a pattern")),
    );
    if passes_through {
        return Tls::Disabled;
    }
    match mode {
        raw::TlsMode::Disabled => Tls::Disabled,
        raw::TlsMode::Permissive => Tls::Permissive,
        raw::TlsMode::Strict => Tls::Strict { plaintext_paths: keys.plaintext_paths.clone() },
        raw::TlsMode::Server => server(raw, check),
    }
}

fn server(raw: &raw::Port, check: &mut Check<'_>) -> Tls {
    let (Some(cert), Some(key)) = (&raw.tls.cert, &raw.tls.key) else {
        check("tls", Some("mode: server needs cert and key".into()));
        return Tls::Disabled;
    };
    let alpn = (raw.protocol != Some(raw::Protocol::Tcp)).then_some(Alpn::Http);
    match KeyPair::load(cert.into(), key.into(), alpn) {
        Ok(pair) => Tls::Server(Arc::new(pair)),
        Err(e) => {
            check("tls.cert", Some(e.to_string()));
            Tls::Disabled
        }
    }
}

/// Rules of a port; more would slow every request down.
const MAX_RULES: usize = 1000;

/// Who may call what.
pub(super) fn policy(raw: Option<&raw::Authorization>, check: &mut Check<'_>) -> Policy {
    let Some(raw) = raw else { return Policy::default() };
    let mut names: Vec<&str> = vec![model::DEFAULT_RULE, model::AMBIGUOUS_PATH];
    for (i, rule) in raw.rules.iter().enumerate() {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let sane = !rule.name.is_empty() && rule.name.len() <= 64 && rule.name.bytes().all(legal);
        let problem = if !sane {
            Some(format!("found \"{}\", expected 1 to 64 of a-z A-Z 0-9 - _ .", rule.name))
        } else if names.contains(&rule.name.as_str()) {
            Some(format!("found \"{}\" a second time, expected a name of its own", rule.name))
        } else {
            None
        };
        check(&format!("authorization.rules[{i}].name"), problem);
        names.push(&rule.name);
    }
    let required = |there: bool| (!there).then(|| "found none, expected allow or deny".to_owned());
    check("authorization.default", required(raw.default.is_some()));
    let by_place = raw.rules.iter().any(|rule| !rule.from.countries.is_empty() || !rule.from.asns.is_empty());
    check("authorization.geo_unknown", required(raw.geo_unknown.is_some() || !by_place));
    let too_many = raw.rules.len() > MAX_RULES;
    check("authorization.rules", too_many.then(|| format!("found {}, expected at most {MAX_RULES}", raw.rules.len())));
    Policy {
        mode: match raw.mode {
            None | Some(raw::AuthorizationMode::Enforce) => Mode::Enforce,
            Some(raw::AuthorizationMode::Audit) => Mode::Audit,
        },
        default: raw.default.map_or(Action::Deny, action),
        geo_unknown: raw.geo_unknown.map_or(Action::Deny, action),
        rules: raw.rules.iter().map(rule).collect(),
    }
}

fn action(raw: raw::RuleAction) -> Action {
    match raw {
        raw::RuleAction::Allow => Action::Allow,
        raw::RuleAction::Deny => Action::Deny,
    }
}

/// How often the app may be called.
pub(super) fn rate_limits(raw: &[raw::RateLimit], check: &mut dyn FnMut(&str, Option<String>)) -> Vec<Arc<RateLimit>> {
    let mut one = |(i, raw): (usize, &raw::RateLimit)| {
        let none = raw.rate.0 <= 0.0;
        check(&format!("rate_limits[{i}].rate"), none.then(|| "found no rate at all, expected one such as 5/s".into()));
        check(
            &format!("rate_limits[{i}].burst"),
            (raw.burst == Some(0)).then(|| "found 0, expected at least 1".into()),
        );
        let by = match raw.by {
            raw::RateBy::ClientAddress => By::ClientAddress,
            raw::RateBy::Identity => By::Identity,
            raw::RateBy::Country => By::Country,
            raw::RateBy::Route => By::Route,
        };
        let rate = if none { 1.0 } else { raw.rate.0 };
        let burst = raw.burst.unwrap_or(rate.ceil() as u32);
        Arc::new(RateLimit::new(&raw.name, target(&raw.counts), by, Duration::from_secs_f64(1.0 / rate), burst))
    };
    raw.iter().enumerate().map(&mut one).collect()
}

fn target(raw: &raw::RuleTo) -> Target {
    let raw::RuleTo { methods, paths, hosts } = raw;
    Target {
        methods: methods.iter().map(|method| method.0.clone()).collect(),
        paths: paths.iter().map(|path| path.0.clone()).collect(),
        hosts: hosts.iter().map(|host| host.0.clone()).collect(),
    }
}

fn rule(raw: &raw::Rule) -> Rule {
    let raw::RuleFrom { identities, networks, countries, asns } = &raw.from;
    Rule {
        name: raw.name.as_str().into(),
        action: action(raw.action),
        from: Origin {
            identities: identities.iter().map(|pattern| pattern.0.clone()).collect(),
            networks: Networks::new(networks.iter().map(|network| network.0)),
            countries: countries.iter().map(|country| country.0).collect(),
            asns: asns.clone(),
        },
        to: target(&raw.to),
    }
}
