use std::process::{Command, Stdio};

use model::{ClientAddr, Failure, PeerAddr, Place};

use super::*;
use crate::{Output, Record};

fn telemetry(max_series: usize) -> Arc<Telemetry> {
    let mut settings = Settings { max_series, ..Settings::default() };
    settings.access_log.output = Output::File { path: "/dev/null".into(), rotate: None };
    Telemetry::start(settings, &["web", "odd \"name\"\n"]).unwrap()
}

fn request(local: &Rc<Local>, country: &str) {
    let peer = PeerAddr::new("192.0.2.1:1".parse().unwrap());
    let mut record = Record::begin(local, 0, peer, ClientAddr::from_peer(peer));
    record.place(&Place { country: country.parse().ok(), ..Place::default() });
    record.responded(200);
    record.sent(5);
    record.finished();
}

#[test]
fn every_exit_of_a_request_is_counted_once() {
    let telemetry = telemetry(2000);
    let local = telemetry.worker();
    let peer = PeerAddr::new("192.0.2.1:1".parse().unwrap());
    request(&local, "NO");
    request(&local, "NO");
    drop(Record::begin(&local, 0, peer, ClientAddr::from_peer(peer)));
    let mut failed = Record::begin(&local, 0, peer, ClientAddr::from_peer(peer));
    failed.fail(&Failure::new(Cause::AppTimeout, "first"));
    failed.fail(&Failure::new(Cause::ClientDisconnected, "what follows"));
    let open = Record::begin(&local, 1, peer, ClientAddr::from_peer(peer));
    let text = telemetry.encode_metrics();
    for line in [
        "outrigger_requests_total{port=\"web\",method=\"_OTHER\",status_class=\"2xx\"} 2",
        "outrigger_requests_total{port=\"web\",method=\"_OTHER\",status_class=\"4xx\"} 1",
        "outrigger_requests_in_flight{port=\"web\"} 1",
        "outrigger_errors_total{error_type=\"client_disconnected\",fault=\"client\"} 1",
        "outrigger_client_requests_total{country=\"NO\"} 2",
        "outrigger_request_duration_seconds_count{port=\"web\"} 3",
        "outrigger_body_bytes_total{port=\"web\",way=\"sent\"} 10",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    drop((failed, open));
    let text = telemetry.encode_metrics();
    assert!(text.contains("outrigger_errors_total{error_type=\"app_timeout\",fault=\"app\"} 1"), "{text}");
    assert!(text.contains("outrigger_requests_in_flight{port=\"web\"} 0"), "{text}");
    local.cut();
    drop(Record::begin(&local, 0, peer, ClientAddr::from_peer(peer)));
    assert!(
        telemetry.encode_metrics().contains("outrigger_errors_total{error_type=\"drain_deadline\",fault=\"proxy\"} 1")
    );
}

#[test]
fn workers_add_up() {
    let telemetry = telemetry(2000);
    let (first, second) = (telemetry.worker(), telemetry.worker());
    request(&first, "NO");
    request(&second, "NO");
    assert!(telemetry.encode_metrics().contains("outrigger_client_requests_total{country=\"NO\"} 2"));
}

#[test]
fn beyond_the_cap_series_are_summed_up_and_sums_never_go_down() {
    let telemetry = telemetry(0);
    let local = telemetry.worker();
    let cap = {
        telemetry.encode_metrics();
        lock(&telemetry.shown).len()
    };
    telemetry.settings.store(Arc::new(Settings { max_series: cap + 3, ..Settings::default() }));
    let countries = || {
        let text = telemetry.encode_metrics();
        text.lines()
            .filter(|l| l.starts_with("outrigger_client_requests_total{"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for country in ["SE", "NO", "FI"] {
        request(&local, country);
    }
    let before = countries();
    for country in ["AA", "DK", "DK", "ZZ", "SE"] {
        request(&local, country);
    }
    let after = countries();
    assert!(after.len() <= before.len() + 1, "{after:?}");
    let total: f64 = after.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!(total, 8.0, "{after:?}");
    assert!(after.iter().any(|line| line.contains("country=\"overflow\"")), "{after:?}");
    for line in &before {
        let series = line.rsplit_once(' ').unwrap().0;
        assert!(after.iter().any(|line| line.starts_with(series)), "{series} lost its place: {after:?}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let telemetry = telemetry(2000);
    request(&telemetry.worker(), "NO");
    telemetry.geo_database(GeoDatabase { kind: "embedded", ..GeoDatabase::default() });
    telemetry.config_reload(false);
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        eprintln!("skipped: promtool (Debian package prometheus) is not installed");
        return;
    };
    io::Write::write_all(&mut promtool.stdin.take().unwrap(), telemetry.encode_metrics().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn a_worker_that_shows_no_life_is_stuck() {
    let telemetry = telemetry(2000);
    let local = telemetry.worker();
    assert_eq!(telemetry.stuck_workers(Duration::from_secs(10)), 0);
    // As if its last sign of life were from before the process began, as far back as the clock goes.
    local.shard.heartbeat.set(0);
    while telemetry.uptime_millis() < 2 {
        std::hint::spin_loop();
    }
    assert_eq!(telemetry.stuck_workers(Duration::from_millis(1)), 1);
    local.heartbeat();
    assert_eq!(telemetry.stuck_workers(Duration::from_secs(10)), 0);
}
