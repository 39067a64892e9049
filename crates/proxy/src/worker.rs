//! A worker: one thread, one single-threaded runtime, and everything its connections share without locks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use geo::{Geo, Lookup};
use identity::Identity;
use model::{Edits, SpiffeId};
use net::dns::Resolver;
use net::{Buffers, Spare};
use telemetry::{Local, Telemetry, UpstreamState};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::Apps;
use crate::cluster::ClusterState;
use crate::config::{Port, Snapshot};
use crate::inbound::Slot;
use crate::lifecycle::{Lifecycle, Phase};
use crate::listener;
use crate::outbound::strangers::Strangers;
use crate::supervise::Tasks;

/// How much one sidecar takes on. Not reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Threads; at least one is started.
    pub workers: usize,
    /// Connections of callers open at once, over all ports. Each needs two file descriptors, one of them for the app: beyond
    /// this, new ones wait in the kernel's queue.
    pub connections: usize,
}

/// What all workers and the control thread share.
pub struct Shared {
    /// The configuration; see [`Shared::reload`].
    pub snapshot: ArcSwap<Snapshot>,
    /// Metrics and log.
    pub telemetry: Arc<Telemetry>,
    /// Where addresses are.
    pub geo: Arc<Geo>,
    /// Who we are, and whom we can check.
    pub identity: Arc<Identity>,
    /// Where names lead.
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) strangers: Strangers,
    /// Both ends of our own connections, where those could be redirected to ourselves.
    dialled: Mutex<HashSet<(SocketAddr, SocketAddr)>>,
    /// Serving, or on the way out.
    pub lifecycle: Lifecycle,
    reloads: watch::Sender<()>,
    peers: Mutex<BTreeMap<SpiffeId, usize>>,
    handshakes: AtomicUsize,
    max_open: usize,
    open: Vec<AtomicUsize>,
    accepting: AtomicUsize,
    loads: Vec<Load>,
}

/// One worker's queue of connections handed to it, and how many it has.
#[derive(Debug)]
struct Load {
    connections: AtomicUsize,
    inbox: mpsc::UnboundedSender<Handover>,
}

/// A connection on its way to the worker that will serve it.
type Handover = (usize, TcpStream, SocketAddr);

impl Shared {
    /// Counts a connection in, unless the port has as many as it may.
    pub(crate) fn admit_connection(&self, port: usize, limit: usize) -> bool {
        let admitted = self.open[port].fetch_add(1, Relaxed) < limit;
        if !admitted {
            self.release_connection(port);
        }
        admitted
    }

    /// Takes a new configuration into use: for the next request, and for opaque connections at once. Services that are
    /// configured as they were keep their state.
    pub fn reload(&self, mut snapshot: Snapshot) {
        snapshot.keep(&self.snapshot.load());
        self.snapshot.store(Arc::new(snapshot));
        self.reloads.send_replace(());
    }

    /// How the services that the app calls stand, by name.
    pub fn upstreams(&self) -> Vec<(Box<str>, bool, ClusterState)> {
        let services = |port: &Arc<Port>| {
            let cluster = port.upstream.service()?;
            Some((port.name.clone(), port.upstream.is_mesh(), cluster.state()))
        };
        self.snapshot.load().ports.iter().filter_map(services).collect()
    }

    /// Has the metrics tell how services stand now.
    pub fn report_upstreams(&self) {
        let state = |(name, mtls, state): (Box<str>, bool, ClusterState)| {
            let count = |fitness: &str| state.endpoints.iter().filter(|e| e.state == fitness).count();
            UpstreamState {
                name: name.into(),
                endpoints: ["healthy", "ejected", "probation"].map(|fitness| (fitness, count(fitness))),
                connections: state.connections,
                retries: [state.retries, state.over_budget],
                ejections: state.ejections,
                refused: state.refused,
                resolutions: [state.resolution.answers, state.resolution.failures],
                unbalanced: state.unbalanced,
                mtls,
            }
        };
        self.telemetry.upstreams(self.upstreams().into_iter().map(state).collect());
    }

