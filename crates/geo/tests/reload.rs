//! Databases that change while they are looked at.

mod support;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use geo::{Geo, GeoSettings, Kind, Lookup};
use support::mmdb::{Value, Writer, cities};
use support::{Directory, all_in, rename};

fn open(databases: &[&PathBuf]) -> Arc<Geo> {
    let databases = databases.iter().map(|&path| path.clone()).collect();
    Arc::new(Geo::open(GeoSettings { databases, max_age: None }).unwrap())
}

fn country(lookup: &mut Lookup) -> String {
    lookup.place(IpAddr::from([1, 2, 3, 4])).country.map_or("none".to_owned(), |code| code.to_string())
}

/// Polls until there is news: a file written in place is loaded by the second poll that finds it so.
fn poll(geo: &Geo) -> Result<u64, String> {
    let news = geo.poll_reload().or_else(|| geo.poll_reload()).expect("there is news");
    news.map(|generation| generation.number()).map_err(|error| error.to_string())
}

#[test]
fn a_file_put_in_anothers_place_is_loaded_by_the_next_poll() {
    let directory = Directory::new();
    let path = directory.file("a.mmdb", &all_in("AA"));
    let geo = open(&[&path]);
    let mut lookup = Lookup::new(Arc::clone(&geo));
    assert_eq!(country(&mut lookup), "AA");
    assert!(geo.poll_reload().is_none());

    rename(&directory.file("b.mmdb", &all_in("BB")), &path);
    assert_eq!(geo.poll_reload().unwrap().unwrap().number(), 2);
    assert_eq!(country(&mut lookup), "BB");
    assert_eq!(lookup.generation(), 2);
    assert!(geo.poll_reload().is_none());
}

#[test]
fn a_mounted_config_map_is_followed_through_its_symlinks() {
    let directory = Directory::new();
    for (revision, content) in [("..1", "AA"), ("..2", "BB")] {
        fs::create_dir(directory.path(revision)).unwrap();
        directory.file(&format!("{revision}/geo.mmdb"), &all_in(content));
    }
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, directory.path(name)).unwrap();
    link("..1", "..data");
    link("..data/geo.mmdb", "geo.mmdb");
    let geo = open(&[&directory.path("geo.mmdb")]);
    let mut lookup = Lookup::new(Arc::clone(&geo));
    assert_eq!(country(&mut lookup), "AA");

    link("..2", "..data_tmp");
    rename(&directory.path("..data_tmp"), &directory.path("..data"));
    fs::remove_dir_all(directory.path("..1")).unwrap();
    assert_eq!(geo.poll_reload().unwrap().unwrap().number(), 2);
    assert_eq!(country(&mut lookup), "BB");
}

#[test]
fn a_file_still_being_written_is_waited_for() {
    let directory = Directory::new();
    let path = directory.file("a.mmdb", &all_in("AA"));
    let geo = open(&[&path]);
    let mut lookup = Lookup::new(Arc::clone(&geo));
    let (next, file) = (cities(100_000).finish(), fs::File::create(&path).unwrap());
    for part in next.chunks(next.len() / 4 + 1) {
        std::io::Write::write_all(&mut &file, part).unwrap();
        assert!(geo.poll_reload().is_none());
        assert_eq!(country(&mut lookup), "AA");
    }
    assert_eq!(geo.poll_reload().unwrap().unwrap().number(), 2);
    assert_ne!(country(&mut lookup), "AA");
}

#[test]
fn a_bad_file_leaves_the_old_database_and_is_told_once() {
    let directory = Directory::new();
    let path = directory.file("a.mmdb", &all_in("AA"));
    let geo = open(&[&path]);
    let mut lookup = Lookup::new(Arc::clone(&geo));
    let good = cities(100_000).finish();
    let damaged = {
        // The tree and the metadata are whole, the records are not.
        let mut bytes = good.clone();
        let end = bytes.len() - 200;
        bytes[end / 2..end].fill(0xff);
        bytes
    };
    let no_places = {
        let mut writer = Writer::new("Test-Connection-Type");
        writer.insert("::/0".parse().unwrap(), &Value::map([("connection_type", "Cellular".into())]));
        writer.finish()
    };
    for (bytes, expected) in [
        (&b""[..], "not a usable MaxMind DB"),
        (b"garbage", "not a usable MaxMind DB"),
        (&good[..good.len() / 2], "not a usable MaxMind DB"),
        (&good[good.len() / 2..], "not a usable MaxMind DB"),
        (&damaged, "not a usable MaxMind DB"),
        (&no_places, "none with a country"),
    ] {
        for in_place in [true, false] {
            if in_place {
                directory.file("a.mmdb", bytes);
            } else {
                rename(&directory.file("b.mmdb", bytes), &path);
            }
            // The same trouble is told once, however it comes about.
            let news = geo.poll_reload().or_else(|| geo.poll_reload());
            if let Some(news) = news {
                let error = news.map(|_| ()).unwrap_err().to_string();
                assert!(error.contains(expected) && error.contains("a.mmdb"), "{error}");
            }
            assert!(geo.state().last_error.unwrap().contains(expected));
            assert!(geo.poll_reload().is_none());
            assert_eq!(country(&mut lookup), "AA");
            assert_eq!(geo.current().number(), 1);
        }
    }
    // And when it is good again, all is.
    directory.file("a.mmdb", &all_in("BB"));
    assert_eq!(poll(&geo), Ok(2));
    assert_eq!(country(&mut lookup), "BB");
    assert_eq!(geo.state().last_error, None);
}

