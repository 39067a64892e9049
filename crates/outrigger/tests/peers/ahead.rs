//! Leaving ahead of the app, as its `preStop` hook asks.

use std::time::{Duration, Instant};

use crate::{Outrigger, hello};

#[test]
fn asked_ahead_of_the_app_it_is_no_longer_ready_and_tells_callers_to_close() {
    let mut outrigger = Outrigger::start("ahead", hello(), "");
    let keep = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let begun = Instant::now();
    let answer = outrigger.get(outrigger.public, "/drain/1").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && begun.elapsed() >= Duration::from_secs(1), "{answer}");
    assert!(outrigger.get(outrigger.public, "/readyz").unwrap().starts_with("HTTP/1.1 503 "));
    // Asked to keep the connection, it answers and closes.
    let answer = crate::ask(outrigger.listen, keep).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(outrigger.child.try_wait().unwrap().is_none(), "it goes on until it is told to end");
    for wrong in ["/drain", "/drain/", "/drain/-1", "/drain/x"] {
        assert!(outrigger.get(outrigger.public, wrong).unwrap().starts_with("HTTP/1.1 40"), "{wrong}");
    }
}
