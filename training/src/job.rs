//! The job that every step is given: the recipe, and the folder that everything it makes goes to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use paceline::command::{Failure, output};
use paceline::files::{Fills, LockError, LockKind, WriteError, lock, own_folder, read_text, write_file};
use paceline::model::DeviceName;

use crate::device::Place;
use crate::recipe::{Parameter, Recipe};

/// The flags that every step takes.
#[derive(Debug, Args)]
pub struct JobFlags {
    /// The settings, a TOML file
    #[arg(value_name = "RECIPE.toml")]
    pub recipe: PathBuf,
    /// The folder for everything that is made [default: out/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A value for a parameter of the recipe: `TEXT=my/texts` stands for ${TEXT} in it
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<Parameter>,
}

/// The flags of steps that train.
#[derive(Debug, Args)]
pub struct TrainingFlags {
    /// Flags of every step.
    #[command(flatten)]
    pub job: JobFlags,
    /// Where to compute: cpu, or cuda:0 in a build with CUDA
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceName,
    /// Processor threads; 0 for all that the process may use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

impl TrainingFlags {
    /// Opens the device.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(&self) -> Result<Place, Failure> {
        Place::open(self.device, self.threads)
    }
}

/// The end of a step that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something was made.
    Made,
    /// Everything was there, made of exactly what there is now.
    Kept,
}

impl Outcome {
    /// Says that nothing was left to do, where that is so; what was made was shown on the way.
    pub fn say(self, step: &str) {
        if self == Self::Kept {
            output::say(&format!("{step}: done already\n"));
        }
    }
}

/// A recipe at work in its folder, which no other command may use meanwhile.
#[derive(Debug)]
pub struct Job {
    /// The settings.
    pub recipe: Recipe,
    out: PathBuf,
    /// Held as long as the job lives.
    _lock: File,
}

impl Job {
    /// Reads the recipe and takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the recipe cannot be used, or the folder cannot be written or is in use.
    pub fn open(flags: &JobFlags) -> Result<Self, Failure> {
        let recipe = Recipe::read(&flags.recipe, &flags.set)?;
        let out = flags
            .out
            .clone()
            .unwrap_or_else(|| Path::new("out").join(flags.recipe.file_stem().unwrap_or(flags.recipe.as_os_str())));
        Ok(Self { recipe, _lock: take(&out)?, out })
    }

    /// The folder for everything that is made.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder of the tokenizer: the recipe's own, or the one it takes over.
    pub fn tokenizer(&self) -> PathBuf {
        self.recipe.tokenizer.from.clone().unwrap_or_else(|| self.out.join("tokenizer"))
    }

    /// The file of the generated tasks of a split (`train`, `validation`).
    pub fn tasks(&self, split: &str) -> PathBuf {
        self.out.join("tasks").join(format!("{split}.jsonl"))
    }

    /// A folder for what a step makes; it is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.out.join(name);
        fs::create_dir_all(&folder).map_err(|error| {
            anyhow!("The folder {} cannot be made: {error}; name another one with `--out`.", folder.display())
        })?;
        Ok(folder)
    }

    /// The folder of the model `name`, once it is trained.
    pub fn model(&self, name: &str) -> PathBuf {
        self.out.join("models").join(name)
    }

    /// The folder of the token shards.
    pub fn tokens(&self) -> PathBuf {
        self.out.join("tokens")
    }
}

impl Job {
    /// True if `step` was done with exactly what `key` is a hash of. The caller still looks at what it made.
    pub fn is_done(&self, step: &str, key: u64) -> bool {
        read_text(&self.done(step), 1 << 10).is_ok_and(|known| known.trim() == hexadecimal(key))
    }

    /// Remembers that `step` was done with what `key` is a hash of.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn mark_done(&self, step: &str, key: u64) -> Result<(), WriteError> {
        write_file(&self.done(step), format!("{}\n", hexadecimal(key)).as_bytes())
    }

    fn done(&self, step: &str) -> PathBuf {
        self.out.join(format!("{step}.done"))
    }
}

fn hexadecimal(key: u64) -> String {
    format!("{key:016x}")
}

/// Makes the folder and locks it against another command; the system lets go when the process ends, however.
fn take(out: &Path) -> Result<File, Failure> {
    let shown = out.display();
    let unwritable = |error: std::io::Error| {
        anyhow!("The folder {shown} cannot be used: {error}; name one that you may write with `--out`.")
    };
    own_folder(out, Fills::All).map_err(anyhow::Error::from)?;
    lock(&out.join("in-use.lock"), LockKind::Alone, Duration::ZERO).map_err(|error| match error {
        LockError::Held => {
            anyhow!("Another paceline-train works in {shown}: wait for its end, or name another folder with `--out`.")
                .into()
        }
        LockError::Impossible(error) => unwritable(error).into(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(&dir.path().join("a/b")).unwrap();
        let message = take(&dir.path().join("a/b")).unwrap_err().error.to_string();
        assert!(message.contains("Another paceline-train works in"), "{message}");
        drop(held);
        take(&dir.path().join("a/b")).unwrap();
    }
}
