//! YAML in and out, as far as Kubernetes manifests use it: what JSON can say. Comments and anchors are not kept.

use serde_json::{Map, Number, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Reads one document.
///
/// # Errors
/// What is wrong with it, with line and column.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|e| e.to_string())?;
    documents.first().map_or(Ok(Value::Null), value)
}

fn value(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(b) => Value::Bool(*b),
        Yaml::Integer(i) => Value::Number((*i).into()),
        Yaml::Real(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| format!("{text} is no number that JSON has"))?)
        }
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Array(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Hash(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let Yaml::String(key) = key else { return Err(format!("a key that is no text: {key:?}")) };
                map.insert(key.clone(), value(item)?);
            }
            Value::Object(map)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err("an alias, or a value that can't be read".into()),
    })
}

/// Writes a document, block style.
pub(crate) fn write(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut text),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut text),
        scalar => {
            inline(scalar, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

fn mapping(map: &Map<String, Value>, indent: usize, text: &mut String) {
    for (i, (key, value)) in map.iter().enumerate() {
        // The first stands where the caller has put the pen.
        if i > 0 {
            text.push_str(&" ".repeat(indent));
        }
        scalar(key, text);
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                text.push_str(&" ".repeat(indent + 2));
                mapping(map, indent + 2, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                sequence(items, indent, text);
            }
            other => {
                text.push(' ');
                inline(other, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn sequence(items: &[Value], indent: usize, text: &mut String) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, indent + 2, text),
            Value::Array(items) if !items.is_empty() => sequence(items, indent + 2, text),
            other => {
                inline(other, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn inline(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::String(string) if is_block(string) => {
            // Kept as it is, whether or not it ends in a line break.
            text.push_str(if string.ends_with('\n') { "|" } else { "|-" });
            for line in string.trim_end_matches('\n').split('\n') {
                text.push('\n');
                if !line.is_empty() {
                    text.push_str(&" ".repeat(indent));
                    text.push_str(line);
                }
            }
        }
        Value::String(string) => scalar(string, text),
        other => text.push_str(&other.to_string()),
    }
}

/// Lines that a literal block gives back as they are.
fn is_block(text: &str) -> bool {
    let printable =
        text.chars().all(|c| c == '\n' || (c != '\u{feff}' && !c.is_control() && c != '\u{2028}' && c != '\u{2029}'));
    text.trim_end_matches('\n').contains('\n') && !text.ends_with("\n\n") && !text.starts_with([' ', '\n']) && printable
}

/// Plain where nobody, not even a reader of YAML 1.1, could take it for anything but this text; else quoted as in JSON.
fn scalar(text: &str, out: &mut String) {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"];
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b));
    if first && legal && !text.ends_with(':') && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        out.push_str(text);
    } else {
        out.push_str(&Value::String(text.to_owned()).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_again_as_it_was() {
        for document in [
            json!({"a": {"b": [1, "1", true, "true", null, "null", -1.5, {}, [], ""]}, "NO": "NO", "8080": "x: y"}),
            json!([{"a": [[1, 2], [{"b": "c"}]]}, "- x", "#", "a #b", "'", "\"", "\\", "\u{7f}", "é", "0x10", "1e3", "~"]),
            json!({"text": "one\n  two\n\nthree", "ends": "one\ntwo\n", "two": "a\nb\n\n", "space": " a\nb", "cr": "a\r\nb"}),
            json!({"list": [{"block": "a\nb", "after": 1}], "tab": "a\n\tb", "last": "---\n..."}),
            json!({}),
            json!("text"),
        ] {
            let text = write(&document);
            assert_eq!(read(&text).as_ref(), Ok(&document), "{text}");
        }
    }

    #[test]
    fn it_is_for_people_to_read() {
        let document =
            json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "args": ["run", "--x"], "on": true}]}});
        let text =
            "kind: Pod\nspec:\n  containers:\n  - args:\n    - run\n    - \"--x\"\n    name: a\n    \"on\": true\n";
        assert_eq!(write(&document), text);
    }
}
