//! Where an address is, by databases of every shape and by the embedded table.

mod support;

use std::sync::Arc;

use geo::{Geo, GeoSettings, Kind, Lookup};
use model::Scope;
use support::mmdb::{Value, Writer};
use support::{Directory, all_in};

/// Opens these databases, in this order.
fn open(databases: &[Vec<u8>]) -> Lookup {
    let directory = Directory::new();
    let paths = databases.iter().enumerate().map(|(number, bytes)| directory.file(&format!("{number}.mmdb"), bytes));
    let settings = GeoSettings { databases: paths.collect(), max_age: None };
    Lookup::new(Arc::new(Geo::open(settings).unwrap()))
}

/// A database in which 1.0.0.0/8 and 2a00::/16 have this record.
fn database(record: Value) -> Vec<u8> {
    let mut writer = Writer::new("Test");
    writer.insert("1.0.0.0/8".parse().unwrap(), &record);
    writer.insert("2a00::/16".parse().unwrap(), &record);
    writer.finish()
}

/// Country, region, city, number and organization of 1.2.3.4, which have to be those of 2a00::1 as well.
fn told(databases: &[Vec<u8>]) -> String {
    let mut lookup = open(databases);
    let place = lookup.place("1.2.3.4".parse().unwrap());
    assert_eq!(lookup.place("2a00::1".parse().unwrap()), place);
    assert_eq!(lookup.place("::ffff:1.2.3.4".parse().unwrap()), place);
    assert_eq!(place.scope, Scope::Global);
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or("-").to_owned();
    format!(
        "{}/{}/{}/{}/{}",
        place.country.map_or("-".to_owned(), |code| code.to_string()),
        text(&place.region),
        text(&place.city),
        place.asn.unwrap_or(0),
        text(&place.organization)
    )
}

fn geoip2_city() -> Value {
    let names = Value::map([("de", "München".into()), ("en", "Munich".into())]);
    Value::map([
        ("city", Value::map([("geoname_id", 2_867_714.into()), ("names", names)])),
        ("continent", Value::map([("code", "EU".into())])),
        ("country", Value::map([("is_in_european_union", Value::Bool(true)), ("iso_code", "DE".into())])),
        ("registered_country", Value::map([("iso_code", "US".into())])),
        (
            "subdivisions",
            Value::List(vec![Value::map([("iso_code", "BY".into())]), Value::map([("iso_code", "X".into())])]),
        ),
    ])
}

fn geoip2_asn() -> Value {
    Value::map([("autonomous_system_number", 64496.into()), ("autonomous_system_organization", "Example Net".into())])
}

#[test]
fn databases_of_every_shape_are_read() {
    for (record, expected) in [
        (geoip2_city(), "DE/BY/Munich/0/-"),
        (geoip2_asn(), "-/-/-/64496/Example Net"),
        (Value::map([("country", Value::map([("iso_code", "no".into())]))]), "NO/-/-/0/-"),
        (Value::map([("country_code", "NO".into())]), "NO/-/-/0/-"),
        (
            Value::map([
                ("as_domain", "example.net".into()),
                ("as_name", "Example Net".into()),
                ("asn", "AS64496".into()),
                ("continent", "Europe".into()),
                ("country", "Norway".into()),
                ("country_code", "NO".into()),
            ]),
            "NO/-/-/64496/Example Net",
        ),
        (
            Value::map([
                ("city", "Oslo".into()),
                ("country", "NO".into()),
                ("region", "Oslo County".into()),
                ("region_code", "NO-03".into()),
            ]),
            "NO/03/Oslo/0/-",
        ),
        (
            Value::map([("city", "Oslo".into()), ("country_code", "NO".into()), ("state1", "Oslo County".into())]),
            "NO/-/Oslo/0/-",
        ),
        (Value::map([("asn", 64496.into()), ("org", "Example, Inc.".into())]), "-/-/-/64496/Example, Inc."),
        (Value::map([("traits", geoip2_asn()), ("country_code", "NO".into())]), "NO/-/-/64496/Example Net"),
        // What can't be told, or is not what it should be, is absent.
        (Value::map([("country_code", "ZZ".into()), ("city", "Nowhere".into())]), "-/-/Nowhere/0/-"),
        (Value::map([("registered_country", Value::map([("iso_code", "US".into())])), ("asn", 1.into())]), "-/-/-/1/-"),
        (Value::map([("country", 47.into()), ("city", "a\r\nforged: b".into()), ("asn", "AS1".into())]), "-/-/-/1/-"),
        (
            Value::map([("country", "NO".into()), ("city", "x".repeat(500).as_str().into()), ("asn", "AS".into())]),
            "NO/-/-/0/-",
        ),
        (Value::map([("country", "NO".into()), ("asn", "AS99999999999".into()), ("name", "x".into())]), "NO/-/-/0/-"),
    ] {
        assert_eq!(told(&[database(record.clone())]), expected, "{record:?}");
    }
}

