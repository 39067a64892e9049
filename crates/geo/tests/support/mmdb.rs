//! Writes MaxMind DB files (format 2.0, <https://maxmind.github.io/MaxMind-DB/>) for tests and load generators: search tree,
//! data with pointers to what was written before, metadata.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// What a record may hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    Text(String),
    U16(u16),
    U32(u32),
    U64(u64),
    Bool(bool),
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
}

impl Value {
    pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

/// What one side of a node of the search tree leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Nothing,
    Node(u32),
    Data(u32),
}

/// A database in the making.
pub struct Writer {
    database_type: String,
    ip_version: u16,
    record_bits: u16,
    build_epoch: u64,
    nodes: Vec<[Side; 2]>,
    data: Vec<u8>,
    /// Where what was written before begins in the data.
    written: HashMap<Value, u32>,
}

impl Writer {
    /// A database of both families, with records of 28 bits, made on 2026-01-01.
    pub fn new(database_type: &str) -> Self {
        Self {
            database_type: database_type.to_owned(),
            ip_version: 6,
            record_bits: 28,
            build_epoch: 1_767_225_600,
            nodes: vec![[Side::Nothing; 2]],
            data: Vec::new(),
            written: HashMap::new(),
        }
    }

    /// A database of IPv4 addresses only.
    pub fn ipv4_only(mut self) -> Self {
        self.ip_version = 4;
        self
    }

    /// 24, 28 or 32 bits to a record of the search tree.
    pub fn record_bits(mut self, bits: u16) -> Self {
        self.record_bits = bits;
        self
    }

    /// Seconds since 1970.
    pub fn build_epoch(mut self, seconds: u64) -> Self {
        self.build_epoch = seconds;
        self
    }

    /// Gives a network a record. A network within one that has a record already takes its part of it; one around others
    /// replaces them.
    pub fn insert(&mut self, network: IpNet, record: &Value) {
        let data = match self.written.get(record) {
            Some(&at) => at,
            None => self.write(record),
        };
        let (bits, length) = match (network.network(), self.ip_version) {
            (IpAddr::V4(ip), 4) => (u128::from(ip.to_bits()) << 96, network.prefix_len()),
            (IpAddr::V4(ip), _) => (u128::from(ip.to_bits()), 96 + network.prefix_len()),
            (IpAddr::V6(ip), _) => (ip.to_bits(), network.prefix_len()),
        };
        if length == 0 {
            self.nodes = vec![[Side::Data(data); 2]];
            return;
        }
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits << depth >> 127 == 1);
            if depth + 1 == length {
                self.nodes[node][side] = Side::Data(data);
                break;
            }
            node = match self.nodes[node][side] {
                Side::Node(next) => next as usize,
                leaf => {
                    self.nodes.push([leaf; 2]);
                    self.nodes[node][side] = Side::Node(self.nodes.len() as u32 - 1);
                    self.nodes.len() - 1
                }
            };
        }
    }

    /// How long the file would be now, but for the metadata.
    pub fn size(&self) -> usize {
        self.nodes.len() * usize::from(self.record_bits) / 4 + 16 + self.data.len()
    }

    pub fn finish(mut self) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.size() + 1024);
        let count = self.nodes.len() as u32;
        for node in &self.nodes {
            let [left, right] = node.map(|side| match side {
                Side::Nothing => count,
                Side::Node(node) => node,
                Side::Data(at) => count + 16 + at,
            });
            let ([l0, l1, l2, l3], [r0, r1, r2, r3]) = (left.to_be_bytes(), right.to_be_bytes());
            match self.record_bits {
                24 => file.extend([l1, l2, l3, r1, r2, r3]),
                28 => file.extend([l1, l2, l3, l0 << 4 | r0 & 15, r1, r2, r3]),
                _ => file.extend([l0, l1, l2, l3, r0, r1, r2, r3]),
            }
            let most = 1_u64 << self.record_bits;
            assert!(u64::from(left) < most && u64::from(right) < most, "more than {} bits can say", self.record_bits);
        }
        file.extend([0; 16]);
        file.append(&mut self.data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        // Metadata is a data section of its own: nothing written before can be pointed to.
        self.written.clear();
        let metadata = Value::map([
            ("binary_format_major_version", Value::U16(2)),
            ("binary_format_minor_version", Value::U16(0)),
            ("build_epoch", Value::U64(self.build_epoch)),
            ("database_type", Value::Text(self.database_type.clone())),
            ("description", Value::map([("en", "made for a test".into())])),
            ("ip_version", Value::U16(self.ip_version)),
            ("languages", Value::List(vec!["en".into()])),
            ("node_count", Value::U32(count)),
            ("record_size", Value::U16(self.record_bits)),
        ]);
        self.write(&metadata);
        file.append(&mut self.data);
        file
    }

    /// Appends a value and remembers where; what it holds becomes a pointer where it was written before.
    fn write(&mut self, value: &Value) -> u32 {
        let at = self.data.len() as u32;
        match value {
            Value::Text(text) => {
                self.control(2, text.len());
                self.data.extend(text.as_bytes());
            }
            Value::U16(number) => self.number(5, u64::from(*number)),
            Value::U32(number) => self.number(6, u64::from(*number)),
            Value::U64(number) => self.number(9, *number),
            Value::Bool(truth) => self.control(14, usize::from(*truth)),
            Value::Map(entries) => {
                self.control(7, entries.len());
                for (key, value) in entries {
                    self.write_or_point(&Value::Text(key.clone()));
                    self.write_or_point(value);
                }
            }
            Value::List(items) => {
                self.control(11, items.len());
                items.iter().for_each(|item| self.write_or_point(item));
            }
        }
        self.written.insert(value.clone(), at);
        at
    }

    fn write_or_point(&mut self, value: &Value) {
        // A pointer is two to five bytes long.
        let worth_it = match value {
            Value::Text(text) => text.len() > 4,
            Value::Map(_) | Value::List(_) => true,
            _ => false,
        };
        match self.written.get(value).filter(|_| worth_it) {
            Some(&at) if at < 2048 => self.data.extend([0b0010_0000 | (at >> 8) as u8, at as u8]),
            Some(&at) => {
                self.data.push(0b0011_1000);
                self.data.extend(at.to_be_bytes());
            }
            None => drop(self.write(value)),
        }
    }

    fn number(&mut self, kind: u8, number: u64) {
        let bytes = number.to_be_bytes();
        let digits = &bytes[number.leading_zeros() as usize / 8..];
        self.control(kind, digits.len());
        self.data.extend(digits);
    }

    /// The bytes that say of which type a value is and how long.
    fn control(&mut self, kind: u8, length: usize) {
        let (size, more): (u8, &[u8]) = match length {
            0..29 => (length as u8, &[]),
            29..285 => (29, &[(length - 29) as u8]),
            _ => (30, &((length - 285) as u16).to_be_bytes()),
        };
        match kind {
            1..8 => self.data.push(kind << 5 | size),
            _ => self.data.extend([size, kind - 7]),
        }
        self.data.extend(more);
    }
}

