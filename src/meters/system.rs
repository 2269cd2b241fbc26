//! The small files in which Linux tells what sensors say, below [`ROOT`].

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::visible::{shown, shown_path};

/// Where Linux shows its devices by class.
pub const ROOT: &str = "/sys/class";

/// The most that is read of a file; these have a line each.
const LARGEST: u64 = 4096;

/// Reader of a file; tests put denials in its place.
pub(super) type Read = fn(&Path) -> io::Result<String>;

/// Reads a small file.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The whole number that a file holds; the error names the file, says what is wrong and ends without a full stop.
pub(super) fn number<T: std::str::FromStr>(read: Read, path: &Path) -> Result<T, String> {
    let text = read(path).map_err(|error| format!("{} cannot be read ({error})", shown_path(path)))?;
    let text = text.trim();
    text.parse()
        .map_err(|_| format!("{} holds `{}`, which is not a number expected there", shown_path(path), shown(text)))
}

/// The folders in `parent` that are called `prefix` and a number, by that number. None where the parent cannot be read.
pub(super) fn numbered(parent: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // No sign and nothing behind it: `intel-rapl:0:1` is a part of `intel-rapl:0`.
            let digits = path.file_name()?.to_str()?.strip_prefix(prefix)?.to_owned();
            digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
            Some((digits.parse().ok()?, path))
        })
        .collect();
    found.sort();
    found
}

/// Trees of files, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
pub(super) mod recorded {
    use super::*;

    /// A folder with these files in it. (They are written here and not kept as files: not every system allows the colons in
    /// the names.)
    pub(in super::super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, text)| put(root.path(), path, text));
        root
    }

    /// Writes a file, and the folders above it.
    pub(in super::super) fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_or_the_file_is_named() {
        let root =
            recorded::tree(&[("a", "42\n"), ("b", "-5"), ("c", ""), ("d", "1.5"), ("e", "many\nlines"), ("f", "7 8")]);
        let of = |name: &str| number::<u64>(read, &root.path().join(name));
        assert_eq!(of("a"), Ok(42));
        assert_eq!(number::<i64>(read, &root.path().join("b")), Ok(-5));
        for (name, words) in
            [("b", "`-5`"), ("c", "``"), ("d", "`1.5`"), ("e", "many\\nlines"), ("f", "`7 8`"), ("g", "cannot be read")]
        {
            let reason = of(name).unwrap_err();
            assert!(reason.contains(words) && reason.contains(root.path().to_str().unwrap()), "{reason}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let root = recorded::tree(&[("long", &"7".repeat(100_000))]);
        assert_eq!(read(&root.path().join("long")).unwrap().len() as u64, LARGEST);
    }

    #[test]
    fn folders_are_ordered_by_number_and_only_those_with_one() {
        let names = ["zone10", "zone9", "zone9:0", "zone", "zone+1", "zonex", "other1", "zone99999999999"];
        let files: Vec<(String, &str)> = names.iter().map(|name| (format!("{name}/x"), "")).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let root = recorded::tree(&files);
        let found: Vec<u32> = numbered(root.path(), "zone").into_iter().map(|(number, _)| number).collect();
        assert_eq!(found, [9, 10]);
        assert_eq!(numbered(&root.path().join("nowhere"), "zone"), []);
    }
}
