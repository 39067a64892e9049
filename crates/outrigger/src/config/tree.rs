//! Configuration files as one tree: includes merged, variables expanded, every value knowing where it was written.

use std::path::{Path, PathBuf};

use marked_yaml::types::{MarkedScalarNode, Node};
use marked_yaml::{LoadError, LoaderOptions, Marker};

use super::error::{At, Wrong};

/// Files that may be read for one configuration.
const MAX_FILES: usize = 32;
/// Bytes of one file.
const MAX_BYTES: u64 = 1 << 20;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) at: At,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A text; `plain` where it stood without quotes, so that it may be a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Value>),
    Map(Vec<(Key, Value)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) at: At,
}

impl Value {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// An item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.kind {
            Kind::List(items) => items.get(index),
            _ => None,
        }
    }

    /// Takes a key out of a mapping.
    pub(crate) fn take(&mut self, key: &str) -> Option<Self> {
        match &mut self.kind {
            Kind::Map(entries) => {
                let place = entries.iter().position(|(k, _)| k.text == key)?;
                Some(entries.remove(place).1)
            }
            _ => None,
        }
    }

    /// Where a key was written, or the mapping that lacks it.
    pub(crate) fn at_key(&self, key: &str) -> At {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map_or(self.at, |(k, _)| k.at),
            _ => self.at,
        }
    }

    /// This value where it says something, the other's where it does not: mappings key by key, all else whole.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        let (Kind::Map(mut ours), Kind::Map(theirs)) = (self.kind.clone(), &defaults.kind) else { return self };
        for (key, value) in theirs {
            match ours.iter_mut().find(|(k, _)| k.text == key.text) {
                Some((_, our)) => *our = our.clone().or(value),
                None => ours.push((key.clone(), value.clone())),
            }
        }
        Self { at: self.at, kind: Kind::Map(ours) }
    }

    /// The tree as JSON, for people to read; what may be a secret is not shown.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Scalar { text, plain: true } if text.parse::<i64>().is_ok() => {
                serde_json::json!(text.parse::<i64>().unwrap_or(0))
            }
            Kind::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "false") => (text == "true").into(),
            Kind::Scalar { text, .. } => without_password(text).into(),
            Kind::List(values) => values.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => entries
                .iter()
                .map(|(key, value)| {
                    let name = key.text.to_ascii_lowercase();
                    let secret = ["password", "secret", "token", "private_key"].iter().any(|word| name.contains(word));
                    (key.text.clone(), if secret { "(not shown)".into() } else { value.to_json() })
                })
                .collect(),
        }
    }
}

/// A URL without its user and password.
fn without_password(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host..])
        }
        None => text.to_owned(),
    }
}

/// Reads a file and what it includes; `variable` looks a variable up. The files read, and the tree or what is wrong.
pub(crate) fn load(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> (Vec<PathBuf>, Result<Value, Wrong>) {
    let mut loader = Loader { files: Vec::new(), variable };
    let tree = loader.load(path, &[]);
    (loader.files, tree)
}

struct Loader<'v> {
    files: Vec<PathBuf>,
    variable: &'v dyn Fn(&str) -> Option<String>,
}

