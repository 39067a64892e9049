//! Debian's databases with their own clients and benchmarks, through an outrigger that was told nothing of them, and at a
//! port of localhost that is theirs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::pods::{CONFIG, Pods, own};

/// Who may not do anything to anybody runs the servers.
const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A pod `s` with an empty directory for a server, `p` whose calls are intercepted, `e` with a port of localhost for the
/// service, and `d` without any outrigger.
fn room(number: u8, port: u16) -> Option<(Pods, String)> {
    let mut pods = Pods::new(number, "psed")?;
    let data = pods.dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    own(&data, "65534:65534");
    pods.init('p', &[]);
    pods.outrigger('p', CONFIG);
    pods.outrigger(
        'e',
        &format!(
            "version: 1\ninbound: {{ports: [{{listen: 6143, app: 8080}}]}}\noutbound: {{services: [{{name: database, \
             listen: '127.0.0.1:{port}', protocol: tcp, endpoints: {{static: ['198.18.{number}.2:{port}']}}}}]}}\n"
        ),
    );
    let data = data.display().to_string();
    Some((pods, data))
}

/// Runs a program of the server's there, as nobody; it must end well.
fn prepare(pods: &Pods, program: &[&str]) {
    let output = pods.output('s', &[&NOBODY[..], program].concat());
    assert!(output.status.success(), "{program:?}: {output:?}");
}

/// Runs a client from where calls are intercepted, in both families, and from where localhost has the port.
fn everywhere(number: u8, client: impl Fn(char, &str)) {
    for (side, host) in
        [('p', format!("198.18.{number}.2")), ('p', format!("fd00:18:{number}::2")), ('e', "127.0.0.1".into())]
    {
        client(side, &host);
    }
}

/// What a client writes, which must end well.
fn said(pods: &Pods, side: char, client: &[&str]) -> String {
    let output = pods.output(side, client);
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{side} {client:?}: {output:?}\n{:?}", pods.log(side));
    text
}

/// How much later the server's first bytes come by way of the outrigger than without one: the median of many pairs of
/// connections, one after the other. The caller speaks first where it has something to say.
fn added(pods: &Pods, to: &str, hello: &[u8]) -> Duration {
    let to: SocketAddr = to.parse().unwrap();
    let first_byte = |side| {
        pods.enter(side, || {
            let begun = Instant::now();
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(hello).unwrap();
            let n = stream.read(&mut [0; 512]).unwrap();
            assert!(n > 0, "{to} closed the connection");
            begun.elapsed()
        })
    };
    let mut direct = Vec::new();
    let mut added: Vec<f64> = Vec::new();
    for _ in 0..60 {
        let (without, with) = (first_byte('d'), first_byte('p'));
        direct.push(without);
        added.push(with.as_secs_f64() - without.as_secs_f64());
    }
    direct.sort();
    added.sort_by(f64::total_cmp);
    let median = Duration::from_secs_f64(added[30].max(0.0));
    println!(
        "{to}: first byte after {:?} directly, {median:?} more through the outrigger, 9 of 10 under {:.2} ms more",
        direct[30],
        added[54] * 1e3
    );
    median
}

