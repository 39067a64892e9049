//! Leaving: no request that was accepted is lost while the app answers.

use proxy::Phase;

use crate::harness::{PATIENCE, Sidecar, app, field, mirror};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn while_draining_connections_are_taken_and_answers_ask_to_close() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut open = sidecar.connect().await;
    open.send(GET).await;
    assert_eq!(field(&open.answer().await.0, "connection"), None);
    sidecar.shared().lifecycle.advance(Phase::Draining);
    let mut new = sidecar.connect().await;
    for caller in [&mut open, &mut new] {
        // The phase reaches the worker as fast as a connection does, not faster.
        let closing = async {
            loop {
                caller.send(GET).await;
                let (head, _) = caller.answer().await;
                if field(&head, "connection") == Some("close") {
                    return caller.rest().await;
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, closing).await.unwrap(), "");
    }
}

#[tokio::test]
async fn ahead_of_the_app_idle_connections_go_new_ones_are_served_and_there_is_a_way_back() {
    let (app, _) = mirror().await;
    let sidecar = Sidecar::start(app);
    let mut idle = sidecar.connect().await;
    idle.send(GET).await;
    idle.answer().await;
    let lifecycle = &sidecar.shared().lifecycle;
    let departure = lifecycle.depart(std::time::Duration::ZERO).await;
    assert_eq!(tokio::time::timeout(PATIENCE, idle.rest()).await.unwrap(), "");
    let mut new = sidecar.connect().await;
    new.send(GET).await;
    let (head, _) = new.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && field(&head, "connection") == Some("close"), "{head}");
    // Half a minute, by a clock that does not wait for it.
    tokio::time::pause();
    assert!(lifecycle.come_back(departure).await);
    tokio::time::resume();
    let kept = async {
        loop {
            let mut caller = sidecar.connect().await;
            caller.send(GET).await;
            if field(&caller.answer().await.0, "connection").is_none() {
                caller.send(GET).await;
                return caller.answer().await.0;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, kept).await.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn once_closing_idle_connections_go_and_open_requests_finish() {
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let finished = std::sync::Mutex::new(Some(finished));
    let (app, _) = app(move |mut caller, _| {
        let finished = finished.lock().unwrap().take();
        async move {
            let head = caller.head().await;
            if let (true, Some(finished)) = (head.starts_with("GET /slow"), finished) {
                finished.await.unwrap();
            }
            caller.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
            caller.rest().await;
        }
    })
    .await;
    let mut sidecar = Sidecar::start(app);
    let mut slow = sidecar.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // Its request is with the app once the app's connection is counted.
    sidecar.counts("outrigger_requests_in_flight{port=\"test\"} 1").await;
    let mut idle = sidecar.connect().await;
    idle.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    sidecar.shared().lifecycle.advance(Phase::Closing);
    assert_eq!(idle.rest().await, "", "an idle connection is closed at once");
    finish.send(()).unwrap();
    let (head, body) = slow.answer().await;
    assert_eq!((field(&head, "connection"), body.as_str()), (Some("close"), "done"));
    drop(slow);
    let workers = sidecar.workers.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || workers.join());
    assert!(tokio::time::timeout(PATIENCE, ended).await.expect("the worker stays").unwrap());
}

#[tokio::test]
async fn a_connection_that_was_taken_has_its_first_request_answered() {
    let (app, _) = mirror().await;
    let mut sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    sidecar.counts("outrigger_connections_open{port=\"test\"} 1").await;
    sidecar.shared().lifecycle.advance(Phase::Closing);
    caller.send(GET).await;
    let (head, _) = caller.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && field(&head, "connection") == Some("close"), "{head}");
    drop(caller);
    let workers = sidecar.workers.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || workers.join());
    assert!(tokio::time::timeout(PATIENCE, ended).await.expect("the worker stays").unwrap());
}

#[tokio::test]
async fn at_the_deadline_what_is_open_is_cut() {
    let (app, _) = app(|mut caller, _| async move {
        caller.rest().await;
    })
    .await;
    let sidecar = Sidecar::start(app);
    let mut caller = sidecar.connect().await;
    caller.send(GET).await;
    sidecar.counts("outrigger_requests_in_flight{port=\"test\"} 1").await;
    let log = sidecar.end();
    assert_eq!(log.len(), 1, "what was cut is logged: {log:?}");
    caller.rest().await;
}
