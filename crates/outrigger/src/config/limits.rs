//! From keys to finished types: bounds on callers and on time.

use proxy::config::{Limits, Timeouts};

use super::raw;
use super::units::Time;

/// Bounds on what callers may use.
pub(super) fn limits(raw: &raw::Port, check: &mut dyn FnMut(&str, Option<String>)) -> Limits {
    let defaults = Limits::default();
    let head_bytes = raw.limits.head.bytes.map_or(defaults.head_bytes as u64, |size| size.0);
    let sane = (1 << 10..=1 << 20).contains(&head_bytes);
    check("limits.head.bytes", (!sane).then(|| format!("found {head_bytes} bytes, expected 1KiB to 1MiB")));
    let limits = Limits {
        connections: raw.limits.connections.unwrap_or(defaults.connections),
        head_bytes: usize::try_from(head_bytes).unwrap_or(usize::MAX),
        head_fields: raw.limits.head.fields.unwrap_or(defaults.head_fields),
        streams: raw.limits.streams.unwrap_or(defaults.streams),
        handshakes: raw.limits.handshakes.unwrap_or(defaults.handshakes),
    };
    let none = [
        ("limits.connections", limits.connections == 0),
        ("limits.head.fields", limits.head_fields == 0),
        ("limits.streams", limits.streams == 0),
        ("limits.handshakes", limits.handshakes == 0),
    ];
    for (key, zero) in none {
        check(key, zero.then(|| "found 0, expected at least 1".into()));
    }
    let times = [
        ("limits.head.timeout", raw.limits.head.timeout),
        ("limits.idle_timeout", raw.limits.idle_timeout),
        ("limits.body_timeout", raw.limits.body_timeout),
        ("limits.write_timeout", raw.limits.write_timeout),
        ("limits.handshake_timeout", raw.limits.handshake_timeout),
        ("limits.max_connection_age", raw.limits.max_connection_age),
        ("timeouts.connect", raw.timeouts.connect),
    ];
    for (key, time) in times {
        check(
            key,
            time.is_some_and(|time| time.0.is_zero())
                .then(|| "found no time at all, expected a duration such as 10s".into()),
        );
    }
    limits
}

/// Bounds on time.
pub(super) fn timeouts(limits: &raw::Limits, timeouts: &raw::Timeouts) -> Timeouts {
    let defaults = Timeouts::default();
    let or = |time: Option<Time>, default| time.map_or(default, |time| time.0);
    Timeouts {
        head: or(limits.head.timeout, defaults.head),
        idle: or(limits.idle_timeout, defaults.idle),
        body: or(limits.body_timeout, defaults.body),
        write: or(limits.write_timeout, defaults.write),
        handshake: or(limits.handshake_timeout, defaults.handshake),
        max_age: or(limits.max_connection_age, defaults.max_age),
        connect: or(timeouts.connect, defaults.connect),
        response: timeouts.response.map_or(defaults.response, |time| Some(time.0).filter(|time| !time.is_zero())),
        ..defaults
    }
}

/// Bounds on the time a service may take.
pub(super) fn service_timeouts(raw: &raw::ServiceTimeouts, check: &mut dyn FnMut(&str, Option<String>)) -> Timeouts {
    let given = [("connect", raw.connect), ("per_try", raw.per_try), ("request", raw.request)];
    for (key, time) in given {
        let zero = time.is_some_and(|time| time.0.is_zero());
        let message = || "found no time at all, expected a duration such as 10s; leave it out for no bound".into();
        check(&format!("timeouts.{key}"), zero.then(message));
    }
    let app = raw::Timeouts { connect: raw.connect, response: raw.response };
    Timeouts {
        per_try: raw.per_try.map(|time| time.0),
        request: raw.request.map(|time| time.0),
        ..timeouts(&raw::Limits::default(), &app)
    }
}
