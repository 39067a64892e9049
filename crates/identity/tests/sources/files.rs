//! PEM files.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authority::{Authority, Issued, Wish, put};
use identity::{Alpn, Expected, Files, Identity, Settings, Source, Unready};

use crate::{DOMAIN, Directory, serial};

struct Place {
    dir: Directory,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: Directory::new(), authority: Authority::new(DOMAIN).unwrap() };
        place.bundle(place.authority.bundle());
        place.issue().write(&place.dir.0).unwrap();
        place
    }

    fn issue(&self) -> Issued {
        self.authority.svid("/ns/a/sa/server").unwrap()
    }

    fn bundle(&self, text: &str) {
        put(&self.dir.0.join("bundle.pem"), text, 0o644).unwrap();
    }

    fn put(&self, name: &str, text: &str) {
        put(&self.dir.0.join(name), text, 0o600).unwrap();
    }

    fn settings(&self) -> Settings {
        let path = |name: &str| self.dir.0.join(name);
        let bundles = [(DOMAIN.parse().unwrap(), path("bundle.pem"))].into();
        Settings {
            source: Source::Files(Files { cert: path("tls.crt"), key: path("tls.key"), bundles }),
            ..Settings::default()
        }
    }

    fn start(&self) -> Arc<Identity> {
        Identity::start(self.settings())
    }

    /// Why there is no identity.
    fn refused(&self) -> String {
        let identity = self.start();
        assert_eq!(identity.server(Alpn::Http).err(), Some(Unready::NoCertificate));
        assert!(identity.client(Alpn::Http1, &Expected::Any).is_err() && identity.id().is_none());
        identity.status().last_error.unwrap()
    }
}

#[test]
fn good_files_are_an_identity_at_once() {
    let place = Place::new();
    let identity = place.start();
    assert_eq!(identity.id().unwrap().as_str(), "spiffe://test.example/ns/a/sa/server");
    let status = identity.status();
    assert_eq!((status.source, status.updates, status.failures, status.last_error), ("files", 1, 0, None));
    assert_eq!((status.chain.len(), status.bundles.len(), status.warnings.len()), (1, 1, 0));
    assert!(identity.server(Alpn::Http).is_ok() && identity.server(Alpn::Opaque).is_ok());
}

/// What is done to good files.
type Spoil<'s> = &'s dyn Fn(&Place);