    /// Identities that have connections of mutual TLS open to us, and how many.
    pub fn peers(&self) -> BTreeMap<SpiffeId, usize> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers a connection of ours while it is open.
    pub(crate) fn dialled(self: &Arc<Self>, here: SocketAddr, there: SocketAddr) -> Dialled {
        let ends = (here, there);
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).insert(ends);
        Dialled(self.clone(), ends)
    }

    /// Whether a connection that came from `peer` and was meant for `meant` is one of our own. The address it came from does not
    /// tell alone: the kernel gives one port to connections with different ends.
    pub(crate) fn is_ours(&self, peer: SocketAddr, meant: SocketAddr) -> bool {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).contains(&(peer, meant))
    }

    /// Counts a TLS handshake in, unless as many as may be are in progress.
    pub(crate) fn begin_handshake(&self, limit: usize) -> Option<Handshaking<'_>> {
        let handshaking = Handshaking(&self.handshakes);
        (self.handshakes.fetch_add(1, Relaxed) < limit).then_some(handshaking)
    }

    /// Whether as many connections are open as there are file descriptors for.
    pub(crate) fn is_full(&self) -> bool {
        self.open.iter().map(|open| open.load(Relaxed)).sum::<usize>() >= self.max_open
    }

    /// A listener was closed, and what waited in its queue placed.
    pub(crate) fn listener_closed(&self) {
        self.accepting.fetch_sub(1, Relaxed);
    }

    /// Whether no connection is placed with this worker, nor can be.
    fn nothing_comes(&self, worker: usize) -> bool {
        self.accepting.load(Relaxed) == 0 && self.loads[worker].connections.load(Relaxed) == 0
    }

    pub(crate) fn release_connection(&self, port: usize) {
        self.open[port].fetch_sub(1, Relaxed);
    }

    /// The worker with the fewest connections; the count includes the one about to come.
    pub(crate) fn least_loaded(&self) -> usize {
        let least = (0..self.loads.len()).min_by_key(|&i| self.loads[i].connections.load(Relaxed)).unwrap_or(0);
        self.loads[least].connections.fetch_add(1, Relaxed);
        least
    }

    pub(crate) fn hand_over(&self, worker: usize, port: usize, stream: TcpStream, addr: SocketAddr) {
        if self.loads[worker].inbox.send((port, stream, addr)).is_err() {
            // The worker is gone, and the process with it: see `Workers::join`.
            self.loads[worker].connections.fetch_sub(1, Relaxed);
            self.release_connection(port);
        }
    }
}

/// A TLS handshake in progress, counted until dropped.
pub(crate) struct Handshaking<'s>(&'s AtomicUsize);

impl Drop for Handshaking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Both ends of an open connection of ours.
pub(crate) struct Dialled(Arc<Shared>, (SocketAddr, SocketAddr));

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dialled").field(&self.1).finish()
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.0.dialled.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// A connection of a peer that has proven itself, counted until dropped.
pub(crate) struct OpenPeer(Arc<Shared>, SpiffeId);

impl OpenPeer {
    pub(crate) fn new(shared: &Arc<Shared>, id: &SpiffeId) -> Self {
        *shared.peers.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
        Self(shared.clone(), id.clone())
    }
}

impl Drop for OpenPeer {
    fn drop(&mut self) {
        let Self(shared, id) = self;
        let peers = &mut *shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = peers.get_mut(id) {
            *open -= 1;
            if *open == 0 {
                peers.remove(id);
            }
        }
    }
}

/// The worker threads.
pub struct Workers {
    /// What they share with the control thread.
    pub shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts workers on listeners from [`crate::bind`].
    ///
    /// # Errors
    /// What starting a thread gives. A worker that cannot build its runtime ends: see [`Workers::lost_one`].
    pub fn start(
        capacity: Capacity,
        snapshot: Snapshot,
        listeners: Vec<(usize, TcpListener)>,
        telemetry: Arc<Telemetry>,
        geo: Arc<Geo>,
        identity: Arc<Identity>,
        resolver: Resolver,
    ) -> io::Result<Self> {
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            (0..capacity.workers.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared {
            accepting: AtomicUsize::new(listeners.len()),
            max_open: capacity.connections,
            open: snapshot.ports.iter().map(|_| AtomicUsize::new(0)).collect(),
            snapshot: ArcSwap::from_pointee(snapshot),
            telemetry,
            geo,
            identity,
            resolver: Arc::new(resolver),
            strangers: Strangers::default(),
            dialled: Mutex::default(),
            reloads: watch::Sender::new(()),
            peers: Mutex::default(),
            handshakes: AtomicUsize::new(0),
            lifecycle: Lifecycle::default(),
            loads: senders.into_iter().map(|inbox| Load { connections: AtomicUsize::new(0), inbox }).collect(),
        });
        let mut listeners = Some(listeners);
        let mut threads = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            // The first worker accepts for all: a connection costs it one accept, a request of another's nothing.
            let listeners = listeners.take().unwrap_or_default();
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
                    Ok(runtime) => runtime.block_on(Worker::run(shared, index, listeners, inbox)),
                    Err(e) => tracing::error!("worker {index} cannot start: {e}"),
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { shared, threads })
    }

    /// Whether every worker has ended, as they do once the sidecar is closing and their last connection is gone.
    pub fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Whether a worker has ended although the sidecar is not closing: a fault that only a restart mends.
    pub fn lost_one(&self) -> bool {
        self.shared.lifecycle.phase() < Phase::Closing && self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits for every worker's end. Blocks; `false` where one panicked.
    pub fn join(self) -> bool {
        let ended: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        ended.iter().all(Result::is_ok)
    }
}

