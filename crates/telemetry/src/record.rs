//! One request's record, from its first byte to its last.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use model::{Cause, ClientAddr, Code, Direction, Facts, Failure, PeerAddr, Place, Scheme, Scope, Version};

use crate::country;
use crate::line::{Event, Text};
use crate::local::Local;
use crate::shard::{METHODS, method_index};

/// What is known of a request so far. Dropped, it writes the line and the metrics: every exit is told, and each once.
#[derive(Debug)]
pub struct Record {
    local: Rc<Local>,
    /// Taken out only by the drop.
    data: Option<Box<Data>>,
}

/// Bytes of each text at most: enough to find a request by, not enough to fill a disk with.
const MAX_PATH: usize = 2048;
const MAX_TEXT: usize = 512;

/// All that a line may tell.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) port: usize,
    pub(crate) started: Instant,
    pub(crate) peer: PeerAddr,
    pub(crate) client: ClientAddr,
    pub(crate) method: usize,
    pub(crate) version: Option<Version>,
    pub(crate) scheme: Scheme,
    pub(crate) direction: Direction,
    pub(crate) country: Option<Code>,
    pub(crate) scope: Scope,
    pub(crate) asn: Option<u32>,
    pub(crate) trace: Option<([u8; 16], [u8; 8])>,
    pub(crate) status: Option<u16>,
    pub(crate) cause: Option<Cause>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) ejected: Option<SocketAddr>,
    pub(crate) over_budget: bool,
    /// Where it went, and whether over mutual TLS.
    pub(crate) upstream: Option<(SocketAddr, bool)>,
    pub(crate) stream: Option<&'static str>,
    /// A rule denied it; whether that was carried out.
    pub(crate) denied: Option<bool>,
    /// Where this request falls among those that sampling keeps, 0 to 1: drawn once, so that all its lines are told or none.
    pub(crate) lot: f64,
    /// A line was written before the last.
    has_line: bool,
    /// Bytes received and sent that the metrics have.
    counted: (u64, u64),
    finished: bool,
    has_query: bool,
    country_place: Option<usize>,
    texts: Vec<u8>,
    spans: [(u32, u32); Text::COUNT],
}

impl Record {
    /// Begins a request whose first byte is there. The client is who the connection alone says it is.
    pub fn begin(local: &Rc<Local>, port: usize, peer: PeerAddr, client: ClientAddr) -> Self {
        local.port(port).in_flight.add(1);
        let started = local.look();
        let mut data = match local.take_data() {
            Some(mut data) => {
                data.begin(port, started, peer, client);
                data
            }
            None => Box::new(Data::new(port, started, peer, client)),
        };
        data.lot = local.draw_lot();
        Self { local: local.clone(), data: Some(data) }
    }

    /// From here on it is another port's request.
    pub fn assign(&mut self, port: usize) {
        let Some(data) = &mut self.data else { return };
        self.local.port(data.port).in_flight.sub(1);
        self.local.port(port).in_flight.add(1);
        data.port = port;
    }

    /// The name that the caller's TLS asks for, where nobody looks further.
    pub fn server_name(&mut self, name: &str) {
        self.with(|data| data.set(Text::Authority, name.as_bytes(), MAX_TEXT));
    }

    /// Notes who asks, from where, and for what.
    pub fn facts(&mut self, facts: &Facts<'_>) {
        let Some(data) = &mut self.data else { return };
        data.client = facts.client;
        data.direction = facts.direction;
        if let Some(identity) = facts.identity {
            data.set(Text::Identity, identity.as_str().as_bytes(), MAX_PATH);
        }
        self.place(facts.place);
        let (Some(data), Some(head)) = (&mut self.data, facts.head) else { return };
        data.method = method_index(head.method);
        data.version = Some(head.version);
        data.scheme = head.scheme;
        data.set(Text::Method, head.method.as_bytes(), MAX_TEXT);
        data.set(Text::Path, head.path.as_bytes(), MAX_PATH);
        data.has_query = head.query.is_some();
        data.set(Text::Query, head.query.unwrap_or_default().as_bytes(), MAX_PATH);
        data.set(Text::Authority, head.authority.as_bytes(), MAX_TEXT);
        data.set(Text::UserAgent, head.user_agent.unwrap_or_default(), MAX_TEXT);
        data.set(Text::Referer, head.referer.unwrap_or_default(), MAX_TEXT);
    }

