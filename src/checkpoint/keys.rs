//! Typed access to the keys of a `config.json`, with a sentence for everything that is not what it should be.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::CheckpointError;
use crate::visible::shown;

/// The object of a configuration file, or an object inside it.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    path: &'a Path,
    /// Prefix of a key's name in messages, such as `rope_scaling.`.
    prefix: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { path, prefix: "", map }
    }

    /// The value under `key`, null included, for checks that go by the table of keys.
    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// The value under `key`; null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        #[cfg(test)]
        reads::note(format!("{}{key}", self.prefix));
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// True if `key` is present, even with null.
    pub(crate) fn has(&self, key: &str) -> bool {
        #[cfg(test)]
        reads::note(format!("{}{key}", self.prefix));
        self.map.contains_key(key)
    }

    /// The names of all keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn error(&self, key: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Config {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.prefix),
            reason: reason.into(),
        }
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> CheckpointError {
        let kind = match found {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            simple => shown(&simple.to_string()),
        };
        self.error(key, format!("must be {wanted}, not {kind}"))
    }

    /// A whole number above zero.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.count(key)? {
            Some(0) => Err(self.wrong(key, "a whole number above zero", &Value::from(0))),
            size => Ok(size),
        }
    }

    /// As [`size`](Self::size), but the key has to be there.
    pub(crate) fn required_size(&self, key: &str) -> Result<usize, CheckpointError> {
        self.size(key)?.ok_or_else(|| self.error(key, "is missing; the model cannot be built without it"))
    }

    /// A whole number, zero included.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.get(key)
            .map(|value| {
                let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                number.ok_or_else(|| self.wrong(key, "a whole number", value))
            })
            .transpose()
    }

    /// A finite number above zero, written with or without a fraction or an exponent.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.get(key)
            .map(|value| {
                // The float32 in which it is used must be usable as well.
                let usable = |number: &f64| *number > 0.0 && (*number as f32).is_finite() && *number as f32 > 0.0;
                value.as_f64().filter(usable).ok_or_else(|| self.wrong(key, "a number above zero", value))
            })
            .transpose()
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.get(key).map(|value| value.as_f64().ok_or_else(|| self.wrong(key, "a number", value))).transpose()
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))).transpose()
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string", value))).transpose()
    }

    /// A list.
    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, CheckpointError> {
        let list = |value: &'a Value| value.as_array().map(Vec::as_slice);
        self.get(key).map(|value| list(value).ok_or_else(|| self.wrong(key, "a list", value))).transpose()
    }

    /// An object, whose keys are named in messages with `prefix` (`key` and a dot) before them.
    pub(crate) fn object(&self, key: &str, prefix: &'static str) -> Result<Option<Self>, CheckpointError> {
        self.get(key)
            .map(|value| {
                let map = value.as_object().ok_or_else(|| self.wrong(key, "an object", value))?;
                Ok(Self { path: self.path, prefix, map })
            })
            .transpose()
    }

    /// A token id or a list of them; nothing for null or an absent key.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, CheckpointError> {
        let wanted = "a token id or a list of token ids";
        let id = |value: &Value| {
            value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| self.wrong(key, wanted, value))
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }
}

/// The keys that were read on this thread, by which a test holds the table of keys to the code.
#[cfg(test)]
pub(super) mod reads {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static NAMES: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(name: String) {
        NAMES.with_borrow_mut(|names| _ = names.insert(name));
    }

    /// The names since the last call.
    pub(in crate::checkpoint) fn take() -> BTreeSet<String> {
        NAMES.take()
    }
}
