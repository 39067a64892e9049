//! What one worker tells, gathered without locks: counters, and log lines in a buffer of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use model::{Cause, Failure, Fault, TlsFault};

use crate::clock::Clock;
use crate::line;
use crate::metrics::Telemetry;
use crate::record::Data;
use crate::settings::Settings;
use crate::shard::{DETECTED, Limit, PortShard, Shard};
use crate::writer::{Batch, Lines};

/// Bytes of lines after which they are handed to the writer without waiting for the tick. Waking it costs
/// more than a line does, so it is not to be often; somewhat less than a power of two, so that lines do not double the memory with the last.
const FLUSH_BYTES: usize = 120 * 1024;
/// Records kept for reuse.
const SPARE_RECORDS: usize = 256;

/// One worker's share of telemetry. Not for another thread.
#[derive(Debug)]
pub struct Local {
    pub(crate) shard: Arc<Shard>,
    telemetry: Arc<Telemetry>,
    settings: RefCell<Cache<Current, Arc<Settings>>>,
    batch: RefCell<Batch>,
    lines: Lines,
    clock: RefCell<Clock>,
    #[expect(clippy::vec_box, reason = "a record is handed out in its box: moving it would copy some 300 bytes")]
    spare: RefCell<Vec<Box<Data>>>,
    random: RefCell<fastrand::Rng>,
    /// What an open request failed of if it ends without a word.
    unfinished: Cell<Cause>,
    turn: Cell<Turn>,
}

/// Whether a connection has its turn, and what time it is in it.
#[derive(Clone, Copy, Debug)]
enum Turn {
    None,
    Begun,
    At(Instant),
}

/// Ends a turn, in a panic as well.
struct OverWhenDropped<'t>(&'t Cell<Turn>);

impl Drop for OverWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.set(Turn::None);
    }
}

/// Lets a worker cache the settings.
#[derive(Debug)]
struct Current(Arc<Telemetry>);

impl std::ops::Deref for Current {
    type Target = ArcSwap<Settings>;
    fn deref(&self) -> &ArcSwap<Settings> {
        &self.0.settings
    }
}

impl Local {
    pub(crate) fn new(telemetry: &Arc<Telemetry>, shard: Arc<Shard>, lines: Lines) -> Rc<Self> {
        Rc::new(Self {
            shard,
            settings: RefCell::new(Cache::new(Current(telemetry.clone()))),
            telemetry: telemetry.clone(),
            batch: RefCell::default(),
            lines,
            clock: RefCell::default(),
            spare: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            unfinished: Cell::new(Cause::ClientDisconnected),
            turn: Cell::new(Turn::None),
        })
    }

    /// Gives a connection its turn: within it, [`Local::now`] asks for the time no more than once.
    pub fn turn<T>(&self, work: impl FnOnce() -> T) -> T {
        self.turn.set(Turn::Begun);
        let _over = OverWhenDropped(&self.turn);
        work()
    }

    /// The time, as of this turn's last look: good for bounds and ages, and for where a measure ends, which microseconds do not
    /// matter to. Outside of a turn it is looked up.
    pub fn now(&self) -> Instant {
        match self.turn.get() {
            Turn::At(now) => now,
            Turn::None | Turn::Begun => self.look(),
        }
    }

    /// The time as it is: where a measure begins.
    pub(crate) fn look(&self) -> Instant {
        let now = Instant::now();
        if !matches!(self.turn.get(), Turn::None) {
            self.turn.set(Turn::At(now));
        }
        now
    }

    /// Counts a connection in; out again when the guard is dropped.
    pub fn connection(self: &Rc<Self>, port: usize) -> Connection {
        let shard = &self.shard.ports[port];
        shard.connections.add(1);
        shard.connections_open.add(1);
        Connection { local: self.clone(), port }
    }

    /// A failure that belongs to no request.
    pub fn connection_failed(&self, port: usize, failure: &Failure) {
        self.shard.error(failure.cause);
        tracing::debug!(
            port = self.telemetry.port_name(port),
            cause = failure.cause.label(),
            "connection failed: {}",
            failure.detail
        );
    }

    /// A bound was reached.
    pub fn limit_hit(&self, limit: Limit) {
        if let Some(place) = Limit::ALL.iter().position(|known| *known == limit) {
            self.shard.limits[place].add(1);
        }
    }

    /// A connection to the app was taken for a request: an idle one, or a new one.
    pub fn app_connection(&self, reused: bool) {
        self.shard.app_connections[usize::from(reused)].add(1);
    }

    /// An informational answer of the app could not be passed on over HTTP/2.
    pub fn dropped_informational(&self) {
        self.shard.informational_dropped.add(1);
    }

    /// An HTTP/2 connection ended in an error within the library, on the caller's side or the app's.
    pub fn http2_error(&self, side: Fault) {
        self.shard.http2_errors[usize::from(side == Fault::App)].add(1);
    }

