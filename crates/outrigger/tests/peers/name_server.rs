//! A name server in a pod, which says what it is told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use crate::pods::Pods;

/// What is said of a name.
#[derive(Clone)]
pub(crate) enum Says {
    /// Addresses of either family, for a second.
    Addresses(Vec<IpAddr>),
    /// One or the other of two addresses, in turn, for a second each.
    InTurn([IpAddr; 2]),
    /// Nothing at all: no packet comes back.
    Silence,
    /// That the server has failed.
    Failure,
}

/// Answers questions for addresses at port 53 of a pod, over UDP and TCP. Names that nothing is said of do not exist.
#[derive(Clone, Default)]
pub(crate) struct NameServer {
    says: Arc<Mutex<HashMap<String, Says>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

const A: u16 = 1;
const AAAA: u16 = 28;
const CUT: u8 = 2;

impl NameServer {
    pub(crate) fn new(pods: &mut Pods, side: char) -> Self {
        let server = Self::default();
        let (over_tcp, over_udp) = (server.clone(), server.clone());
        let socket = pods.enter(side, || UdpSocket::bind("0.0.0.0:53").unwrap());
        // It ends with the process, when nobody's namespace is left to ask.
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                let Some(mut reply) = over_udp.reply(&query[..n]) else { continue };
                if reply.len() > 1232 {
                    // Too long for a datagram: cut before the first record, and marked as cut (RFC 1035, 4.1.1).
                    reply.truncate(question_end(&reply));
                    reply[2] |= CUT;
                    reply[6..12].fill(0);
                }
                let _ = socket.send_to(&reply, from);
            }
        });
        pods.serve(side, "0.0.0.0:53", move |mut stream| while over_tcp.answer(&mut stream).is_some() {});
        server
    }

    pub(crate) fn say(&self, name: &str, says: Says) {
        self.says.lock().unwrap().insert(name.into(), says);
    }

    pub(crate) fn say_address(&self, name: &str, address: &str) {
        self.say(name, Says::Addresses(vec![address.parse().unwrap()]));
    }

    /// The names whose IPv4 addresses were asked for, in that order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn times_asked(&self, name: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == name).count()
    }

    fn answer(&self, stream: &mut TcpStream) -> Option<()> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let reply = self.reply(&query)?;
        let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &reply].concat()).ok()
    }

    fn reply(&self, query: &[u8]) -> Option<Vec<u8>> {
        let end = question_end(query);
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let length = usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
            at += length + 1;
        }
        let (name, kind) = (labels.join("."), u16::from_be_bytes([query[end - 4], query[end - 3]]));
        let mut asked = self.asked.lock().unwrap();
        if kind == A {
            asked.push(name.clone());
        }
        let times = asked.iter().filter(|asked| **asked == name).count();
        drop(asked);
        let (code, addresses) = match self.says.lock().unwrap().get(&name).cloned() {
            Some(Says::Addresses(addresses)) => (0, addresses),
            Some(Says::InTurn(two)) => (0, vec![two[times % 2]]),
            Some(Says::Silence) => return None,
            Some(Says::Failure) => (2, Vec::new()),
            None => (3, Vec::new()),
        };
        let data: Vec<Vec<u8>> = addresses
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(ip) => (kind == A).then(|| ip.octets().to_vec()),
                IpAddr::V6(ip) => (kind == AAAA).then(|| ip.octets().to_vec()),
            })
            .collect();
        let mut reply = query[..end].to_vec();
        (reply[2], reply[3]) = (0x85, 0x80 | code);
        reply[6..8].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        reply[8..12].fill(0);
        for data in data {
            reply.extend([0xc0, 12]);
            reply.extend(kind.to_be_bytes());
            reply.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).unwrap()]);
            reply.extend(data);
        }
        Some(reply)
    }
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += usize::from(message[at]) + 1;
    }
    at + 5
}

/// So many addresses from 198.19.0.0 on.
pub(crate) fn many(count: u16) -> Vec<IpAddr> {
    (0..count).map(|i| Ipv4Addr::new(198, 19, (i >> 8) as u8, (i & 255) as u8).into()).collect()
}
