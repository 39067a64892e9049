//! Records against the library's own, and against what no peer may send.

use std::io::{IoSlice, Write};

use proptest::prelude::*;
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConnection, Error, SupportedCipherSuite};

use super::{ALERT, APPLICATION_DATA as DATA, Fault, HANDSHAKE, MAX_RECORD, Records, record_end, room};
use crate::tls::Handshake;
use crate::tls::tests::{SUITES, bytes, configs, get, give, name};

/// The records of both ends of a connection: the client's and the server's.
fn pair(suite: SupportedCipherSuite) -> (Records, Records) {
    let (client, server) = configs(suite, &TLS13);
    Handshake::agree(Handshake::client(client, name()).unwrap(), Handshake::server(server).unwrap()).unwrap()
}

/// The library as the client of ours.
fn library(suite: SupportedCipherSuite) -> (ClientConnection, Records) {
    let (client, server) = configs(suite, &TLS13);
    let (mut client, mut server) = (ClientConnection::new(client, name()).unwrap(), Handshake::server(server).unwrap());
    let (mut is_over, mut data) = (false, Vec::new());
    while client.is_handshaking() || client.wants_write() || !is_over {
        server.receive(&get(&mut client));
        let mut wire = Vec::new();
        is_over = server.advance(&mut wire, &mut data).unwrap();
        give(&mut client, &wire);
    }
    (client, server.into_records().unwrap().0)
}

/// The data in whole records.
fn open_all(records: &mut Records, mut wire: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut data = Vec::new();
    while let Some(end) = record_end(wire)? {
        let mut into = vec![0xaa; room(&wire[..end])];
        let n = records.open(&wire[..end], &mut into)?;
        data.extend_from_slice(&into[..n]);
        wire = &wire[end..];
    }
    assert_eq!(wire, b"");
    Ok(data)
}

fn sealed(records: &mut Records, parts: &[&[u8]]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut wire = Vec::new();
    let taken = records.seal(&parts, &mut wire).unwrap();
    assert_eq!(taken, parts.iter().map(|part| part.len()).sum::<usize>().min(64 * 1024));
    wire
}

/// A record of any type and content.
fn record(records: &mut Records, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    records.record(kind, &mut wire, |wire| wire.extend_from_slice(content)).unwrap();
    wire
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_one_end_seals_the_other_opens(
        suite in 0..SUITES.len(),
        writes in prop::collection::vec((any::<bool>(), prop::collection::vec(0..20_000usize, 0..5)), 1..8),
    ) {
        let (mut client, mut server) = pair(SUITES[suite]);
        for (by_client, lengths) in writes {
            let (from, to) = if by_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let parts: Vec<_> = lengths.iter().map(|length| bytes(*length)).collect();
            let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
            let wire = sealed(from, &parts);
            let whole = parts.concat();
            prop_assert!(open_all(to, &wire).unwrap() == whole[..whole.len().min(64 * 1024)]);
        }
    }

    #[test]
    fn a_record_that_was_touched_is_refused(
        suite in 0..SUITES.len(),
        length in 0..300usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (mut client, mut server) = pair(SUITES[suite]);
        let mut wire = record(&mut client, DATA, &bytes(length));
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        let opened = match record_end(&wire) {
            Ok(Some(end)) => {
                let mut into = vec![0; room(&wire[..end])];
                server.open(&wire[..end], &mut into).map(|_| ())
            }
            // A length that more bytes have to come for.
            Ok(None) => return Ok(()),
            Err(fault) => Err(fault),
        };
        prop_assert!(opened.is_err());
    }
}

#[test]
fn one_write_is_as_few_records_as_can_be() {
    let (mut client, _) = pair(SUITES[0]);
    for (parts, count) in
        [(vec![100, 900], 1), (vec![0, 16_384, 0], 1), (vec![16_000, 385], 2), (vec![40_000], 3), (vec![0], 0)]
    {
        let parts: Vec<_> = parts.into_iter().map(bytes).collect();
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        let wire = sealed(&mut client, &parts);
        let (mut rest, mut records) = (&wire[..], 0);
        while let Some(end) = record_end(rest).unwrap() {
            (rest, records) = (&rest[end..], records + 1);
        }
        assert_eq!(records, count);
    }
}

