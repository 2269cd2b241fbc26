//! The arguments of a call.

use std::sync::Arc;

use super::value::Value;
use super::{Failure, Outcome};

/// Arguments of a call, from which the function takes those it knows.
#[derive(Default, Clone)]
pub(super) struct Call {
    pub(super) positional: Vec<Option<Value>>,
    pub(super) keywords: Vec<(Arc<str>, Option<Value>)>,
}

impl Call {
    /// Number of arguments, those that were taken included.
    pub(super) fn count(&self) -> usize {
        self.positional.len() + self.keywords.len()
    }

    /// The argument at `index` or with a name; it is no longer there afterwards.
    pub(super) fn take(&mut self, index: usize, name: &str) -> Option<Value> {
        let positional = self.positional.get_mut(index).and_then(Option::take);
        positional.or_else(|| self.take_named(name))
    }

    pub(super) fn take_named(&mut self, name: &str) -> Option<Value> {
        self.keywords.iter_mut().find(|(known, _)| &**known == name).and_then(|(_, value)| value.take())
    }

    /// An argument that has to be there.
    pub(super) fn need(&mut self, index: usize, name: &str) -> Outcome<Value> {
        self.take(index, name).ok_or_else(|| Failure::new(format!("the argument `{name}` is missing")))
    }

    /// An argument that is a text.
    pub(super) fn text(&mut self, index: usize, name: &str) -> Outcome<Option<Arc<str>>> {
        match self.take(index, name) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Text(text) | Value::Markup(text)) => Ok(Some(text)),
            Some(other) => Err(Failure::new(format!("`{name}` is not a text but of type {}", other.type_name()))),
        }
    }

    pub(super) fn need_text(&mut self, index: usize, name: &str) -> Outcome<Arc<str>> {
        self.text(index, name)?.ok_or_else(|| Failure::new(format!("the text `{name}` is missing")))
    }

    /// An argument that is a whole number.
    pub(super) fn int(&mut self, index: usize, name: &str) -> Outcome<Option<i128>> {
        match self.take(index, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => match value.as_int() {
                Some(number) => Ok(Some(number)),
                None => Err(Failure::new(format!("`{name}` is not a whole number but of type {}", value.type_name()))),
            },
        }
    }

    pub(super) fn truth(&mut self, index: usize, name: &str) -> bool {
        self.take(index, name).is_some_and(|value| value.truth())
    }

    /// All positional arguments that are left.
    pub(super) fn rest(&mut self) -> Vec<Value> {
        self.positional.iter_mut().filter_map(Option::take).collect()
    }

    /// All arguments with names that are left.
    pub(super) fn named(&mut self) -> Vec<(Arc<str>, Value)> {
        self.keywords.drain(..).filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The arguments that are left, as a call of their own.
    pub(super) fn left(&mut self) -> Self {
        let positional = self.rest().into_iter().map(Some).collect();
        Self { positional, keywords: std::mem::take(&mut self.keywords) }
    }

    /// Fails if there are arguments that `function` does not know.
    pub(super) fn finish(self, function: &str) -> Outcome<()> {
        if let Some((name, _)) = self.keywords.iter().find(|(_, value)| value.is_some()) {
            return Err(Failure::new(format!("`{function}` takes no argument `{name}`")));
        }
        if self.positional.iter().any(Option::is_some) {
            return Err(Failure::new(format!("`{function}` takes fewer arguments")));
        }
        Ok(())
    }
}