    /// A rule denied the request; `enforced` where that is carried out.
    pub fn denied(&mut self, rule: &str, enforced: bool) {
        let Some(data) = &mut self.data else { return };
        data.set(Text::Rule, rule.as_bytes(), MAX_TEXT);
        data.denied = Some(enforced);
        self.local.denied(data.port, rule, enforced);
    }

    /// Notes where the client is.
    pub fn place(&mut self, place: &Place) {
        let Some(data) = &mut self.data else { return };
        data.country = place.country;
        data.scope = place.scope;
        data.asn = place.asn;
        data.country_place = Some(country::place_of(place));
        for (text, value) in
            [(Text::Region, &place.region), (Text::City, &place.city), (Text::Organization, &place.organization)]
        {
            data.set(text, value.as_deref().unwrap_or_default().as_bytes(), MAX_TEXT);
        }
    }

    /// Notes the caller's trace and the span this request is a child of.
    pub fn trace(&mut self, trace_id: [u8; 16], parent_id: [u8; 8]) {
        self.with(|data| data.trace = Some((trace_id, parent_id)));
    }

    /// Notes the request's ID.
    pub fn request_id(&mut self, id: &[u8]) {
        self.with(|data| data.set(Text::RequestId, id, MAX_TEXT));
    }

    /// A connection to the app is there; `reused` where another request used it before.
    pub fn app(&mut self, reused: bool) {
        self.with(|data| data.set(Text::App, if reused { b"reused" } else { b"new" }, MAX_TEXT));
    }

    /// The request was sent so many times more, for these reasons.
    pub fn retried(&mut self, times: u32, reasons: &str) {
        self.local.shard.retries.add(u64::from(times));
        self.with(|data| {
            data.retries += times;
            data.set(Text::RetryReasons, reasons.as_bytes(), MAX_TEXT);
        });
    }

    /// What happened to the request had an endpoint ejected.
    pub fn ejected(&mut self, endpoint: SocketAddr, reason: &str) {
        self.with(|data| {
            data.ejected = Some(endpoint);
            data.set(Text::EjectedFor, reason.as_bytes(), MAX_TEXT);
        });
    }

    /// The request was worth another try, and the retry budget was empty.
    pub fn retry_refused(&mut self) {
        self.with(|data| data.over_budget = true);
    }

    /// Protocols that the caller's TLS offers, the most wanted first.
    pub fn alpn(&mut self, offered: &[Vec<u8>]) {
        self.with(|data| data.set(Text::Alpn, &offered.join(&b","[..]), MAX_TEXT));
    }

    /// Where the request went in the end; `mtls` where the other end proved who it is.
    pub fn upstream(&mut self, addr: SocketAddr, mtls: bool) {
        self.with(|data| data.upstream = Some((addr, mtls)));
    }

    /// The answer's head is there.
    pub fn responded(&mut self, status: u16) {
        let now = self.local.now();
        self.with(|data| {
            data.status = Some(status);
            data.first_byte = Some(now.saturating_duration_since(data.started));
        });
    }

    /// Body bytes came from the caller.
    pub fn received(&mut self, bytes: u64) {
        self.with(|data| data.received += bytes);
    }

    /// Body bytes went to the caller.
    pub fn sent(&mut self, bytes: u64) {
        self.with(|data| data.sent += bytes);
    }

    /// The request failed. The first cause counts: what follows from it is not another.
    pub fn fail(&mut self, failure: &Failure) {
        self.with(|data| {
            if data.cause.is_none() {
                data.cause = Some(failure.cause);
                data.set(Text::Detail, failure.detail.as_bytes(), MAX_TEXT);
            }
        });
    }

    /// The answer was sent to its end.
    pub fn finished(&mut self) {
        self.with(|data| data.finished = true);
    }

    /// What is told of is a connection, not a request: it counts as none.
    pub fn opaque(&mut self) {
        self.with(|data| data.stream = Some("tcp"));
    }

    /// The request has become a stream that may live long: its start gets a line now. `kind` such as `websocket` or `sse`.
    pub fn stream(&mut self, kind: &'static str) {
        self.with(|data| data.stream = Some(kind));
        self.tell(Event::Start);
    }