#[test]
fn the_library_and_we_understand_each_other_across_key_updates_and_to_the_end() {
    for suite in SUITES {
        let (mut client, mut ours) = library(suite);
        for round in 0..40 {
            let data = bytes(round * 997);
            assert!(give(&mut client, &sealed(&mut ours, &[b"before ", &data])) == [b"before ", &data[..]].concat());
            assert!(!ours.owes_update);
            client.writer().write_all(&data).unwrap();
            if round % 3 == 1 {
                // Asks us for one in return.
                client.refresh_traffic_keys().unwrap();
                client.writer().write_all(b"behind it").unwrap();
            }
            let read = open_all(&mut ours, &get(&mut client)).unwrap();
            assert!(read.starts_with(&data) && read.len() == data.len() + if round % 3 == 1 { 9 } else { 0 });
            assert_eq!(ours.owes_update, round % 3 == 1);
        }
        client.send_close_notify();
        assert!(!ours.ended());
        assert_eq!(open_all(&mut ours, &get(&mut client)).unwrap(), b"");
        assert!(ours.ended());
        let mut end = sealed(&mut ours, &[b"last"]);
        ours.seal_end(&mut end).unwrap();
        let length = end.len();
        ours.seal_end(&mut end).unwrap();
        assert_eq!(end.len(), length, "said once");
        let mut end = &end[..];
        client.read_tls(&mut end).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn keys_are_changed_before_they_protect_more_records_than_they_may() {
    let (mut client, mut ours) = library(SUITES[0]);
    assert_eq!(ours.limit, 1 << 24);
    ours.limit = 5;
    for _ in 0..23 {
        let wire = sealed(&mut ours, &[&[1]]);
        assert_eq!(give(&mut client, &wire), [1]);
        assert!(ours.sealing.sequence < 5);
    }
    let wire = sealed(&mut ours, &[&bytes(64 * 1024)]);
    assert!(give(&mut client, &wire) == bytes(64 * 1024));
}

#[test]
fn what_no_peer_may_send_is_answered_by_the_alert_for_it() {
    use AlertDescription as A;
    let update = [24, 0, 0, 1, 0];
    let long = bytes(16_385);
    type Sent<'s> = &'s [(u8, &'s [u8])];
    let cases: [(Sent, A); 19] = [
        (&[(20, &[1])], A::UnexpectedMessage),
        (&[(24, b"heartbeat")], A::UnexpectedMessage),
        (&[(0, b"")], A::UnexpectedMessage),
        (&[(0, &[0; 300])], A::UnexpectedMessage),
        (&[(DATA, &long)], A::RecordOverflow),
        (&[(HANDSHAKE, b"")], A::UnexpectedMessage),
        (&[(HANDSHAKE, &[20, 0, 0, 0])], A::UnexpectedMessage),
        (&[(HANDSHAKE, &[1, 0, 0, 1, 0])], A::UnexpectedMessage),
        // A ticket, to a server.
        (&[(HANDSHAKE, &[4, 0, 0, 1, 0])], A::UnexpectedMessage),
        (&[(HANDSHAKE, &[24, 1, 0, 0])], A::DecodeError),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 2])], A::IllegalParameter),
        (&[(HANDSHAKE, &[24, 0, 0, 2, 0, 0])], A::DecodeError),
        (&[(HANDSHAKE, &[24, 0, 0, 0])], A::DecodeError),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 0, 24])], A::UnexpectedMessage),
        (&[(HANDSHAKE, &update[..3]), (DATA, b"between")], A::UnexpectedMessage),
        (&[(HANDSHAKE, &update[..3]), (ALERT, &[1, 0])], A::UnexpectedMessage),
        (&[(ALERT, &[1])], A::DecodeError),
        (&[(ALERT, &[1, 0, 0])], A::DecodeError),
        (&[(ALERT, &[3, 0])], A::DecodeError),
    ];
    for (sent, alert) in cases {
        let (mut client, mut server) = pair(SUITES[0]);
        let wire: Vec<u8> = sent.iter().flat_map(|(kind, content)| record(&mut client, *kind, content)).collect();
        assert_eq!(open_all(&mut server, &wire).unwrap_err().alert, Some(alert), "{sent:?}");
    }
    let plain: [(&[u8], A); 5] = [
        (&[21, 3, 3, 0, 2, 1, 0], A::UnexpectedMessage),
        (&[20, 3, 3, 0, 1, 1], A::UnexpectedMessage),
        (&[23, 3, 3, 0x41, 0x01], A::RecordOverflow),
        (b"GET / HTTP/1.1\r\n", A::UnexpectedMessage),
        (&[23, 3, 3, 0, 0], A::BadRecordMac),
    ];
    for (wire, alert) in plain {
        let (_, mut server) = pair(SUITES[0]);
        assert_eq!(open_all(&mut server, wire).unwrap_err().alert, Some(alert), "{wire:?}");
    }
}

#[test]
fn records_again_and_out_of_turn_are_refused() {
    let (mut client, mut server) = pair(SUITES[0]);
    let [first, second] = [b"1", b"2"].map(|data| record(&mut client, DATA, data));
    assert_eq!(open_all(&mut server, &first).unwrap(), b"1");
    assert_eq!(open_all(&mut server, &first).unwrap_err().alert, Some(AlertDescription::BadRecordMac));
    assert_eq!(open_all(&mut server, &second).unwrap(), b"2");
    let [_, third] = [b"1", b"2"].map(|data| record(&mut client, DATA, data));
    assert_eq!(open_all(&mut server, &third).unwrap_err().alert, Some(AlertDescription::BadRecordMac));
}

