//! Ways to damage a file: its bytes, or the JSON in it.

use proptest::prelude::*;
use serde_json::Value;

/// A change of a file's bytes.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Delete(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

pub(crate) fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1..=255u8).prop_map(|(at, bits)| Cut::Flip(at, bits)),
        1 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Cut::Insert(at, bytes)),
        1 => (any::<prop::sample::Index>(), 1..20usize).prop_map(|(at, count)| Cut::Delete(at, count)),
        1 => any::<prop::sample::Index>().prop_map(Cut::Truncate),
    ]
}

/// Makes the changes within the first `reach` bytes, where a header is.
pub(crate) fn damage(mut bytes: Vec<u8>, cuts: &[Cut], reach: usize) -> Vec<u8> {
    for cut in cuts {
        let length = bytes.len().min(reach);
        if length == 0 {
            break;
        }
        match cut {
            Cut::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Cut::Insert(at, new) => drop(bytes.splice(at.index(length)..at.index(length), new.iter().copied())),
            Cut::Delete(at, count) => {
                let start = at.index(length);
                bytes.drain(start..(start + count).min(length));
            }
            Cut::Truncate(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// A change of a JSON document: of all its values, counted in depth first, one is replaced, removed or doubled.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Replace(prop::sample::Index, Value),
    Remove(prop::sample::Index),
    Rename(prop::sample::Index, String),
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        prop::sample::select(vec![0u64, 1, 2, 3, 7, 1 << 20, 1 << 32, 1 << 40, 1 << 63, u64::MAX])
            .prop_map(Value::from),
        (-3..40i64).prop_map(Value::from),
        prop::sample::select(vec![-1.0, 0.0, 0.5, 1e-300, 1e300, 1e-5, 4.0, 3.9e38]).prop_map(Value::from),
    ];
    let words = [
        "",
        "F32",
        "F64",
        "U8",
        "BF16",
        "F4",
        "llama",
        "qwen3",
        "../x",
        "0.safetensors",
        "a\nb",
        "yarn",
        "Sequence",
        "{{",
        "{% if",
    ];
    let leaf = prop_oneof![
        4 => numbers,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => prop::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{0,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

pub(crate) fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), value()).prop_map(|(at, value)| Edit::Replace(at, value)),
        1 => any::<prop::sample::Index>().prop_map(Edit::Remove),
        1 => (any::<prop::sample::Index>(), "[a-z_.]{0,8}").prop_map(|(at, name)| Edit::Rename(at, name)),
    ]
}

pub(crate) fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

pub(crate) fn apply(value: &mut Value, left: &mut usize, edit: &Edit) {
    if *left == 0 {
        if let Edit::Replace(_, new) = edit {
            *value = new.clone();
        }
        *left = usize::MAX;
        return;
    }
    *left -= 1;
    match value {
        Value::Array(items) => {
            for place in 0..items.len() {
                if *left == 0 && matches!(edit, Edit::Remove(_)) {
                    items.remove(place);
                    *left = usize::MAX;
                    return;
                }
                apply(&mut items[place], left, edit);
                if *left > usize::MAX / 2 {
                    return;
                }
            }
        }
        Value::Object(map) => {
            for key in map.keys().cloned().collect::<Vec<_>>() {
                match edit {
                    Edit::Remove(_) if *left == 0 => drop(map.remove(&key)),
                    Edit::Rename(_, name) if *left == 0 => {
                        let moved = map.remove(&key).unwrap();
                        map.insert(name.clone(), moved);
                    }
                    _ => {
                        apply(&mut map[&key], left, edit);
                        if *left > usize::MAX / 2 {
                            return;
                        }
                        continue;
                    }
                }
                *left = usize::MAX;
                return;
            }
        }
        _ => {}
    }
}

pub(crate) fn edited(mut value: Value, edits: &[Edit]) -> Value {
    for edit in edits {
        let (Edit::Replace(at, _) | Edit::Remove(at) | Edit::Rename(at, _)) = edit;
        let mut left = at.index(count(&value));
        apply(&mut value, &mut left, edit);
    }
    value
}
