//! From the tree to types, by serde: what does not fit is reported with the place it was written at.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::error::Wrong;
use super::tree::{Key, Kind, Value};

/// Reads a type from a value.
pub(crate) fn from_value<'de, T: serde::Deserialize<'de>>(value: &'de Value) -> Result<T, Wrong> {
    T::deserialize(value)
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let result = match &self.kind {
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "" | "~" | "null" => visitor.visit_unit(),
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                text => match (text.parse::<u64>(), text.parse::<i64>()) {
                    (Ok(number), _) => visitor.visit_u64(number),
                    (_, Ok(number)) => visitor.visit_i64(number),
                    _ => visitor.visit_borrowed_str(text),
                },
            },
            Kind::Scalar { text, plain: false } => visitor.visit_borrowed_str(text),
            Kind::List(values) => visitor.visit_seq(List { values: values.iter().enumerate() }),
            Kind::Map(entries) => visitor.visit_map(Map { entries: entries.iter(), value: None }),
        };
        result.map_err(|wrong: Wrong| wrong.at(self.at))
    }

    /// A text may look like a number: `name: 8080`.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.kind {
            Kind::Scalar { text, plain } if !*plain || !matches!(text.as_str(), "" | "~" | "null") => {
                visitor.visit_borrowed_str(text).map_err(|wrong: Wrong| wrong.at(self.at))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.kind {
            Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self).map_err(|wrong: Wrong| wrong.at(self.at))
    }

    /// Names only: no enum of the configuration carries a value.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let result = match &self.kind {
            Kind::Scalar { text, .. } => visitor.visit_enum(StrDeserializer::<Wrong>::new(text)),
            Kind::List(_) => Err(Wrong::invalid_type(Unexpected::Seq, &"a word")),
            Kind::Map(_) => Err(Wrong::invalid_type(Unexpected::Map, &"a word")),
        };
        result.map_err(|wrong| wrong.at(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

struct List<'de> {
    values: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((i, value)) = self.values.next() else { return Ok(None) };
        seed.deserialize(value).map(Some).map_err(|wrong| wrong.at(value.at).under(&format!("[{i}]")))
    }
}

struct Map<'de> {
    entries: std::slice::Iter<'de, (Key, Value)>,
    value: Option<&'de (Key, Value)>,
}

impl<'de> MapAccess<'de> for Map<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(&key.text)).map(Some).map_err(|wrong: Wrong| wrong.at(key.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (key, value) = self.value.ok_or_else(|| Wrong::new("a value without a key"))?;
        seed.deserialize(value).map_err(|wrong| wrong.at(value.at).under(&key.text))
    }
}