#[test]
fn what_a_peer_may_send_is_taken() {
    let (mut client, mut server) = pair(SUITES[0]);
    // Padding, and nothing but padding behind the type.
    let mut padded = b"padded".to_vec();
    padded.push(DATA);
    padded.extend([0; 100]);
    let (kind, content) = (padded.pop().unwrap(), padded);
    assert_eq!(open_all(&mut server, &record(&mut client, kind, &content)).unwrap(), b"padded");
    assert_eq!(open_all(&mut server, &record(&mut client, DATA, b"")).unwrap(), b"");
    assert_eq!(open_all(&mut server, &record(&mut client, DATA, &bytes(16_384))).unwrap(), bytes(16_384));
    // A key update in pieces.
    assert_eq!(open_all(&mut server, &record(&mut client, HANDSHAKE, &[24, 0])).unwrap(), b"");
    assert_eq!(open_all(&mut server, &record(&mut client, HANDSHAKE, &[0, 1, 0])).unwrap(), b"");
    assert_eq!(server.message.capacity(), 0, "and its memory is gone");
    // The keys are others now.
    let old = record(&mut client, DATA, b"old");
    assert_eq!(open_all(&mut server, &old).unwrap_err().alert, Some(AlertDescription::BadRecordMac));
    // Two messages to a client in one record, one of them for nobody.
    let (mut client, mut server) = pair(SUITES[0]);
    let wire = record(&mut server, HANDSHAKE, &[4, 0, 0, 2, 9, 9, 4, 0, 0, 0]);
    assert_eq!(open_all(&mut client, &wire).unwrap(), b"");
}

#[test]
fn alerts_end_what_they_should() {
    let (mut client, mut server) = pair(SUITES[0]);
    assert_eq!(open_all(&mut server, &record(&mut client, ALERT, &[1, 90])).unwrap(), b"");
    assert!(!server.ended());
    assert_eq!(open_all(&mut server, &record(&mut client, ALERT, &[1, 0])).unwrap(), b"");
    assert!(server.ended());
    for (level, description) in [(2, 42), (1, 42), (2, 90), (2, 116)] {
        let (mut client, mut server) = pair(SUITES[0]);
        let fault = open_all(&mut server, &record(&mut client, ALERT, &[level, description])).unwrap_err();
        assert_eq!((fault.error, fault.alert), (Error::AlertReceived(description.into()), None));
    }
}

#[test]
fn a_peer_that_sends_everything_but_data_is_refused() {
    let empty = |client: &mut Records, wire: &mut Vec<u8>| client.record(DATA, wire, |_| {}).unwrap();
    let warning = |client: &mut Records, wire: &mut Vec<u8>| {
        client.record(ALERT, wire, |wire| wire.extend_from_slice(&[1, 90])).unwrap();
    };
    let update = |client: &mut Records, wire: &mut Vec<u8>| client.update_sealing(wire).unwrap();
    for send in [&empty as &dyn Fn(&mut Records, &mut Vec<u8>), &warning, &update] {
        let (mut client, mut server) = pair(SUITES[0]);
        for _ in 0..2 {
            for _ in 0..32 {
                let mut wire = Vec::new();
                send(&mut client, &mut wire);
                assert_eq!(open_all(&mut server, &wire).unwrap(), b"");
            }
            assert_eq!(open_all(&mut server, &record(&mut client, DATA, b"data")).unwrap(), b"data");
        }
        let mut wire = Vec::new();
        for _ in 0..32 {
            send(&mut client, &mut wire);
        }
        assert_eq!(open_all(&mut server, &wire).unwrap(), b"");
        let mut wire = Vec::new();
        send(&mut client, &mut wire);
        let fault = open_all(&mut server, &wire).unwrap_err();
        assert_eq!(fault.alert, Some(AlertDescription::UnexpectedMessage));
    }
}

#[test]
fn an_end_is_one_however_little_came_before() {
    let (mut client, mut server) = pair(SUITES[0]);
    let mut wire = Vec::new();
    for _ in 0..32 {
        client.record(DATA, &mut wire, |_| {}).unwrap();
    }
    client.seal_end(&mut wire).unwrap();
    assert_eq!(open_all(&mut server, &wire).unwrap(), b"");
    assert!(server.ended());
}

#[test]
fn a_record_fits_where_records_are_read_to() {
    let (mut client, _) = pair(SUITES[0]);
    assert!(record(&mut client, DATA, &bytes(16_384)).len() <= MAX_RECORD);
}
