//! Text of a file quoted in a message: control characters in it are shown instead of printed.

/// A reason that may quote a file, on one line.
pub(crate) fn quoted(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(quoted("unknown field `\u{1b}[2J\0é`\n"), "unknown field `\\u{1b}[2J\\u{0}é`\\n");
    }
}
