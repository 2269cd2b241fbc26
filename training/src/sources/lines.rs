//! The lines of a text file, one at a time, checked to be UTF-8.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use paceline::files::{ReadError, open_plain};

use super::SourceError;

/// Reads a file line by line; a line longer than a limit comes in parts.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    /// The most bytes of a part.
    limit: usize,
    /// The beginning of a letter that the part before was cut in.
    rest: Vec<u8>,
    /// Bytes read so far.
    read: u64,
}

impl Lines {
    /// Opens the file at `path`, whose lines come in parts of at most about `limit` bytes.
    pub(super) fn open(path: &Path, limit: usize) -> Result<Self, SourceError> {
        let unreadable = |error: ReadError| SourceError::Unreadable { path: path.to_owned(), source: error.into() };
        let file = open_plain(path).map_err(unreadable)?;
        let file = BufReader::with_capacity(1 << 16, file);
        Ok(Self { path: path.to_owned(), file, limit, rest: Vec::new(), read: 0 })
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The next line or part of one, with its end as `\n` if it has one; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<String>, SourceError> {
        let first = self.read == 0;
        let start = self.read - self.rest.len() as u64;
        let mut bytes = std::mem::take(&mut self.rest);
        let room = self.limit.saturating_sub(bytes.len()).max(4) as u64;
        let read = self.file.by_ref().take(room).read_until(b'\n', &mut bytes);
        let read = read.map_err(|source| SourceError::Unreadable { path: self.path.clone(), source })?;
        self.read += read as u64;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                // A letter that was only begun goes on in the next part, unless the file ends in it.
                if error.utf8_error().error_len().is_some() || read == 0 || good == 0 {
                    return Err(SourceError::NotUtf8 { path: self.path.clone(), byte: start + good as u64 + 1 });
                }
                let mut bytes = error.into_bytes();
                self.rest = bytes.split_off(good);
                String::from_utf8(bytes).unwrap_or_default()
            }
        };
        if text.is_empty() {
            return Ok(None);
        }
        let text = if first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        Ok(Some(text.strip_suffix("\r\n").map_or_else(|| text.to_owned(), |line| format!("{line}\n"))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], limit: usize) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut lines = Lines::open(file.path(), limit).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().map_err(|error| error.to_string())? {
            all.push(line);
        }
        assert_eq!(lines.read(), bytes.len() as u64);
        Ok(all)
    }

    #[test]
    fn line_ends_and_the_mark_at_the_beginning_are_made_plain() {
        let text = "\u{feff}a\r\n\r\nb\rc\n\u{feff}d";
        assert_eq!(read(text.as_bytes(), 100).unwrap(), ["a\n", "\n", "b\rc\n", "\u{feff}d"]);
        assert!(read(b"", 9).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn parts_make_up_the_text(text in "[a-zäß€𝄞\n ]{0,60}", limit in 1usize..20) {
            let parts = read(text.as_bytes(), limit).unwrap();
            prop_assert_eq!(parts.concat(), text);
            prop_assert!(parts.iter().all(|part| part.len() <= limit.max(8)));
        }

        #[test]
        fn the_first_bad_byte_is_named(text in "[aß€\n]{0,30}", limit in 1usize..20, tail in "[a\n]{0,9}", bad in 0usize..3) {
            let bad = [&b"\xff"[..], b"\xe2\x82", b"\xc3"][bad];
            let bytes = [text.as_bytes(), bad, tail.as_bytes()].concat();
            let message = read(&bytes, limit).unwrap_err();
            let said = format!("is not UTF-8 at byte {}:", text.len() + 1);
            prop_assert!(message.contains(&said), "{} instead of {}", message, said);
        }
    }
}
