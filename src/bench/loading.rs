//! Costs of a model before its first token, and those that last when nobody asks anything.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::process::{Resident, processor_time};
use crate::answer::Prompt;
use crate::checkpoint::Checkpoint;
use crate::config::{EngineConfig, GenerationConfig};
use crate::drafters::DrafterChoice;
use crate::engine::{Engine, Error};
use crate::files::open_plain;

/// Length of the watch over an idle engine.
const IDLE: Duration = Duration::from_secs(1);
/// Time that an engine is left alone before it is watched: its threads look for work a little longer, and the time of a
/// running thread is told late.
const SETTLING: Duration = Duration::from_millis(50);

/// Costs of loading an engine, and those that it keeps.
#[derive(Clone, Debug, Serialize)]
pub struct LoadBench {
    /// The precision of the matrices.
    pub precision: String,
    /// Seconds until the engine was loaded, tokenizer included, from files in the system's cache.
    pub seconds_to_load: f64,
    /// Seconds until it had answered a prompt of one token with one token, loading included.
    pub seconds_to_first_token: f64,
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    /// Bytes of the cache in which that answer was made.
    pub cache_bytes: u64,
    /// The whole process's memory after that answer.
    pub resident: Option<Resident>,
    /// Its memory before the engine was loaded: what an earlier measurement in the same process left behind, too.
    pub resident_before: Option<Resident>,
    /// Processor time of the idle engine, as a share of one core.
    pub idle_share: Option<f64>,
}

impl LoadBench {
    /// The process's memory but for the cache, as a multiple of the weights' bytes.
    pub fn memory_over_weights(&self) -> Option<f64> {
        let resident = self.resident?.total().saturating_sub(self.cache_bytes);
        Some(resident as f64 / self.weight_bytes as f64)
    }
}

/// Loads the target of `config` without draft models, lets it answer once, leaves it idle and drops it.
///
/// Call it before anything else in a process: memory that was used and given back may still be resident.
///
/// # Errors
/// If the engine cannot be loaded, or cannot answer.
pub fn load(config: &EngineConfig) -> Result<LoadBench, Error> {
    let config = EngineConfig { draft: Vec::new(), ..config.clone() };
    warm_files(&config)?;
    let resident_before = Resident::now();
    let started = Instant::now();
    let engine = Engine::load(&config)?;
    let seconds_to_load = started.elapsed().as_secs_f64();
    let generation = GenerationConfig {
        max_new_tokens: 1,
        ignore_eos: true,
        drafter: DrafterChoice::None,
        ..GenerationConfig::default()
    };
    let prompt = vec![0];
    let positions = prompt.len() + generation.max_new_tokens;
    engine.generate(Prompt::Tokens(prompt), &generation)?.finish()?;
    let seconds_to_first_token = started.elapsed().as_secs_f64();
    let resident = Resident::now();
    let info = engine.info();
    Ok(LoadBench {
        precision: info.format.to_string(),
        seconds_to_load,
        seconds_to_first_token,
        weight_bytes: info.weight_bytes,
        cache_bytes: info.cache_bytes_per_token * positions as u64,
        resident,
        resident_before,
        idle_share: idle_share(),
    })
}

/// Reads the weights files once, so that loading finds them in the system's cache.
fn warm_files(config: &EngineConfig) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(config.model.as_deref().ok_or(Error::NoModel)?)?;
    for file in checkpoint.files() {
        // If it cannot be read, loading will say so.
        let _ = open_plain(&file.path).map(|mut file| io::copy(&mut file, &mut io::sink()));
    }
    Ok(())
}

/// Processor time of this process while nothing is asked of it, as a share of one core; `None` where the system does
/// not tell.
fn idle_share() -> Option<f64> {
    std::thread::sleep(SETTLING);
    let (started, before) = (Instant::now(), processor_time()?);
    std::thread::sleep(IDLE);
    let (elapsed, after) = (started.elapsed(), processor_time()?);
    // A thread that ended meanwhile took its time with it.
    Some(after.checked_sub(before)?.as_secs_f64() / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_compared_with_the_weights_without_the_cache() {
        let mut bench = LoadBench {
            precision: "int8".into(),
            seconds_to_load: 0.1,
            seconds_to_first_token: 0.2,
            weight_bytes: 1000,
            cache_bytes: 50,
            resident: Some(Resident { anonymous: 1200, file: 100 }),
            resident_before: None,
            idle_share: None,
        };
        assert_eq!(bench.memory_over_weights(), Some(1.25));
        bench.resident = None;
        assert_eq!(bench.memory_over_weights(), None);
    }
}
