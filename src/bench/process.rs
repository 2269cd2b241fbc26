//! Memory and processor time of this process, as the system reports them. Linux tells both under `/proc`; elsewhere
//! there is no answer, and none is made up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::model::memory::kilobytes;

/// Memory of a process that is in RAM, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Pages of the process's own.
    pub anonymous: u64,
    /// Pages of mapped files, which the system can take back: the program itself, and weights where they lie in a file.
    pub file: u64,
}

impl Resident {
    /// Of this process, now; `None` where the system does not tell.
    pub(super) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Of a file like `/proc/self/status`.
    fn parse(status: &str) -> Option<Self> {
        Some(Self { anonymous: kilobytes(status, "RssAnon")?, file: kilobytes(status, "RssFile")? })
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.anonymous + self.file
    }
}

/// Processor time of all threads of this process that are alive, to the nanosecond for those that sleep; `None` where
/// the system does not tell. (`/proc/self/stat` counts in hundredths of a second, too coarse for an idle process.)
pub(super) fn processor_time() -> Option<Duration> {
    processor_time_of(Path::new("/proc/self/task"))
}

/// The sum over the threads of a directory like `/proc/self/task`.
fn processor_time_of(threads: &Path) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(threads).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        total = total.checked_add(parse_schedstat(&text)?)?;
    }
    Some(total)
}

/// Time on a processor, of a file like `/proc/self/task/1/schedstat`: nanoseconds on a processor, nanoseconds of
/// waiting for one, and how often it got one.
fn parse_schedstat(text: &str) -> Option<Duration> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [running, _waiting, _turns] => running.parse().ok().map(Duration::from_nanos),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tpaceline\nVmRSS:\t  999 kB\nRssAnon:\t  185000 kB\nRssFile:\t    7 kB\nRssShmem:\t 0 kB\n";

    #[test]
    fn memory_is_read_from_a_status_file() {
        let resident = Resident::parse(STATUS).expect("both lines are there");
        assert_eq!(resident, Resident { anonymous: 185_000 * 1024, file: 7 * 1024 });
        assert_eq!(resident.total(), 185_007 * 1024);
    }

    #[test]
    fn a_status_file_that_says_less_or_nonsense_gives_no_number() {
        for (what, instead) in [
            ("RssAnon:\t  185000 kB\n", ""),
            ("RssFile", "Rss"),
            ("185000 kB", "185000"),
            ("185000", "-185000"),
            ("185000", "many"),
            ("185000", "18446744073709551615"),
        ] {
            assert!(STATUS.contains(what));
            assert_eq!(Resident::parse(&STATUS.replace(what, instead)), None, "{what} as {instead}");
        }
        assert_eq!(Resident::parse(""), None);
    }

    #[test]
    fn time_is_read_from_a_schedstat_file() {
        assert_eq!(parse_schedstat("1234567890 55 6\n"), Some(Duration::from_nanos(1_234_567_890)));
        for nonsense in ["", "1", "1 2", "1 2 3 4", "x 2 3", "-1 2 3"] {
            assert_eq!(parse_schedstat(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn time_is_summed_over_threads() {
        let directory = tempfile::tempdir().expect("a directory");
        let thread = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("a directory");
            fs::write(path.join("schedstat"), text).expect("a file");
        };
        thread("10", "1000 1 1\n");
        thread("11", "234 1 1\n");
        assert_eq!(processor_time_of(directory.path()), Some(Duration::from_nanos(1234)));
        thread("12", "nonsense");
        assert_eq!(processor_time_of(directory.path()), None);
        assert_eq!(processor_time_of(&directory.path().join("nowhere")), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_written_becomes_resident() {
        const BYTES: u64 = 64 << 20;
        let before = Resident::now().expect("Linux tells").anonymous;
        let written = std::hint::black_box(vec![1_u8; BYTES as usize]);
        let after = Resident::now().expect("Linux tells").anonymous;
        // Other tests may take and give back memory meanwhile, but not as much.
        assert!(after > before + BYTES / 2, "{before} bytes, then {after}");
        drop(written);
    }
}
