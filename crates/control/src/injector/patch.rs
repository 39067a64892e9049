//! JSON Patch (RFC 6902): what leads from one document to another, small enough to be read.

use serde_json::{Map, Value, json};

/// The operations that make `new` of `old`; none where they are equal.
pub(crate) fn diff(old: &Value, new: &Value) -> Vec<Value> {
    let mut patch = Vec::new();
    walk("", old, new, &mut patch);
    patch
}

fn walk(path: &str, old: &Value, new: &Value, patch: &mut Vec<Value>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => objects(path, old, new, patch),
        (Value::Array(old), Value::Array(new)) if insertions(old, new) => arrays(path, old, new, patch),
        _ => patch.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn objects(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, patch: &mut Vec<Value>) {
    let at = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.push(json!({"op": "remove", "path": at(key)}));
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) => walk(&at(key), before, value, patch),
            None => patch.push(json!({"op": "add", "path": at(key), "value": value})),
        }
    }
}

/// Whether items are the same to Kubernetes: containers, volumes and ports have names.
fn same(old: &Value, new: &Value) -> bool {
    match (old.get("name"), new.get("name")) {
        (Some(old), Some(new)) => old == new,
        _ => old == new,
    }
}

/// Whether the old items are all there, in their order, with others between them.
fn insertions(old: &[Value], new: &[Value]) -> bool {
    let mut rest = new.iter();
    old.iter().all(|item| rest.any(|other| same(item, other)))
}

fn arrays(path: &str, old: &[Value], new: &[Value], patch: &mut Vec<Value>) {
    let mut before = old.iter().peekable();
    for (i, item) in new.iter().enumerate() {
        match before.next_if(|old| same(old, item)) {
            Some(old) => walk(&format!("{path}/{i}"), old, item, patch),
            None => patch.push(json!({"op": "add", "path": format!("{path}/{i}"), "value": item})),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_put_between_others_and_changed_where_they_are() {
        let old = json!({"a": {"x/y": 1, "gone": 2}, "list": [{"name": "b", "v": 1}, {"name": "c"}], "plain": [1, 2]});
        let new = json!({
            "a": {"x/y": 3},
            "list": [{"name": "a"}, {"name": "b", "v": 2}, {"name": "c"}, {"name": "d"}],
            "plain": [2, 1],
            "new~": true,
        });
        assert_eq!(
            diff(&old, &new),
            [
                json!({"op": "remove", "path": "/a/gone"}),
                json!({"op": "replace", "path": "/a/x~1y", "value": 3}),
                json!({"op": "add", "path": "/list/0", "value": {"name": "a"}}),
                json!({"op": "replace", "path": "/list/1/v", "value": 2}),
                json!({"op": "add", "path": "/list/3", "value": {"name": "d"}}),
                json!({"op": "add", "path": "/new~0", "value": true}),
                json!({"op": "replace", "path": "/plain", "value": [2, 1]}),
            ]
        );
        assert!(diff(&new, &new).is_empty());
    }
}