#[test]
fn mariadb_greets_through_an_outrigger_that_knows_nothing_of_it() {
    if !crate::has(&["mariadbd", "mariadb-install-db", "mariadb", "mariadb-slap"]) {
        return;
    }
    let Some((mut pods, data)) = room(51, 3306) else { return };
    let datadir = format!("--datadir={data}");
    prepare(
        &pods,
        &[
            "mariadb-install-db",
            "--no-defaults",
            &datadir,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
    );
    let (socket, program) = (format!("--socket={data}/socket"), crate::program("mariadbd").unwrap());
    let program = program.display().to_string();
    let server = [&program, "--no-defaults", &datadir, &socket, "--bind-address=*", "--skip-name-resolve"];
    pods.start('s', &[&NOBODY[..], &server, &["--innodb-flush-log-at-trx-commit=0"]].concat());
    pods.wait('s', 3306);
    let grant = "create user caller@'%' identified by 'known'; create database if not exists shop; \
                 grant all on *.* to caller@'%'";
    said(&pods, 's', &["mariadb", "--no-defaults", &socket, "-u", "root", "-e", grant]);
    everywhere(51, |side, host| {
        let client = ["mariadb", "--no-defaults", "-u", "caller", "-pknown", "-h", host, "--protocol=tcp", "-N", "-e"];
        assert_eq!(said(&pods, side, &[&client[..], &["select 6*7"]].concat()), "42");
        let long = said(&pods, side, &[&client[..], &["select repeat('x', 5000000)"]].concat());
        assert_eq!(long.len(), 5_000_000);
    });
    for (side, host) in [('p', "198.18.51.2"), ('e', "127.0.0.1")] {
        let bench = ["mariadb-slap", "--no-defaults", "-u", "caller", "-pknown", "-h", host, "--protocol=tcp"];
        let load = ["--auto-generate-sql", "--concurrency=4", "--number-of-queries=200", "--iterations=2"];
        let told = said(&pods, side, &[&bench[..], &load].concat());
        assert!(told.contains("Average number of seconds"), "{told}");
    }
    let added = added(&pods, "198.18.51.2:3306", b"");
    assert!(added < Duration::from_millis(5), "{added:?}");
    assert!(pods.value('p', "outrigger_detections_total{result=\"server_first\"}") >= 64.0);
}

#[test]
fn postgresql_negotiates_through_an_outrigger_that_knows_nothing_of_it() {
    let version = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").is_file()).max()
    };
    let Some(bin): Option<PathBuf> = version() else {
        return crate::skip("postgres is not installed");
    };
    let Some((mut pods, data)) = room(52, 5432) else { return };
    let bin = |name: &str| bin.join(name).display().to_string();
    prepare(&pods, &[&bin("initdb"), "--no-sync", "-A", "trust", "-U", "caller", "-D", &data]);
    let hba = format!("{data}/pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all all trust\n").unwrap();
    let options = ["-c", "listen_addresses=*", "-c", "fsync=off", "-c", "shared_memory_type=mmap", "-k", &data];
    pods.start('s', &[&NOBODY[..], &[&bin("postgres"), "-D", &data], &options].concat());
    pods.wait('s', 5432);
    pods.until("a server that is ready", |pods| pods.output('s', &[&bin("pg_isready"), "-h", &data]).status.success());
    everywhere(52, |side, host| {
        let client = [&bin("psql"), "-h", host, "-U", "caller", "-d", "postgres", "-tAc"];
        assert_eq!(said(&pods, side, &[&client[..], &["select 6*7"]].concat()), "42");
        let long = said(&pods, side, &[&client[..], &["select repeat('x', 5000000)"]].concat());
        assert_eq!(long.len(), 5_000_000);
    });
    for (side, host) in [('p', "198.18.52.2"), ('e', "127.0.0.1")] {
        let bench = [&bin("pgbench"), "-h", host, "-U", "caller"];
        said(&pods, side, &[&bench[..], &["-i", "-q", "postgres"]].concat());
        // With a connection for all of a client's transactions, and with one for each.
        for more in [&["-t", "50"][..], &["-t", "10", "-C"]] {
            let told = said(&pods, side, &[&bench[..], &["-c", "4", "-n"], more, &["postgres"]].concat());
            assert!(told.contains("number of failed transactions: 0"), "{told}");
        }
    }
    // What psql says first: may we speak TLS?
    let added = added(&pods, "198.18.52.2:5432", &[0, 0, 0, 8, 4, 210, 22, 47]);
    assert!(added < Duration::from_millis(5), "{added:?}");
}

#[test]
fn redis_answers_through_an_outrigger_that_knows_nothing_of_it() {
    if !crate::has(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let Some((mut pods, data)) = room(53, 6379) else { return };
    let server = ["redis-server", "--dir", &data, "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""];
    pods.start('s', &[&NOBODY[..], &server].concat());
    pods.wait('s', 6379);
    everywhere(53, |side, host| {
        let client = ["redis-cli", "-h", host];
        let ask = |words: &[&str]| said(&pods, side, &[&client[..], words].concat());
        assert_eq!(ask(&["set", "answer", "42"]), "OK");
        assert_eq!(ask(&["get", "answer"]), "42");
        let long = ask(&["eval", "return string.rep('x', 5000000)", "0"]);
        assert_eq!(long.len(), 5_000_000);
    });
    for (side, host) in [('p', "198.18.53.2"), ('e', "127.0.0.1")] {
        for pipelined in ["1", "16"] {
            let bench =
                ["redis-benchmark", "-h", host, "-n", "4000", "-c", "20", "-P", pipelined, "-q", "-t", "set,get"];
            let told = said(&pods, side, &bench);
            assert_eq!(told.matches("requests per second").count(), 2, "{told}");
        }
    }
    let added = added(&pods, "198.18.53.2:6379", b"PING\r\n");
    assert!(added < Duration::from_millis(5), "{added:?}");
    pods.until("what was carried is counted", |pods| {
        let carried = |line: &serde_json::Value| line["http.response.body.size"].as_u64().unwrap_or(0) > 5_000_000;
        pods.log('p').iter().filter(|line| carried(line)).count() == 2
    });
}