/// A city database in GeoIP2's shape that covers the Internet and is about this long: many networks, many cities.
pub fn cities(bytes: usize) -> Writer {
    let mut writer = Writer::new("Test-City").record_bits(32);
    // A third or so for the tree: eight bytes a node, and nearly as many nodes as networks.
    let prefix = (bytes / 16).max(256).ilog2() as u8;
    let networks = 1_u32 << prefix;
    let most_data = bytes.saturating_sub(8 * networks as usize);
    let mut cities = 1;
    for number in 0..networks {
        let ip = std::net::Ipv4Addr::from_bits(number << (32 - prefix));
        // A new city while there is room, then those there are again.
        if writer.data.len() < most_data {
            cities = number + 1;
        }
        writer.insert(IpNet::new(ip.into(), prefix).unwrap(), &city(number % cities));
    }
    for number in 0..4096_u32 {
        let ip = std::net::Ipv6Addr::from_bits(u128::from(0x2000_0000 | number << 17) << 96);
        writer.insert(IpNet::new(ip.into(), 15).unwrap(), &city(number % cities));
    }
    writer
}

fn city(number: u32) -> Value {
    const COUNTRIES: [&str; 12] = ["BR", "CA", "CN", "DE", "FR", "GB", "IN", "JP", "NL", "NO", "US", "ZA"];
    let country = COUNTRIES[number as usize % COUNTRIES.len()];
    let name = format!("City {number}");
    Value::map([
        ("city", Value::map([("geoname_id", number.into()), ("names", Value::map([("en", name.as_str().into())]))])),
        ("country", Value::map([("iso_code", country.into())])),
        ("location", Value::map([("accuracy_radius", Value::U16(number as u16)), ("time_zone", "Etc/UTC".into())])),
        ("subdivisions", Value::List(vec![Value::map([("iso_code", format!("R{}", number % 90).as_str().into())])])),
    ])
}