#[test]
fn the_first_database_that_has_a_field_decides_it() {
    let country = |code: &str| database(Value::map([("country_code", code.into())]));
    let (city, asn) = (database(geoip2_city()), database(geoip2_asn()));
    assert_eq!(told(&[country("DE"), city.clone(), asn.clone()]), "DE/BY/Munich/64496/Example Net");
    assert_eq!(told(&[asn.clone(), city.clone()]), "DE/BY/Munich/64496/Example Net");
    assert_eq!(told(&[city.clone(), country("NO")]), "DE/BY/Munich/0/-");
    // A region and a city of another country are not put together with it, nor an organization with another's number.
    assert_eq!(told(&[country("NO"), city]), "NO/-/-/0/-");
    let other = database(Value::map([("asn", "AS64497".into())]));
    assert_eq!(told(&[other, asn]), "-/-/-/64497/-");
}

#[test]
fn every_size_of_record_and_both_families_are_read() {
    for bits in [24, 28, 32] {
        let mut writer = Writer::new("Test").record_bits(bits);
        writer.insert("::/0".parse().unwrap(), &Value::map([("country_code", "AA".into())]));
        writer.insert("2a00:1::/32".parse().unwrap(), &Value::map([("country_code", "BB".into())]));
        writer.insert("1.2.3.4/32".parse().unwrap(), &Value::map([("country_code", "CC".into())]));
        let mut lookup = open(&[writer.finish()]);
        for (ip, expected) in [("2a00::1", "AA"), ("2a00:1::1", "BB"), ("1.2.3.4", "CC"), ("1.2.3.5", "AA")] {
            let place = lookup.place(ip.parse().unwrap());
            assert_eq!(place.country.unwrap().as_str(), expected, "{bits} {ip}");
        }
    }
    let mut writer = Writer::new("Test").ipv4_only();
    writer.insert("1.2.0.0/16".parse().unwrap(), &Value::map([("country_code", "NO".into())]));
    let mut lookup = open(&[writer.finish()]);
    assert_eq!(lookup.place("1.2.3.4".parse().unwrap()).country.unwrap().as_str(), "NO");
    assert_eq!(lookup.place("2a00::1".parse().unwrap()).country, None);
    assert_eq!(lookup.place("9.9.9.9".parse().unwrap()).country, None);
}

#[test]
fn an_address_that_is_not_of_the_internet_has_a_scope_and_never_a_country() {
    for databases in [&[][..], &[all_in("NO")]] {
        let mut lookup = open(databases);
        for (ip, scope) in [
            ("10.1.2.3", Scope::Private),
            ("::ffff:192.168.1.1", Scope::Private),
            ("fd00::1", Scope::Private),
            ("127.0.0.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("169.254.1.1", Scope::LinkLocal),
            ("100.64.0.1", Scope::Cgnat),
            ("224.0.0.1", Scope::Multicast),
            ("192.0.2.1", Scope::Reserved),
            ("2001:db8::1", Scope::Reserved),
            // A translator never stands before a private network under this prefix (RFC 6052, 3.1).
            ("64:ff9b::a00:1", Scope::Private),
        ] {
            let place = lookup.place(ip.parse().unwrap());
            assert_eq!(*place, model::Place { scope, ..model::Place::default() }, "{ip}");
        }
    }
}

#[test]
fn a_caller_behind_nat64_is_where_its_ipv4_address_is() {
    let mut lookup = open(&[]);
    let place = lookup.place("64:ff9b::808:808".parse().unwrap());
    assert_eq!(place, lookup.place("8.8.8.8".parse().unwrap()));
    assert_eq!(place.country.unwrap().as_str(), "US");
}

#[test]
fn without_databases_the_embedded_table_serves() {
    let geo = Arc::new(Geo::open(GeoSettings::default()).unwrap());
    let state = geo.state();
    assert_eq!((state.kind, state.stale, state.last_error), (Kind::Embedded, false, None));
    assert!(state.files[0].name.contains("IPFire Location"), "{:?}", state.files);
    assert!(geo.poll_reload().is_none());
    let place = Lookup::new(geo).place("2001:4860:4860::8888".parse().unwrap());
    assert_eq!((place.country.unwrap().as_str(), place.scope, place.asn), ("US", Scope::Global, None));
}

#[test]
fn one_place_is_decoded_once() {
    let mut lookup = open(&[database(geoip2_city())]);
    let first = lookup.place("1.2.3.4".parse().unwrap());
    assert!(std::rc::Rc::ptr_eq(&first, &lookup.place("1.99.3.4".parse().unwrap())));
    assert!(std::rc::Rc::ptr_eq(&first, &lookup.place("2a00::1".parse().unwrap())));
}

#[test]
fn more_places_than_are_remembered_are_still_told_right() {
    let mut lookup = open(&[support::mmdb::cities(2_000_000).finish()]);
    let mut random = support::Random(1);
    let ips: Vec<std::net::IpAddr> =
        (0..30_000).map(|_| std::net::Ipv4Addr::from_bits(random.next() as u32).into()).collect();
    let geo = lookup.place(ips[0]);
    assert_eq!(geo.scope, Scope::of(ips[0]));
    for &ip in &ips {
        let place = lookup.place(ip);
        assert_eq!(place.city.is_some(), Scope::of(ip) == Scope::Global, "{ip}");
    }
}
