//! Conditions of a certificate, and how their differences are found.

use serde::{Deserialize, Serialize};

use paceline_kernels::CacheFormat;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::checksum::Checksum;
use crate::files;
use crate::info::EngineInfo;
use crate::model::{Compute, MatrixFormat};
use crate::routing::identity::{of_exits, of_router, written};

/// The files that decide how a prompt becomes tokens, the chat template included.
const TEXT_FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"];

/// Bytes of such a file that are read at most, which loading its text reads of the largest of them too.
const LARGEST_TEXT_FILE: u64 = 256 << 20;

/// Conditions that a certificate holds for; another of any of these voids it. Hashes are in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The version of the program: another one may round otherwise, or judge prompts otherwise.
    pub build: String,
    /// The instruction set of the kernels, or `burn` on devices without them.
    pub instruction_set: String,
    /// The target's precision.
    pub precision: String,
    /// The precision of cached keys and values.
    pub kv_cache: String,
    /// A hash of the target.
    pub target: String,
    /// A hash of what makes prompts into tokens and ends answers: tokenizer, chat template and stop tokens.
    pub text: String,
    /// A hash of its trained exits; empty without any.
    pub exits: String,
    /// A hash of the router; empty without one.
    pub router: String,
}

impl Conditions {
    /// Conditions of a target that was loaded in this way.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn at(
        checkpoint: &Checkpoint,
        precision: MatrixFormat,
        kv_cache: CacheFormat,
        compute: &Compute,
    ) -> Result<Self, CheckpointError> {
        Self::new(checkpoint, compute.instruction_set(), precision, kv_cache)
    }

    /// Conditions of a loaded engine. Its target is read once more.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn of(info: &EngineInfo) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::open(&info.directory)?;
        Self::new(&checkpoint, info.instruction_set.clone(), info.format, info.cache_format)
    }

    fn new(
        checkpoint: &Checkpoint,
        instruction_set: String,
        precision: MatrixFormat,
        kv_cache: CacheFormat,
    ) -> Result<Self, CheckpointError> {
        Ok(Self {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            instruction_set,
            precision: precision.to_string(),
            kv_cache: kv_cache.to_string(),
            target: written(checkpoint.fingerprint()),
            text: of_text(checkpoint),
            exits: of_exits(checkpoint)?,
            router: of_router(checkpoint.path()),
        })
    }

    /// First of the certified conditions that differs here, if any, with both values.
    pub(super) fn difference<'a>(&'a self, here: &'a Self) -> Option<(&'static str, &'a str, &'a str)> {
        let pairs = [
            ("target", &self.target, &here.target),
            ("tokenizer, chat template or set of stop tokens", &self.text, &here.text),
            ("router", &self.router, &here.router),
            ("set of exits", &self.exits, &here.exits),
            ("instruction set", &self.instruction_set, &here.instruction_set),
            ("precision of the target", &self.precision, &here.precision),
            ("precision of the cache", &self.kv_cache, &here.kv_cache),
            ("version of Paceline", &self.build, &here.build),
        ];
        let found = pairs.into_iter().find(|(_, certified, found)| certified != found);
        found.map(|(what, certified, found)| (what, or_none(certified), or_none(found)))
    }
}

fn or_none(hash: &str) -> &str {
    if hash.is_empty() { "none" } else { hash }
}

/// The hash of what makes prompts into tokens and ends answers. The target's own hash knows nothing of it.
fn of_text(checkpoint: &Checkpoint) -> String {
    let mut hash = Checksum::default();
    hash.text(&format!("{:?}", checkpoint.config().stop_tokens));
    if let Some(metadata) = checkpoint.metadata() {
        hash.update(metadata.bytes());
        return written(hash.finish());
    }
    for name in TEXT_FILES {
        // What is not there makes no difference but this one.
        if let Ok(bytes) = files::read(&checkpoint.path().join(name), LARGEST_TEXT_FILE) {
            hash.text(name);
            hash.text(&written(Checksum::of(&bytes)));
        }
    }
    written(hash.finish())
}
