//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// A place in a file: which of the files read, line and column from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) file: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One thing wrong: where, under which key, what was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: Option<At>,
    /// The keys that lead there, `inbound.ports[1].listen`; empty for the whole file.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { at: None, path: String::new(), message: message.into() }
    }

    pub(crate) fn at(mut self, at: At) -> Self {
        self.at.get_or_insert(at);
        self
    }

    /// Puts a key, or `[index]`, before the path.
    pub(crate) fn under(mut self, key: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => key.to_owned(),
            rest if rest.starts_with('[') => format!("{key}{rest}"),
            rest => format!("{key}.{rest}"),
        };
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(format!("found {}, expected {}", spell(&found), plain(expected)))
    }

    fn invalid_value(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(format!("found {}, expected {}", spell(&found), plain(expected)))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("found \"{found}\", expected one of {}", expected.join(", ")))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        let near =
            expected.iter().min_by_key(|known| distance(found, known)).filter(|known| distance(found, known) <= 2);
        Self::new(match near {
            Some(near) => format!("found the unknown key \"{found}\", expected perhaps \"{near}\""),
            None => format!("found the unknown key \"{found}\", expected one of {}", expected.join(", ")),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("found no key \"{field}\", which is required"))
    }
}

fn spell(found: &serde::de::Unexpected<'_>) -> String {
    use serde::de::Unexpected;
    match found {
        Unexpected::Str(text) => format!("\"{text}\""),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        Unexpected::Unit | Unexpected::Option => "nothing".into(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        other => other.to_string(),
    }
}

/// What was expected, without the names of Rust's types.
fn plain(expected: &dyn serde::de::Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "usize" | "u8" | "u16" | "u32" | "u64" => "a whole number".into(),
        "a sequence" => "a list".into(),
        "a string" => "a text".into(),
        other if other.starts_with("struct ") || other == "a map" => "a mapping".into(),
        _ => expected,
    }
}

/// Letters to add, drop or change to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// All that is wrong, with the files it is wrong in.
#[derive(Debug)]
pub struct Errors {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) wrongs: Vec<Wrong>,
}

impl fmt::Display for Errors {
    /// A line each: `outrigger.yaml:14:7: inbound.limits.head.bytes: found "lots", expected a size such as 32KiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, wrong) in self.wrongs.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match wrong.at.and_then(|at| Some((self.files.get(at.file)?, at))) {
                Some((file, at)) => write!(f, "{}:{}:{}: {wrong}", file.display(), at.line, at.column)?,
                None => match self.files.first() {
                    Some(file) => write!(f, "{}: {wrong}", file.display())?,
                    None => write!(f, "{wrong}")?,
                },
            }
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
