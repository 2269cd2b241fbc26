//! What tests of the command line share: a command's end, and what every failure has to look like.

use std::process::{Command, Output};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Checks that it failed with one sentence that has these words, behind whatever was shown on the way.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        let last = self.err.strip_suffix('\n').and_then(|text| text.lines().last());
        let sentence = last.and_then(|line| line.strip_prefix("paceline-train: "));
        let good = |line: &str| line.len() > 20 && line.ends_with(['.', '?']) && !line.contains(char::is_control);
        assert!(self.code == Some(code) && self.out.is_empty() && sentence.is_some_and(good), "{self:?}");
        assert_eq!(self.err.matches("paceline-train: ").count(), 1, "{self:?}");
        assert!(words.iter().all(|word| self.err.contains(word)), "{words:?}: {self:?}");
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, words: &[&str]) {
        assert!(self.code == Some(0) && words.iter().all(|word| self.err.contains(word)), "{words:?}: {self:?}");
    }
}
