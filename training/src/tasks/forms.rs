//! The forms in which an answer may be asked for, and how a question is put together.

use super::picker::Picker;

/// In which form the answer is wanted. The prompt says so, in one of two ways that all splits have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Whole sentences.
    Sentences,
    /// A line for each part, with a dash before it.
    List,
    /// Everything on one line, as short as it can be.
    Line,
}

impl Form {
    /// A form and the sentence that asks for it.
    pub(super) fn pick(picker: &mut Picker) -> (Self, &'static str) {
        picker.pick(&[
            (Self::Sentences, "Use full sentences."),
            (Self::Sentences, "Answer in full sentences."),
            (Self::List, "Write a list."),
            (Self::List, "Answer with a list."),
            (Self::Line, "Write one line."),
            (Self::Line, "Answer on one line."),
        ])
    }

    /// Puts parts together that are already worded: sentences, lines of a list without their dashes, or parts of a line.
    pub(super) fn join(self, parts: &[String]) -> String {
        match self {
            Self::Sentences => parts.join(" "),
            Self::List => parts.iter().map(|part| format!("- {part}")).collect::<Vec<_>>().join("\n"),
            Self::Line => parts.join("; "),
        }
    }
}

/// A phrasing with its places filled: `{ask}` what to do, `{Ask}` the same with a capital, `{data}` what to do it with,
/// `{form}` the form of the answer.
pub(super) fn fill(phrasing: &str, ask: &str, data: &str, form: &str) -> String {
    let text = phrasing.replace("{ask}", ask).replace("{Ask}", &capital(ask));
    // The data last: nothing in it is a place to fill.
    text.replace("{form}", form).replace("{data}", data)
}

/// The text with a capital at its beginning.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn and<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