#[test]
fn a_file_that_goes_away_leaves_the_old_database() {
    let directory = Directory::new();
    let path = directory.file("a.mmdb", &all_in("AA"));
    let geo = open(&[&path]);
    fs::rename(&path, directory.path("away")).unwrap();
    assert!(poll(&geo).unwrap_err().contains("No such file"));
    assert!(geo.poll_reload().is_none());
    assert!(geo.state().last_error.is_some());
    assert_eq!(country(&mut Lookup::new(Arc::clone(&geo))), "AA");
    // A directory in its place, and a pipe, which nobody may wait for.
    fs::create_dir(&path).unwrap();
    assert!(poll(&geo).unwrap_err().contains("not a regular file"));
    fs::remove_dir(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(geo.poll_reload().is_none());
    assert!(geo.state().last_error.unwrap().contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    fs::rename(directory.path("away"), &path).unwrap();
    let _ = geo.poll_reload();
    let _ = geo.poll_reload();
    assert_eq!(geo.state().last_error, None);
}

#[test]
fn one_bad_database_does_not_keep_another_from_being_replaced() {
    let directory = Directory::new();
    let first = directory.file("a.mmdb", &all_in("AA"));
    let second = {
        let mut writer = Writer::new("Test-ASN");
        writer.insert("::/0".parse().unwrap(), &Value::map([("asn", 1.into())]));
        directory.file("b.mmdb", &writer.finish())
    };
    let geo = open(&[&first, &second]);
    rename(&directory.file("c.mmdb", b"garbage"), &second);
    rename(&directory.file("c.mmdb", &all_in("BB")), &first);
    assert!(geo.poll_reload().unwrap().is_err());
    let mut lookup = Lookup::new(Arc::clone(&geo));
    assert_eq!((country(&mut lookup).as_str(), lookup.generation()), ("BB", 2));
    assert_eq!(lookup.place(IpAddr::from([1, 2, 3, 4])).asn, Some(1));
}

#[test]
fn databases_that_can_not_be_loaded_are_refused_at_start() {
    let directory = Directory::new();
    let open = |databases: &[&PathBuf]| {
        let databases = databases.iter().map(|&path| path.clone()).collect();
        Geo::open(GeoSettings { databases, max_age: None }).map(|_| ()).map_err(|error| error.to_string())
    };
    let good = directory.file("good.mmdb", &all_in("AA"));
    let garbage = directory.file("garbage.mmdb", b"\xab\xcd\xefMaxMind.com");
    assert!(open(&[&good, &garbage]).unwrap_err().contains("garbage.mmdb: not a usable MaxMind DB"));
    assert!(open(&[&directory.path("absent.mmdb")]).unwrap_err().contains("absent.mmdb: No such file"));
    assert!(open(&[&good; 8]).is_ok());
    assert!(open(&[&good; 9]).unwrap_err().contains("at most 8"));
}

#[test]
fn data_past_its_age_is_stale() {
    let directory = Directory::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let day = 86_400;
    let database = |age: u64| {
        let mut writer = Writer::new("Test-Country").build_epoch(now - age);
        writer.insert("::/0".parse().unwrap(), &Value::map([("country_code", "AA".into())]));
        directory.file(&format!("{age}.mmdb"), &writer.finish())
    };
    let databases = vec![database(day), database(3 * day)];
    for (max_age, stale) in [(None, false), (Some(2 * day), true), (Some(4 * day), false)] {
        let settings = GeoSettings { databases: databases.clone(), max_age: max_age.map(Duration::from_secs) };
        let state = Geo::open(settings).unwrap().state();
        assert_eq!((state.kind, state.stale), (Kind::Mmdb, stale));
        assert!((3 * day..3 * day + 60).contains(&state.age.as_secs()), "{:?}", state.age);
        assert_eq!(state.files[1].database_type, "Test-Country");
    }
    // One from the future, or the past of a clock that is wrong, has no age.
    let state = Geo::open(GeoSettings { databases: vec![database(0)], max_age: Some(Duration::ZERO) }).unwrap();
    assert!(state.state().age < Duration::from_secs(60));
}

#[test]
fn lookups_go_on_while_databases_are_swapped() {
    let directory = Directory::new();
    let path = directory.file("a.mmdb", &all_in("AA"));
    let geo = open(&[&path]);
    let (stop, lookups) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (geo, stop, lookups) = (&geo, &stop, &lookups);
            scope.spawn(move || {
                let mut lookup = Lookup::new(Arc::clone(geo));
                let mut random = support::Random(seed);
                while !stop.load(Ordering::Relaxed) {
                    // All of it is in one of the countries, whichever generation is met.
                    let ip = std::net::Ipv4Addr::from_bits(0x0800_0000 | random.next() as u32 & 0x00ff_ffff);
                    let place = lookup.place(ip.into());
                    assert!(matches!(place.country.unwrap().as_str(), "AA" | "BB"));
                    lookups.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 2..60 {
            let content = all_in(if number % 2 == 0 { "BB" } else { "AA" });
            let before = lookups.load(Ordering::Relaxed);
            rename(&directory.file("b.mmdb", &content), &path);
            assert_eq!(poll(&geo), Ok(number));
            while lookups.load(Ordering::Relaxed) < before + 100 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(geo.state().damaged_records, 0);
}