impl Loader<'_> {
    /// `within`: the files that include this one.
    fn load(&mut self, path: &Path, within: &[PathBuf]) -> Result<Value, Wrong> {
        let file = self.files.len();
        self.files.push(path.to_owned());
        let start = At { file, line: 1, column: 1 };
        if within.iter().any(|outer| outer == path) {
            return Err(Wrong::new("this file includes itself").at(start));
        }
        if file >= MAX_FILES {
            return Err(Wrong::new(format!("more than {MAX_FILES} files are included")).at(start));
        }
        let text = read(path).map_err(|e| Wrong::new(format!("cannot read this file: {e}")).at(start))?;
        let mut tree = self.parse(file, &text)?;
        let Some(includes) = tree.take("include") else { return Ok(tree) };
        let Kind::List(includes) = includes.kind else {
            return Err(Wrong::new("found something else, expected a list of files").at(includes.at).under("include"));
        };
        let within = [within, &[path.to_owned()]].concat();
        // The last include says most after this file itself.
        for include in includes.iter().rev() {
            let Kind::Scalar { text, .. } = &include.kind else {
                return Err(Wrong::new("found something else, expected a file's path").at(include.at).under("include"));
            };
            let target = path.parent().unwrap_or(Path::new("")).join(text);
            let defaults =
                self.load(&target, &within).map_err(|wrong| match wrong.message.starts_with("cannot read") {
                    // Where it is included from helps more than the start of a file that is not there.
                    true => Wrong::new(format!("{text}: {}", wrong.message)).at(include.at).under("include"),
                    false => wrong,
                })?;
            tree = tree.or(&defaults);
        }
        Ok(tree)
    }

    fn parse(&self, file: usize, text: &str) -> Result<Value, Wrong> {
        let options = LoaderOptions::default().error_on_duplicate_keys(true);
        let node = marked_yaml::parse_yaml_with_options(file, text, options).map_err(|e| unreadable(file, &e))?;
        self.value(&node, file)
    }

    fn value(&self, node: &Node, file: usize) -> Result<Value, Wrong> {
        let at = node.span().start().map_or(At { file, line: 1, column: 1 }, place);
        let kind = match node {
            Node::Scalar(scalar) => self.scalar(scalar, at)?,
            Node::Sequence(list) => Kind::List(
                list.iter()
                    .enumerate()
                    .map(|(i, value)| self.value(value, file).map_err(|wrong| wrong.under(&format!("[{i}]"))))
                    .collect::<Result<_, _>>()?,
            ),
            Node::Mapping(map) => {
                let mut entries = Vec::new();
                for (key, value) in map.iter() {
                    let at = key.span().start().map_or(at, place);
                    let text = key.as_str().to_owned();
                    let value = self.value(value, file).map_err(|wrong| wrong.under(&text))?;
                    entries.push((Key { text, at }, value));
                }
                Kind::Map(entries)
            }
        };
        // The parser places a mapping behind its first key.
        let at = match &kind {
            Kind::Map(entries) => entries.first().map_or(at, |(key, _)| key.at),
            _ => at,
        };
        Ok(Value { at, kind })
    }

    /// Expands `${NAME}`, `${NAME:-default}` and `$${` in the text alone: a variable cannot add structure.
    fn scalar(&self, scalar: &MarkedScalarNode, at: At) -> Result<Kind, Wrong> {
        let mut rest = scalar.as_str();
        let mut text = String::new();
        while let Some(start) = rest.find("${") {
            if let Some(before) = rest[..start].strip_suffix('$') {
                text.push_str(before);
                text.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            text.push_str(&rest[..start]);
            let end = rest[start..].find('}').ok_or_else(|| Wrong::new("found \"${\" without its \"}\"").at(at))?;
            let (name, default) = match rest[start + 2..start + end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&rest[start + 2..start + end], None),
            };
            let legal = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !legal {
                return Err(Wrong::new(format!("found \"${{{name}}}\", expected the name of a variable")).at(at));
            }
            let value = (self.variable)(name).filter(|value| default.is_none() || !value.is_empty());
            match value.or(default.map(str::to_owned)) {
                Some(value) => text.push_str(&value),
                None => {
                    let help = format!("the variable {name} is not set; set it, or give a default: ${{{name}:-...}}");
                    return Err(Wrong::new(help).at(at));
                }
            }
            rest = &rest[start + end + 1..];
        }
        text.push_str(rest);
        Ok(Kind::Scalar { text, plain: scalar.may_coerce() })
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has {size} bytes, more than {MAX_BYTES}")));
    }
    std::fs::read_to_string(path)
}

fn place(marker: &Marker) -> At {
    At { file: marker.source(), line: marker.line(), column: marker.column() }
}

fn unreadable(file: usize, e: &LoadError) -> Wrong {
    let (marker, message) = match e {
        LoadError::TopLevelMustBeMapping(m) | LoadError::TopLevelMustBeSequence(m) => {
            (Some(*m), "found no keys, expected a mapping".to_owned())
        }
        LoadError::UnexpectedAnchor(m) => (Some(*m), "found an anchor, which is not supported; use include".to_owned()),
        LoadError::MappingKeyMustBeScalar(m) => (Some(*m), "found a key that is not a text".to_owned()),
        LoadError::UnexpectedTag(m) => (Some(*m), "found a tag, which is not supported".to_owned()),
        LoadError::ScanError(m, e) => (Some(*m), format!("this is not YAML: {}", e.info())),
        LoadError::DuplicateKey(inner) => {
            (inner.key.span().start().copied(), format!("found the key \"{}\" a second time", inner.key.as_str()))
        }
    };
    let at = marker.map_or(At { file, line: 1, column: 1 }, |marker| At { file, ..place(&marker) });
    Wrong::new(message).at(at)
}