    /// A rule denied something on a port; `enforced` where that is carried out.
    pub(crate) fn denied(&self, port: usize, rule: &str, enforced: bool) {
        self.telemetry.denied(port, rule, enforced);
    }

    /// A TLS handshake with a caller ended.
    pub fn handshake(&self, ended: Result<(), TlsFault>) {
        match ended {
            Ok(()) => self.shard.handshakes.add(1),
            Err(fault) => self.shard.handshake_faults[fault as usize].add(1),
        }
    }

    /// A TLS handshake with a service that the app calls ended.
    pub fn upstream_handshake(&self, ended: Result<(), TlsFault>) {
        match ended {
            Ok(()) => self.shard.upstream_handshakes.add(1),
            Err(fault) => self.shard.upstream_handshake_faults[fault as usize].add(1),
        }
    }

    /// What was found of a connection's first bytes: a protocol, or what the finding
    /// took.
    pub fn detected(&self, what: &str) {
        if let Some(place) = DETECTED.iter().position(|known| *known == what) {
            self.shard.detected[place].add(1);
        }
    }

    /// Accepting paused for want of file descriptors or memory.
    pub fn accept_backoff(&self) {
        self.shard.accept_backoffs.add(1);
    }

    /// Shows that this worker lives. To be called at least once a second.
    pub fn heartbeat(&self) {
        self.shard.heartbeat.set(self.telemetry.uptime_millis());
    }

    /// From now on requests that end without a word were cut by the drain deadline.
    pub fn cut(&self) {
        self.unfinished.set(Cause::DrainDeadline);
    }

    pub(crate) fn unfinished(&self) -> Cause {
        self.unfinished.get()
    }

    /// Hands what lines there are to the writer. To be called about four times a second; never waits.
    pub fn flush(&self) {
        let batch = &mut *self.batch.borrow_mut();
        if batch.lines == 0 {
            return;
        }
        let full = std::mem::replace(batch, self.lines.spare());
        match self.lines.send(full) {
            Ok(lines) => self.shard.log_lines.add(lines),
            Err(lines) => self.shard.log_dropped.add(lines),
        }
    }

    pub(crate) fn port(&self, port: usize) -> &PortShard {
        &self.shard.ports[port]
    }

    /// Writes a line, if its request is one to be told.
    pub(crate) fn write(&self, data: &Data, event: line::Event, now: Instant) {
        let mut settings = self.settings.borrow_mut();
        let settings = settings.load();
        if !self.tells(settings, data) {
            return;
        }
        let clock = &mut *self.clock.borrow_mut();
        let millis = clock.set(SystemTime::now());
        let mut batch = self.batch.borrow_mut();
        let moment = line::Moment { clock, millis, took: now.saturating_duration_since(data.started) };
        line::write(&mut batch.bytes, settings, &moment, event, data, self.telemetry.port_name(data.port));
        batch.lines += 1;
        let full = batch.bytes.len() >= FLUSH_BYTES;
        drop(batch);
        if full {
            self.flush();
        }
    }

    /// Errors are always told; of successes as many as are sampled, and none of an excluded path.
    fn tells(&self, settings: &Settings, data: &Data) -> bool {
        let log = &settings.access_log;
        data.is_error() || (!log.excludes(data.text(line::Text::Path)) && data.lot < log.sample_success)
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn draw_lot(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    pub(crate) fn take_data(&self) -> Option<Box<Data>> {
        self.spare.borrow_mut().pop()
    }

    pub(crate) fn give_data(&self, data: Box<Data>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_RECORDS {
            spare.push(data);
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    local: Rc<Local>,
    port: usize,
}

impl Connection {
    /// From here on it is another port's.
    pub fn assign(&mut self, port: usize) {
        let ports = &self.local.shard.ports;
        ports[self.port].connections_open.sub(1);
        ports[port].connections_open.add(1);
        ports[port].connections.add(1);
        self.port = port;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.local.shard.ports[self.port].connections_open.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_turn_it_is_one_time_until_somebody_looks() {
        let telemetry = Telemetry::start(Settings::default(), &["web"]).unwrap();
        let local = telemetry.worker();
        let begun = local.now();
        let passes = |since: Instant| while Instant::now() <= since {};
        passes(begun);
        assert!(local.now() > begun, "it was looked up outside of a turn");
        let looked = local.turn(|| {
            let first = local.now();
            passes(first);
            assert_eq!(local.now(), first);
            let looked = local.look();
            assert!(looked > first);
            passes(looked);
            assert_eq!(local.now(), looked);
            looked
        });
        assert!(local.now() > looked, "the turn is over");
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| local.turn(|| panic!("{:?}", local.now()))));
        assert!(panicked.is_err() && matches!(local.turn.get(), Turn::None), "a panic ends it as well");
    }
}