/// Bytes of the scratch buffer that bodies are read into: one per worker, lent for the length of a poll. Four whole TLS records, the
/// last with its type behind it.
const SCRATCH_BYTES: usize = 64 * 1024 + 1;
/// Bytes of an answer up to which more is looked for before they are sent: a head, and the buffer that it came in.
pub(crate) const GATHERED: usize = 16 * 1024;
/// How often a worker shows that it lives, hands its log lines on and looks after idle app connections.
const TICK: Duration = Duration::from_millis(250);

/// What the connections of one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) telemetry: Rc<Local>,
    pub(crate) lookup: RefCell<Lookup>,
    pub(crate) apps: Apps,
    pub(crate) buffers: Buffers,
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) edits: RefCell<Edits>,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) tasks: Tasks,
    // What requests need for their own length only: an idle connection has none of it. In boxes: a request's futures hand them on
    // several times.
    pub(crate) request_heads: Spare<Box<h1::RequestHead>>,
    pub(crate) response_heads: Spare<Box<h1::ResponseHead>>,
    pub(crate) requests: Spare<Slot>,
    memory: Spare<Vec<u8>>,
    handshake_turns: Semaphore,
    snapshot: RefCell<arc_swap::Cache<SnapshotRef, Arc<Snapshot>>>,
    phase: Cell<Phase>,
}

/// Lets a worker cache the snapshot: one atomic load per request.
struct SnapshotRef(Arc<Shared>);

impl std::ops::Deref for SnapshotRef {
    type Target = ArcSwap<Snapshot>;
    fn deref(&self) -> &ArcSwap<Snapshot> {
        &self.0.snapshot
    }
}

impl Worker {
    async fn run(
        shared: Arc<Shared>,
        index: usize,
        listeners: Vec<(usize, TcpListener)>,
        mut inbox: mpsc::UnboundedReceiver<Handover>,
    ) {
        let mut phases = shared.lifecycle.subscribe();
        let mut reloads = shared.reloads.subscribe();
        let worker = Rc::new(Self {
            index,
            telemetry: shared.telemetry.worker(),
            lookup: RefCell::new(Lookup::new(shared.geo.clone())),
            apps: Apps::default(),
            buffers: Buffers::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            edits: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            tasks: Tasks::default(),
            request_heads: Spare::default(),
            response_heads: Spare::default(),
            requests: Spare::default(),
            memory: Spare::default(),
            handshake_turns: Semaphore::new(1),
            snapshot: RefCell::new(arc_swap::Cache::new(SnapshotRef(shared.clone()))),
            phase: Cell::new(Phase::Serving),
            shared,
        });
        for (port, listener) in listeners {
            tokio::task::spawn_local(listener::accept(worker.clone(), listener, port));
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((port, stream, addr)) = inbox.recv() => listener::serve(&worker, port, stream, addr),
                Ok(()) = phases.changed() => {
                    worker.phase.set(*phases.borrow_and_update());
                    if worker.phase() == Phase::Cut {
                        worker.telemetry.cut();
                    }
                    worker.tasks.wake_all();
                }
                Ok(()) = reloads.changed() => worker.tasks.wake_all(),
                _ = tick.tick() => worker.tick(),
            }
            if worker.phase() >= Phase::Closing && worker.shared.nothing_comes(index) && worker.tasks.len() == 0 {
                break;
            }
        }
        worker.telemetry.flush();
    }

    fn tick(&self) {
        self.telemetry.heartbeat();
        self.telemetry.flush();
        self.apps.sweep();
        self.buffers.settle();
        self.request_heads.settle();
        self.response_heads.settle();
        self.requests.settle();
        self.memory.settle();
    }

    /// Waits for this connection's turn to do what costs much: one step of one handshake at a time.
    pub(crate) async fn handshake_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.handshake_turns.acquire().await.ok()
    }

    /// The time, as of the turn that a connection has just now: good for bounds and ages.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_std(self.telemetry.now())
    }

    /// Memory to write a head into.
    pub(crate) fn take_memory(&self) -> Vec<u8> {
        self.memory.take().unwrap_or_default()
    }

    /// Gives such memory back, unless it has grown beyond a head's size.
    pub(crate) fn give_memory(&self, mut memory: Vec<u8>) {
        if memory.capacity() <= Buffers::BYTES {
            memory.clear();
            self.memory.give(memory);
        }
    }

    /// The configuration as of now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow_mut().load().clone()
    }

    /// The configuration of a port, as of now.
    pub(crate) fn port(&self, index: usize) -> Arc<Port> {
        self.snapshot.borrow_mut().load().ports[index].clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether answers should ask the caller to close.
    pub(crate) fn is_leaving(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    pub(crate) fn connection_ended(&self) {
        self.shared.loads[self.index].connections.fetch_sub(1, Relaxed);
    }
}