    /// A request is still under way after a minute, and another: a line with what it carried so far, which the metrics
    /// are told as well.
    pub fn interval(&mut self) {
        self.count_bytes();
        self.tell(Event::Interval);
    }

    fn tell(&mut self, event: Event) {
        if let Some(data) = &mut self.data {
            data.has_line = true;
            self.local.write(data, event, self.local.look());
        }
    }

    fn count_bytes(&mut self) {
        let Some(data) = &mut self.data else { return };
        let shard = self.local.port(data.port);
        let (received, sent) = std::mem::replace(&mut data.counted, (data.received, data.sent));
        shard.received.add(data.received - received);
        shard.sent.add(data.sent - sent);
    }

    fn with(&mut self, change: impl FnOnce(&mut Data)) {
        if let Some(data) = &mut self.data {
            change(data);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count_bytes();
        let Some(mut data) = self.data.take() else { return };
        let shard = self.local.port(data.port);
        shard.in_flight.sub(1);
        if !data.finished && data.cause.is_none() {
            data.cause = Some(self.local.unfinished());
        }
        if let Some(cause) = data.cause {
            self.local.shard.error(cause);
        }
        let now = self.local.now();
        if data.is_http() {
            shard.request(data.method, data.status(), now.saturating_duration_since(data.started));
            if data.direction == Direction::Inbound {
                let place = data.country_place.unwrap_or(country::PLACES - 1);
                self.local.shard.countries[place].add(1);
            }
        }
        let event = if data.has_line { Event::End } else { Event::Request };
        self.local.write(&data, event, now);
        self.local.give_data(data);
    }
}

impl Data {
    fn new(port: usize, started: Instant, peer: PeerAddr, client: ClientAddr) -> Self {
        Self {
            port,
            started,
            peer,
            client,
            method: METHODS.len() - 1,
            version: None,
            scheme: Scheme::Http,
            direction: Direction::Inbound,
            country: None,
            scope: Scope::of(client.ip),
            asn: None,
            trace: None,
            status: None,
            cause: None,
            received: 0,
            sent: 0,
            first_byte: None,
            retries: 0,
            ejected: None,
            over_budget: false,
            upstream: None,
            stream: None,
            denied: None,
            lot: 0.0,
            has_line: false,
            counted: (0, 0),
            finished: false,
            has_query: false,
            country_place: None,
            texts: Vec::new(),
            spans: [(0, 0); Text::COUNT],
        }
    }

    /// Begins anew, keeping the memory.
    fn begin(&mut self, port: usize, started: Instant, peer: PeerAddr, client: ClientAddr) {
        let mut texts = std::mem::take(&mut self.texts);
        texts.clear();
        *self = Self { texts, ..Self::new(port, started, peer, client) };
    }

    fn set(&mut self, text: Text, value: &[u8], limit: usize) {
        let start = self.texts.len();
        self.texts.extend_from_slice(&value[..value.len().min(limit)]);
        let offset = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.spans[text as usize] = (offset(start), offset(self.texts.len()));
    }

    /// A text as received, cut at its bound; empty where there is none.
    pub(crate) fn text(&self, text: Text) -> &[u8] {
        let (start, end) = self.spans[text as usize];
        &self.texts[start as usize..end as usize]
    }

    pub(crate) fn has_query(&self) -> bool {
        self.has_query
    }

    /// The status answered with, or the one the failure stands for.
    pub(crate) fn status(&self) -> u16 {
        self.status.or(self.cause.map(Cause::status)).unwrap_or(499)
    }

    /// The status a line tells: none for opaque bytes, nor for a stream that has none yet.
    pub(crate) fn status_told(&self, event: Event) -> Option<u16> {
        match event {
            Event::Start | Event::Interval => self.status,
            Event::Request | Event::End => self.is_http().then(|| self.status()),
        }
    }

    /// Opaque bytes have no method and no status.
    pub(crate) fn is_http(&self) -> bool {
        self.stream != Some("tcp")
    }

    pub(crate) fn is_error(&self) -> bool {
        self.cause.is_some() || self.status.is_some_and(|status| status >= 400)
    }

    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }
}
