//! Plain text, paragraph by paragraph.

use std::path::Path;

use super::SourceError;
use super::lines::Lines;

/// A paragraph ends here at the latest, in bytes; what is longer comes in several.
const LONGEST: usize = 1 << 15;

/// The paragraphs of a text file, each with the blank lines behind it. Together they are the text.
#[derive(Debug)]
pub struct Paragraphs {
    lines: Lines,
    /// The paragraph that is being put together.
    paragraph: String,
    /// True if its last line is blank, so that it ends before the next words.
    ended: bool,
}

impl Paragraphs {
    /// Opens the text at `path`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Ok(Self { lines: Lines::open(path, LONGEST / 2)?, paragraph: String::new(), ended: false })
    }

    /// Bytes of the file read so far.
    pub fn read(&self) -> u64 {
        self.lines.read()
    }

    fn advance(&mut self) -> Result<Option<String>, SourceError> {
        while let Some(line) = self.lines.next()? {
            let blank = line.trim().is_empty();
            let full = self.paragraph.len() + line.len() > LONGEST;
            if full || self.ended && !blank {
                self.ended = blank;
                return Ok(Some(std::mem::replace(&mut self.paragraph, line)));
            }
            self.ended = blank && !self.paragraph.trim().is_empty();
            self.paragraph.push_str(&line);
        }
        let last = std::mem::take(&mut self.paragraph);
        Ok(if last.is_empty() { None } else { Some(last) })
    }
}

impl Iterator for Paragraphs {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Paragraphs::open(file.path()).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn paragraphs_end_after_blank_lines() {
        assert_eq!(read("\n a\nb\n\n \n\nc\r\n\r\nd"), ["\n a\nb\n\n \n\n", "c\n\n", "d"]);
        assert!(read("").is_empty());
    }

    #[test]
    fn long_paragraphs_come_in_several() {
        let text = "word ".repeat(50_000);
        let parts = read(&text);
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().all(|part| part.len() <= LONGEST));
    }

    proptest! {
        #[test]
        fn together_they_are_the_text(text in "[a\n ]{0,60}") {
            let paragraphs = read(&text);
            prop_assert_eq!(paragraphs.concat(), text);
            for paragraph in paragraphs.iter().skip(1) {
                prop_assert!(!paragraph.lines().next().unwrap().trim().is_empty());
            }
            for paragraph in paragraphs.iter().rev().skip(1) {
                prop_assert!(paragraph.lines().last().unwrap().trim().is_empty());
            }
        }
    }
}
