//! The embedded country table: looked up in place, so that nothing is decoded at start and only the pages that lookups touch
//! take memory. `data/build.py` makes it and describes its format; `data/README.md` says whose data it is.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use model::Code;

/// The table in this binary. Its header is read while compiling: a broken table does not build.
pub(crate) static TABLE: CountryTable = CountryTable::new(include_bytes!("../data/country.bin"));

/// A table of address ranges and their countries.
pub(crate) struct CountryTable {
    date: u64,
    source: &'static [u8],
    countries: &'static [u8],
    ipv4: Family,
    ipv6: Family,
}

/// The ranges of one family.
struct Family {
    blocks: &'static [u8],
    ranges: &'static [u8],
}

const MAGIC: &[u8; 8] = b"OUTRGEO1";
const KEY_BYTES: usize = 16;
const BLOCK_BYTES: usize = KEY_BYTES + 4;

impl CountryTable {
    const fn new(table: &'static [u8]) -> Self {
        let (magic, table) = table.split_at(MAGIC.len());
        assert!(matches!(magic, b"OUTRGEO1"), "no country table");
        let (date_upper, table) = take_u32(table);
        let (date_lower, table) = take_u32(table);
        let (countries, table) = take_u32(table);
        let (ipv4_blocks, table) = take_u32(table);
        let (ipv4_bytes, table) = take_u32(table);
        let (ipv6_blocks, table) = take_u32(table);
        let (ipv6_bytes, table) = take_u32(table);
        let (source, table) = take_u32(table);
        let (source, table) = table.split_at(source);
        let (countries, table) = table.split_at(2 * countries);
        let (ipv4, table) = Family::take(table, ipv4_blocks, ipv4_bytes);
        let (ipv6, table) = Family::take(table, ipv6_blocks, ipv6_bytes);
        assert!(table.is_empty(), "more than a country table");
        Self { date: ((date_upper as u64) << 32) + date_lower as u64, source, countries, ipv4, ipv6 }
    }

    /// The number of the address's country in the table, 0 where it has none.
    pub(crate) fn find(&self, ip: IpAddr) -> u8 {
        match ip {
            IpAddr::V4(ip) => self.ipv4.find(u128::from(ip.to_bits()) << 96),
            IpAddr::V6(ip) => self.ipv6.find(ip.to_bits()),
        }
        .unwrap_or(0)
    }

    /// The country of that number.
    pub(crate) fn country(&self, number: u8) -> Option<Code> {
        let at = 2 * usize::from(number.checked_sub(1)?);
        Code::new(*self.countries.get(at..)?.first_chunk()?)
    }

    /// The day the data is of.
    pub(crate) fn built(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.date)
    }

    /// Whose data it is, and of which version.
    pub(crate) fn source(&self) -> &'static str {
        std::str::from_utf8(self.source).unwrap_or_default()
    }
}

impl Family {
    const fn take(table: &'static [u8], blocks: usize, bytes: usize) -> (Self, &'static [u8]) {
        let (blocks, table) = table.split_at(blocks * BLOCK_BYTES);
        let (ranges, table) = table.split_at(bytes);
        (Self { blocks, ranges }, table)
    }

    /// Finds the last block that begins at or before the key, and in it the last range that does.
    fn find(&self, key: u128) -> Option<u8> {
        let (blocks, _) = self.blocks.as_chunks::<BLOCK_BYTES>();
        let first_key = |block: &[u8; BLOCK_BYTES]| block.first_chunk().map_or(0, |&key| u128::from_be_bytes(key));
        let following = blocks.partition_point(|block| first_key(block) <= key);
        let block = &blocks[following.checked_sub(1)?];
        let begin = |block: &[u8; BLOCK_BYTES]| block.last_chunk().map_or(0, |&at| u32::from_be_bytes(at) as usize);
        let end = blocks.get(following).map_or(self.ranges.len(), begin);

        let (&first, mut ranges) = self.ranges.get(begin(block)..end)?.split_first()?;
        let (mut country, mut left) = (first, key - first_key(block));
        while let Some((&form, rest)) = ranges.split_first() {
            let (zeros, digits) = (u32::from(form >> 4), usize::from(form & 15) + 1);
            let (number, rest) = rest.split_at_checked(digits)?;
            let (&next, rest) = rest.split_first()?;
            let number = number.iter().fold(0, |number, &digit| number << 8 | u128::from(digit));
            let Some(beyond) = left.checked_sub(number << (8 * zeros)) else { break };
            (country, left, ranges) = (next, beyond, rest);
        }
        Some(country)
    }
}

