//! Gives a reader damaged inputs, as many as are asked for, and holds it to what is promised: no panic, no abort, no endless
//! work, no memory without bound.
//!
//! `PACELINE_HOSTILE_INPUTS=100000` asks for so many inputs of each kind, `PACELINE_HOSTILE_SEED` for others than the usual ones.
//! The input at hand lies in `CARGO_TARGET_TMPDIR` under the kind's name while it is read, so that it is still there where the
//! process did not survive it.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use crate::mutate::{Form, Random, damaged};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The tests share the allocator's counters.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Inputs of a kind where nobody asks for more.
const USUAL: usize = 300;
/// Memory that an input may take.
const MEMORY: usize = 2 << 30;
/// How long an input may take where inputs were asked for; in a usual run it ends only what would never end.
const PATIENCE: Duration = Duration::from_secs(5);
const USUAL_PATIENCE: Duration = Duration::from_secs(120);

/// A kind of input.
pub(crate) struct Kind<'a> {
    pub(crate) name: &'a str,
    pub(crate) form: Form,
    pub(crate) seeds: Vec<Vec<u8>>,
    pub(crate) read: fn(&[u8]) -> Result<(), String>,
    /// Makes a checksum fit again, where there is one.
    pub(crate) mend: fn(Vec<u8>) -> Vec<u8>,
}

/// What was found about a kind.
#[derive(Default)]
struct Found {
    accepted: usize,
    refused: usize,
    slowest: Duration,
    most_memory: usize,
    faults: Vec<String>,
}

fn setting(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends the process where an input takes longer than is allowed: a thread cannot be ended.
struct Watch {
    started: Arc<Mutex<Option<Instant>>>,
    done: Arc<AtomicBool>,
}

impl Watch {
    fn new(patience: Duration, kept: String) -> Self {
        let watch = Self { started: Arc::default(), done: Arc::default() };
        let (started, done) = (Arc::clone(&watch.started), Arc::clone(&watch.done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
                let started = *started.lock().unwrap_or_else(PoisonError::into_inner);
                if started.is_some_and(|started| started.elapsed() > patience) {
                    eprintln!("An input took longer than {patience:?}; it is in {kept}.");
                    std::process::abort();
                }
            }
        });
        watch
    }

    fn begin(&self, at: Option<Instant>) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Reads the seeds, which are sound, and then damaged copies of them.
pub(crate) fn hold(kind: &Kind<'_>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (number, seed) in kind.seeds.iter().enumerate() {
        (kind.read)(seed).unwrap_or_else(|error| panic!("seed {number} of {} is refused: {error}", kind.name));
    }
    let asked = setting("PACELINE_HOSTILE_INPUTS");
    let seed = setting("PACELINE_HOSTILE_SEED").unwrap_or(0) as u64;
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}", kind.name));
    let watch = Watch::new(if asked.is_some() { PATIENCE } else { USUAL_PATIENCE }, kept.display().to_string());
    let (started, mut found) = (Instant::now(), Found::default());
    for number in 0..asked.unwrap_or(USUAL) {
        let mut random = Random::new(seed << 40 ^ (number as u64) << 8 ^ kind.name.len() as u64);
        let input = (kind.mend)(damaged(&kind.seeds, kind.form, &mut random));
        fs::write(&kept, &input).expect("room for an input");
        try_one(kind, &input, number, &watch, &mut found);
    }
    let Found { accepted, refused, slowest, most_memory, faults } = found;
    println!(
        "{}: {accepted} accepted, {refused} refused in {:.1} s; slowest {:.1} ms, most memory {:.1} MB, {} faults",
        kind.name,
        started.elapsed().as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
        most_memory as f64 / 1e6,
        faults.len(),
    );
    let _ = fs::remove_file(&kept);
    assert!(accepted > 0 && refused > 0, "inputs of {} are all alike", kind.name);
    assert!(faults.is_empty(), "{} faults, such as: {}", faults.len(), faults[0]);
}

fn try_one(kind: &Kind<'_>, input: &[u8], number: usize, watch: &Watch, found: &mut Found) {
    ALLOCATOR.reset_peak_usage();
    let (before, started) = (ALLOCATOR.current_usage(), Instant::now());
    watch.begin(Some(started));
    let result = catch_unwind(AssertUnwindSafe(|| (kind.read)(input)));
    watch.begin(None);
    let memory = ALLOCATOR.peak_usage().saturating_sub(before);
    found.slowest = found.slowest.max(started.elapsed());
    found.most_memory = found.most_memory.max(memory);
    let fault = match result {
        Err(panic) => Some(format!("a panic: {}", message(panic.as_ref()))),
        Ok(_) if memory > MEMORY => Some(format!("{memory} bytes of memory")),
        Ok(Ok(())) => {
            found.accepted += 1;
            None
        }
        Ok(Err(sentence)) => {
            found.refused += 1;
            // One line that a terminal can show.
            let bad = sentence.len() < 10 || sentence.contains(char::is_control);
            bad.then(|| format!("no sentence: {sentence:?}"))
        }
    };
    if let Some(fault) = fault {
        let saved = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}-{number}", kind.name));
        fs::write(&saved, input).expect("room for an input");
        found.faults.push(format!("{fault} (input {number}, kept in {})", saved.display()));
        if found.faults.len() <= 5 {
            println!("{}", found.faults[found.faults.len() - 1]);
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").to_owned()
}