#[test]
fn what_is_wrong_with_files_is_told_with_the_file() {
    let now = SystemTime::now();
    let past = Wish { not_after: now - Duration::from_secs(1), ..Wish::spiffe("spiffe://test.example/a") };
    let wrong: [(Spoil<'_>, &str); 10] = [
        (&|p| p.put("tls.crt", &p.issue().chain[..200]), "tls.crt"),
        (&|p| p.put("tls.crt", "nothing"), "has no certificate in it"),
        (&|p| p.put("tls.key", "nothing"), "has no private key in it"),
        (&|p| p.put("tls.key", &p.issue().key), "the key is not the certificate's"),
        (&|p| p.bundle(""), "bundle.pem has no certificate in it"),
        (&|p| std::fs::remove_file(p.dir.0.join("tls.crt")).unwrap(), "cannot read"),
        (&|p| p.authority.issue(&past).unwrap().write(&p.dir.0).unwrap(), "has expired"),
        (&|p| p.authority.issue(&Wish::default()).unwrap().write(&p.dir.0).unwrap(), "no_identity"),
        (
            &|p| Authority::new("b.example").unwrap().svid("/a").unwrap().write(&p.dir.0).unwrap(),
            "no bundle of our own",
        ),
        (&|p| p.put("tls.crt", &"x".repeat(2 << 20)), "larger than a mebibyte"),
    ];
    for (spoil, told) in wrong {
        let place = Place::new();
        spoil(&place);
        let error = place.refused();
        assert!(error.contains(told), "{told}: {error}");
    }
    let place = Place::new();
    let settings = Settings { trust_domain: Some("other.example".parse().unwrap()), ..place.settings() };
    assert!(
        Identity::start(settings).status().last_error.unwrap().contains("not of identity.trust_domain other.example")
    );
}

#[test]
fn a_pair_that_is_half_written_is_waited_for_and_then_told_once() {
    let place = Place::new();
    let identity = place.start();
    let (before, next) = (serial(&identity), place.issue());
    place.put("tls.crt", &next.chain);
    identity.look();
    assert_eq!((serial(&identity), identity.status().failures), (before.clone(), 0), "the first look says nothing");
    for _ in 0..3 {
        identity.look();
        assert_eq!((serial(&identity), identity.status().failures), (before.clone(), 1), "the second tells it, once");
    }
    place.put("tls.key", &next.key);
    identity.look();
    assert_ne!(serial(&identity), before);
    assert_eq!(identity.status().last_error, None);
}

#[test]
fn a_symlink_swapped_as_kubernetes_does_it_is_followed() {
    let place = Place::new();
    let root = &place.dir.0;
    for (version, issued) in [("v1", place.issue()), ("v2", place.issue())] {
        std::fs::create_dir(root.join(version)).unwrap();
        issued.write(&root.join(version)).unwrap();
    }
    for name in ["tls.crt", "tls.key"] {
        std::fs::remove_file(root.join(name)).unwrap();
        symlink(format!("..data/{name}"), root.join(name)).unwrap();
    }
    symlink("v1", root.join("..data")).unwrap();
    let identity = place.start();
    let before = serial(&identity);
    symlink("v2", root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    identity.look();
    assert!(before.is_some() && serial(&identity) != before);
    assert_eq!(identity.status().updates, 2);
}

#[test]
fn files_that_go_away_leave_what_they_gave() {
    let place = Place::new();
    let identity = place.start();
    let before = serial(&identity);
    std::fs::remove_dir_all(&place.dir.0).unwrap();
    for _ in 0..2 {
        identity.look();
    }
    assert_eq!(serial(&identity), before);
    assert!(identity.server(Alpn::Http).is_ok());
    assert!(identity.status().last_error.unwrap().contains("cannot read"));
}

#[test]
fn a_bundle_counts_only_where_its_trust_domain_is_ours_or_federated_with() {
    let place = Place::new();
    let other = Authority::new("other.example").unwrap();
    place.put("other.pem", other.bundle());
    let with = |federates_with: &[&str]| {
        let mut settings = place.settings();
        let Source::Files(files) = &mut settings.source else { unreachable!() };
        files.bundles.insert("other.example".parse().unwrap(), place.dir.0.join("other.pem"));
        settings.federates_with = federates_with.iter().map(|name| name.parse().unwrap()).collect();
        let bundles = Identity::start(settings).status().bundles;
        bundles.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), ["test.example"]);
    assert_eq!(with(&["other.example"]), ["other.example", "test.example"]);
}

#[test]
fn a_certificate_that_ends_while_it_is_in_use_is_not_shown_any_more() {
    let place = Place::new();
    let soon = SystemTime::now() + Duration::from_secs(2);
    let wish = Wish { not_after: soon, ..Wish::spiffe("spiffe://test.example/a") };
    place.authority.issue(&wish).unwrap().write(&place.dir.0).unwrap();
    let identity = place.start();
    assert!(identity.server(Alpn::Http).is_ok());
    assert_eq!(identity.status().late, 1);
    // Certificates count whole seconds, the last one included.
    let begun = std::time::Instant::now();
    while identity.server(Alpn::Http).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(identity.server(Alpn::Http).err(), Some(Unready::Expired));
    assert_eq!(identity.client(Alpn::Http2, &Expected::Any).err(), Some(Unready::Expired));
    assert!(identity.status().warnings[0].contains("has expired"));
}
