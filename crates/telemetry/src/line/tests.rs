use std::fs;
use std::path::PathBuf;

use model::{Cause, ClientAddr, Direction, Facts, Failure, FieldName, Head, PeerAddr, Place, Scheme, Version};
use proptest::prelude::*;

use crate::*;

struct Log {
    path: PathBuf,
    settings: Settings,
}

impl Log {
    fn new(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-line-{name}-{}", std::process::id()));
        let mut settings = Settings::default();
        settings.access_log.output = Output::File { path: path.clone(), rotate: None };
        change(&mut settings);
        Self { path, settings }
    }

    /// Records requests as told and gives the lines.
    fn lines(&self, requests: impl FnOnce(&std::rc::Rc<Local>)) -> Vec<String> {
        let _ = fs::remove_file(&self.path);
        let telemetry = Telemetry::start(self.settings.clone(), &["web"]).unwrap();
        let local = telemetry.worker();
        requests(&local);
        local.flush();
        telemetry.shutdown();
        let text = fs::read_to_string(&self.path).unwrap();
        fs::remove_file(&self.path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.split_terminator('\n').map(str::to_owned).collect()
    }
}

/// A request from 203.0.113.77 through 10.0.0.9.
fn record(local: &std::rc::Rc<Local>, path: &str, agent: &[u8], change: impl FnOnce(&mut Record)) {
    let peer = PeerAddr::new("10.0.0.9:4711".parse().unwrap());
    let client =
        ClientAddr { ip: "203.0.113.77".parse().unwrap(), port: Some(99), source: model::AddressSource::XForwardedFor };
    let mut head = Head::new(Version::Http11, Scheme::Http, "GET", "shop.example", path);
    head.query = Some("token=secret");
    head.add(FieldName::UserAgent, agent);
    head.add(FieldName::Referer, b"https://a/b?token=secret#x");
    let place =
        Place { country: "NO".parse().ok(), city: Some("Ås \"north\"".into()), asn: Some(64496), ..Place::default() };
    let facts = Facts { direction: Direction::Inbound, head: Some(&head), peer, identity: None, client, place: &place };
    let mut record = Record::begin(local, 0, peer, client);
    record.facts(&facts);
    record.trace([0xab; 16], [0xcd; 8]);
    record.request_id(b"id-1");
    record.app(true);
    record.received(3);
    record.responded(200);
    record.sent(1234);
    change(&mut record);
    record.finished();
}

#[test]
fn the_proven_identity_stands_in_every_format() {
    let id: model::SpiffeId = "spiffe://a.example/ns/b/sa/c".parse().unwrap();
    for (format, expected) in [
        (Format::Json, "\"outrigger.peer.identity\":\"spiffe://a.example/ns/b/sa/c\""),
        (Format::Ecs, "\"tls.client.x509.alternative_names\":\"spiffe://a.example/ns/b/sa/c\""),
        (Format::Text, "203.0.113.77 - spiffe://a.example/ns/b/sa/c ["),
    ] {
        let log = Log::new("identity", |settings| settings.access_log.format = format);
        let lines = log.lines(|local| {
            record(local, "/a", b"curl/8", |record| {
                let peer = PeerAddr::new("10.0.0.9:4711".parse().unwrap());
                let client = ClientAddr { ip: "203.0.113.77".parse().unwrap(), ..ClientAddr::from_peer(peer) };
                let place = Place::default();
                let identity = Some(&id);
                let direction = Direction::Inbound;
                record.facts(&Facts { direction, head: None, peer, identity, client, place: &place });
            });
        });
        assert!(lines[0].contains(expected), "{format:?}: {}", lines[0]);
    }
}

#[test]
fn json_lines_have_opentelemetrys_names() {
    let lines = Log::new("json", |_| {}).lines(|local| record(local, "/a", b"curl/8", |_| {}));
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    for (key, value) in [
        ("client.address", serde_json::json!("203.0.113.77")),
        ("client.port", 99.into()),
        ("outrigger.client.source", "x_forwarded_for".into()),
        ("network.peer.address", "10.0.0.9".into()),
        ("geo.country.iso_code", "NO".into()),
        ("geo.locality.name", "Ås \"north\"".into()),
        ("as.number", 64496.into()),
        ("http.request.method", "GET".into()),
        ("url.path", "/a".into()),
        ("url.scheme", "http".into()),
        ("server.address", "shop.example".into()),
        ("network.protocol.version", "1.1".into()),
        ("http.response.status_code", 200.into()),
        ("http.request.body.size", 3.into()),
        ("http.response.body.size", 1234.into()),
        ("user_agent.original", "curl/8".into()),
        ("http.request.header.referer", "https://a/b".into()),
        ("outrigger.request_id", "id-1".into()),
        ("trace_id", "abababababababababababababababab".into()),
        ("parent_span_id", "cdcdcdcdcdcdcdcd".into()),
        ("outrigger.port", "web".into()),
        ("outrigger.app.connection", "reused".into()),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert!(line["http.server.request.duration"].as_f64().unwrap() < 5.0);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(!lines[0].contains("secret") && line.get("error.type").is_none() && line.get("geo.scope").is_none());
}

#[test]
fn ecs_and_text_lines_tell_the_same() {
    let ecs =
        Log::new("ecs", |s| s.access_log.format = Format::Ecs).lines(|local| record(local, "/a", b"curl/8", |_| {}));
    let line: serde_json::Value = serde_json::from_str(&ecs[0]).unwrap();
    assert_eq!(
        (&line["client.ip"], &line["client.geo.country_iso_code"], &line["client.as.number"]),
        (&"203.0.113.77".into(), &"NO".into(), &64496.into())
    );
    assert_eq!((&line["event.outcome"], &line["http.response.status_code"]), (&"success".into(), &200.into()));
    let text =
        Log::new("text", |s| s.access_log.format = Format::Text).lines(|local| record(local, "/a", b"curl/8", |_| {}));
    let (before, after) = text[0].split_once(" [").unwrap();
    assert_eq!(before, "203.0.113.77 - -");
    assert!(
        after.split_once("] ").unwrap().1.starts_with("\"GET /a HTTP/1.1\" 200 1234 \"https://a/b\" \"curl/8\" NO 0."),
        "{}",
        text[0]
    );
    assert!(!ecs[0].contains("secret") && !text[0].contains("secret"));
}

#[test]
fn privacy_shortens_or_omits_every_address_and_shows_queries_only_when_told() {
    for format in [Format::Json, Format::Ecs, Format::Text] {
        let log = |privacy: Privacy| {
            Log::new("privacy", |s| {
                s.access_log.format = format;
                s.privacy = privacy;
            })
            .lines(|local| record(local, "/a", b"x", |_| {}))
            .concat()
        };
        let prefixes =
            log(Privacy { client_address: AddressPrivacy::Prefixes { ipv4: 24, ipv6: 48 }, query: QueryPrivacy::Full });
        assert!(
            prefixes.contains("203.0.113.0") && !prefixes.contains("203.0.113.77") && !prefixes.contains("10.0.0.9"),
            "{prefixes}"
        );
        assert!(prefixes.contains("token=secret") && !prefixes.contains("client.port"), "{prefixes}");
        let omit = log(Privacy { client_address: AddressPrivacy::Omit, query: QueryPrivacy::Omit });
        assert!(!omit.contains("203.0.113") && !omit.contains("10.0.0") && !omit.contains("secret"), "{omit}");
    }
}

#[test]
fn sampling_and_filters_never_drop_an_error() {
    let log = Log::new("sample", |s| {
        s.access_log.sample_success = 0.0;
        s.access_log.exclude_paths = vec!["/healthz".into()];
    });
    let lines = log.lines(|local| {
        record(local, "/a", b"x", |_| {});
        record(local, "/healthz", b"x", |record| record.responded(500));
        record(local, "/healthz", b"x", |record| record.fail(&Failure::new(Cause::AppBroken, "gone")));
        record(local, "/b", b"x", |record| record.responded(404));
    });
    assert_eq!(lines.len(), 3, "{lines:?}");
    let half = Log::new("half", |s| s.access_log.sample_success = 0.5)
        .lines(|local| (0..1000).for_each(|_| record(local, "/a", b"x", |_| {})));
    assert!((350..650).contains(&half.len()), "{}", half.len());
    let excluded = Log::new("excluded", |s| s.access_log.exclude_paths = vec!["/healthz".into()]);
    assert_eq!(excluded.lines(|local| record(local, "/healthz", b"x", |_| {})).len(), 0);
}

#[test]
fn what_lives_long_has_a_line_at_its_start_in_between_and_at_its_end() {
    let lines = Log::new("stream", |_| {}).lines(|local| {
        record(local, "/a", b"x", |record| {
            record.stream("websocket");
            record.sent(10);
            record.interval();
        });
        record(local, "/b", b"x", Record::interval);
        record(local, "/c", b"x", |_| {});
    });
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (line["outrigger.event"].as_str().map(str::to_owned), line["http.response.body.size"].as_u64().unwrap())
        })
        .collect();
    let event = |name: &str| Some(name.to_owned());
    let stream = [(event("start"), 1234), (event("interval"), 1244), (event("end"), 1244)];
    let slow = [(event("interval"), 1234), (event("end"), 1234)];
    assert_eq!(told, [&stream[..], &slow[..], &[(None, 1234)]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_can_break_or_forge_a_line(path in ".{0,80}", agent in prop::collection::vec(any::<u8>(), 0..900)) {
        for format in [Format::Json, Format::Ecs, Format::Text] {
            let log = Log::new("forge", |s| s.access_log.format = format);
            let lines = log.lines(|local| record(local, &path, &agent, |record| record.request_id(&agent)));
            prop_assert_eq!(lines.len(), 1);
            prop_assert!(lines[0].bytes().all(|b| b >= 0x20 && b != 0x7f));
            prop_assert!(lines[0].len() < 16 * 1024);
            if format == Format::Text {
                prop_assert_eq!(lines[0].matches('"').count(), 6);
            } else {
                let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
                let told = line["user_agent.original"].as_str().unwrap_or_default();
                prop_assert_eq!(told, String::from_utf8_lossy(&agent[..agent.len().min(512)]));

            }
        }
    }
}