const fn take_u32(table: &[u8]) -> (usize, &[u8]) {
    match table.split_first_chunk() {
        Some((&number, rest)) => (u32::from_be_bytes(number) as usize, rest),
        None => panic!("less than a country table"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::path::Path;

    use super::*;

    fn country(ip: IpAddr) -> Option<String> {
        TABLE.country(TABLE.find(ip)).map(|code| code.to_string())
    }

    #[test]
    fn well_known_addresses_have_their_country() {
        for (ip, expected) in KNOWN {
            assert_eq!(country(ip.parse().unwrap()).as_deref(), *expected, "{ip}");
        }
    }

    #[test]
    fn the_table_says_whose_data_it_is_and_of_when() {
        assert!(TABLE.source().contains("IPFire Location (CC BY-SA 4.0)"), "{}", TABLE.source());
        assert!(TABLE.built() > SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert!(TABLE.built() < SystemTime::now());
        assert!((200..=255).contains(&(TABLE.countries.len() / 2)));
    }

    #[test]
    fn the_ends_of_the_address_space_have_no_country() {
        for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert_eq!(country(ip.parse().unwrap()), None, "{ip}");
        }
    }

    /// The source has to be the very one the table was built from; elsewhere there is nothing to compare.
    #[test]
    fn the_table_agrees_with_its_source_where_that_is_installed() {
        for file in ["geoip", "geoip6"] {
            let Ok(text) = std::fs::read_to_string(Path::new("/usr/share/tor").join(file)) else {
                eprintln!("skipped: Debian's tor-geoipdb is not installed");
                return;
            };
            if source_date(&text) != Some(TABLE.date) {
                eprintln!("skipped: the installed tor-geoipdb is of another day");
                return;
            }
            let mut gap_from = None;
            for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
                let fields: Vec<&str> = line.split(',').collect();
                let (first, last) = (key(fields[0]), key(fields[1]));
                let expected = match fields[2] {
                    "??" | "AB" | "AN" | "AP" | "CS" | "EU" | "OS" | "SU" | "UN" | "ZZ" => None,
                    "UK" => Some("GB"),
                    country => Some(country),
                };
                for ip in [first, last] {
                    assert_eq!(country(ip).as_deref(), expected, "{ip} in {line}");
                }
                if let Some(gap) = gap_from.filter(|&gap| gap != first) {
                    assert_eq!(country(gap), None, "{gap} before {line}");
                }
                gap_from = Some(after(last));
            }
        }
    }

    fn key(text: &str) -> IpAddr {
        text.parse::<u32>().map_or_else(|_| text.parse().unwrap(), |bits| Ipv4Addr::from_bits(bits).into())
    }

    fn after(ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
        }
    }

    /// Seconds since 1970 of `# Generated: Thu, 25 Jun 2026 04:33:59 GMT`.
    fn source_date(text: &str) -> Option<u64> {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        let line = text.lines().find_map(|line| line.strip_prefix("# Generated: "))?;
        let mut words = line.split([' ', ':']).skip(1);
        let day: u64 = words.next()?.parse().ok()?;
        let month = MONTHS.find(words.next()?)? as u64 / 3 + 1;
        let year: u64 = words.next()?.parse().ok()?;
        let seconds = words.take(3).try_fold(0, |sum, word| Some(60 * sum + word.parse::<u64>().ok()?))?;
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        Some(86_400 * days + seconds)
    }

    const KNOWN: &[(&str, Option<&str>)] = &[
        ("8.8.8.8", Some("US")),
        ("1.1.1.1", Some("AU")),
        ("193.0.6.139", Some("NL")),
        ("133.11.0.1", Some("JP")),
        ("200.160.2.3", Some("BR")),
        ("196.216.2.1", Some("ZA")),
        ("62.80.100.1", Some("DE")),
        ("80.58.61.250", Some("ES")),
        ("77.88.8.8", Some("RU")),
        ("114.114.114.114", Some("CN")),
        ("2001:4860:4860::8888", Some("US")),
        ("2001:67c:2e8:22::c100:68b", Some("NL")),
        ("2001:200:dff:fff1::1", Some("JP")),
        ("2804:14c::1", Some("BR")),
        ("2c0f:fb50::1", Some("KE")),
        ("2a02:2e0:3fe:1001:302::", Some("DE")),
        ("10.0.0.1", None),
        ("2001:db8::1", None),
    ];
}
