//! What a database record says of a place, whichever shape the database has.
//!
//! GeoIP2's nested maps (`country.iso_code`, `subdivisions`, `city.names.en`, `autonomous_system_number`; also DB-IP) and flat
//! text (`country` or `country_code`, `region_code`, `city`, `asn` as a number or `AS64496`; IPinfo, IPLocate) are both read by
//! the same rules, so that databases of mixed habits are too. `registered_country` is not read: it says where a network was
//! registered, not where a caller is.

use std::fmt;

use model::{Code, Place};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What one record says; a field it lacks, or that is not of a kind we can read, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    country: Option<Code>,
    region: Option<Box<str>>,
    city: Option<Box<str>>,
    asn: Option<u32>,
    organization: Option<Box<str>>,
}

impl Record {
    /// Whether the record says nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Fills in what the place lacks. Region and city belong to a country, and an organization to its number: they are not
    /// taken from a record that contradicts what the place has.
    pub(crate) fn fill(self, place: &mut Place) {
        if place.country.is_none() || self.country.is_none() || place.country == self.country {
            place.country = place.country.or(self.country);
            place.region = place.region.take().or(self.region);
            place.city = place.city.take().or(self.city);
        }
        if place.asn.is_none() || self.asn.is_none() || place.asn == self.asn {
            place.asn = place.asn.or(self.asn);
            place.organization = place.organization.take().or(self.organization);
        }
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Value::deserialize(deserializer)?;
        let nested = |key, names| record.get(key).and_then(|map| map.first(names));
        let country = nested("country", &["iso_code", "code"])
            .and_then(Value::code)
            .or_else(|| record.find(&["country_code", "country_iso_code", "country"], Value::code));
        let region = record
            .get("subdivisions")
            .and_then(|list| list.item()?.get("iso_code")?.region())
            .or_else(|| record.find(&["region_code", "region_iso_code", "state1", "region", "state"], Value::region));
        let city = record.first(&["city", "city_name"]).and_then(|city| {
            let names = city.get("names").and_then(|names| names.get("en"));
            names.or_else(|| city.get("name")).unwrap_or(city).text()
        });
        let system = |names| record.first(names).or_else(|| nested("traits", names));
        let asn = system(&["autonomous_system_number", "asn", "as_number"]).and_then(Value::asn);
        let organization =
            system(&["autonomous_system_organization", "as_name", "as_organization", "as_org", "as_domain"])
                // Names as general as these are the system's only in a record about one.
                .or_else(|| asn.and_then(|_| record.first(&["org", "name", "domain"])))
                .and_then(Value::text);
        Ok(Self { country, region, city, asn, organization })
    }
}

/// The parts of a record worth keeping.
enum Value<'de> {
    Text(&'de str),
    Number(u64),
    /// Only the keys in [`KEYS`].
    Map(Vec<(&'de str, Value<'de>)>),
    /// Only the first item.
    List(Option<Box<Value<'de>>>),
    Other,
}

/// Every key that is looked at, at any depth.
#[rustfmt::skip]
const KEYS: [&str; 27] = [
    "as_domain", "as_name", "as_number", "as_org", "as_organization", "asn", "autonomous_system_number",
    "autonomous_system_organization", "city", "city_name", "code", "country", "country_code", "country_iso_code", "domain", "en",
    "iso_code", "name", "names", "org", "region", "region_code", "region_iso_code", "state", "state1", "subdivisions", "traits",
];

/// The longest name worth telling; longer ones are left out, since they are no names.
const MAX_TEXT_BYTES: usize = 200;

impl<'de> Value<'de> {
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The first of these keys that is there.
    fn first(&self, keys: &[&str]) -> Option<&Self> {
        self.find(keys, Some)
    }

    /// What can be read of the first of these keys that can be.
    fn find<'a, T>(&'a self, keys: &[&str], read: impl Fn(&'a Self) -> Option<T>) -> Option<T> {
        keys.iter().find_map(|key| read(self.get(key)?))
    }

    fn item(&self) -> Option<&Self> {
        match self {
            Self::List(first) => first.as_deref(),
            _ => None,
        }
    }

    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// A country; `XX` and `ZZ` are how some say that they know none.
    fn code(&self) -> Option<Code> {
        self.as_str()?.parse().ok().filter(|code: &Code| !matches!(code.as_str(), "XX" | "ZZ"))
    }

    /// One to three letters or digits, the country before it taken off. A region's name is no code and is not told as one.
    fn region(&self) -> Option<Box<str>> {
        let text = self.as_str()?;
        let code = match text.split_once('-') {
            Some((country, code)) if country.parse::<Code>().is_ok() => code,
            _ => text,
        };
        let is_code =
            (1..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        is_code.then(|| code.into())
    }

    /// A text that can stand in a header and on a line of a log.
    fn text(&self) -> Option<Box<str>> {
        let text = self.as_str()?;
        let fit = !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control);
        fit.then(|| text.into())
    }

    /// A number, or a text of digits with or without `AS` before; 0 is nobody's (RFC 7607).
    fn asn(&self) -> Option<u32> {
        let number = match self {
            Self::Number(number) => u32::try_from(*number).ok(),
            Self::Text(_) => {
                let text = self.as_str()?;
                let digits =
                    text.get(..2).filter(|start| start.eq_ignore_ascii_case("AS")).map_or(text, |_| &text[2..]);
                digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
            }
            _ => None,
        };
        number.filter(|&number| number != 0)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a MaxMind DB")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(u64::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<&'de str>()? {
            if KEYS.contains(&key) {
                entries.push((key, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let first = items.next_element()?.map(Box::new);
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::List(first))
    }
}
