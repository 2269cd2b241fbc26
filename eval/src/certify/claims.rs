//! Claims that are to be shown together.
//!
//! Claims that are published together share one correction. So whoever adds a floor to a folder of certificates has
//! those of the same prompts that are there made anew with it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use paceline::certificate::{Certificate, Conditions};
use paceline_router::network::LEVELS;

use super::sequence::Claim;

/// Floors that are no further apart are one, by rounding.
const ROUNDING: f64 = 1e-9;

/// Why certificates cannot be made beside those that are there.
#[derive(Debug, thiserror::Error)]
pub enum GoalsError {
    /// The folder could not be read.
    #[error("The folder {} cannot be read: {source}; name another one with `--out`.", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Claims that share a correction share its delta.
    #[error(
        "The certificate {} is of the same prompts with a delta of {there}, and {asked} is asked for, but certificates that are published together share one: ask for `--delta {there}`, or remove that certificate.",
        path.display()
    )]
    OtherDelta {
        /// The certificate.
        path: PathBuf,
        /// Its delta.
        there: f64,
        /// The one that was asked for.
        asked: f64,
    },
    /// It would stay as it is beside the new one for its floor.
    #[error(
        "The certificate {} is of the same prompts and would have to be made anew with the others, but is not called {}: rename it, or remove it.",
        path.display(), file_name(*floor)
    )]
    OtherName {
        /// The certificate.
        path: PathBuf,
        /// Its floor.
        floor: f64,
    },
    /// It would be replaced, and holds for the same model elsewhere.
    #[error(
        "The certificate {} holds for {there}, and would be replaced by one for {here}: name another folder with `--out`, or remove it.",
        path.display()
    )]
    Elsewhere {
        /// The certificate.
        path: PathBuf,
        /// The instruction set and precisions that it holds for.
        there: String,
        /// Those of now.
        here: String,
    },
}

/// Name of the certificate for a floor.
pub fn file_name(floor: f64) -> String {
    format!("floor-{floor}.json")
}

/// The claims, the highest floor first: the floors that are asked for, and those of the certificates in a folder that
/// were made of these prompts under these conditions. The latter that were not asked for are returned too.
///
/// # Errors
/// When one that is there cannot be made anew with the others.
pub fn claims(
    asked: &[f64],
    delta: f64,
    folder: &Path,
    conditions: &Conditions,
    tasks: &str,
) -> Result<(Vec<Claim>, Vec<f64>), GoalsError> {
    let mut floors = asked.to_vec();
    let mut added = Vec::new();
    let all = there(folder)?;
    for (path, certificate) in all.iter().cloned() {
        // Of other prompts, or for something else, it claims something else.
        if certificate.calibration.tasks != tasks || certificate.conditions != *conditions {
            continue;
        }
        let floor = certificate.floor;
        if (certificate.delta - delta).abs() > ROUNDING {
            return Err(GoalsError::OtherDelta { path, there: certificate.delta, asked: delta });
        }
        let known = floors.iter().copied().find(|known| (known - floor).abs() <= ROUNDING);
        if path.file_name().is_none_or(|name| name != &*file_name(known.unwrap_or(floor))) {
            return Err(GoalsError::OtherName { path, floor });
        }
        if known.is_none() {
            floors.push(floor);
            added.push(floor);
        }
    }
    floors.sort_by(|a, b| b.total_cmp(a));
    floors.dedup();
    let names: Vec<String> = floors.iter().copied().map(file_name).collect();
    let is_replaced = |path: &Path| names.iter().any(|name| path.file_name().is_some_and(|own| own == &**name));
    if let Some((path, there)) =
        all.into_iter().find(|(path, there)| is_replaced(path) && holds_elsewhere(there, conditions))
    {
        let place =
            |of: &Conditions| format!("{}, {} and a cache in {}", of.instruction_set, of.precision, of.kv_cache);
        return Err(GoalsError::Elsewhere { path, there: place(&there.conditions), here: place(conditions) });
    }
    let claims = floors.len() * LEVELS.len();
    Ok((floors.into_iter().map(|floor| Claim { floor, delta, claims }).collect(), added))
}

/// True if a certificate is of the same model as here, but for another machine or precision.
fn holds_elsewhere(there: &Certificate, here: &Conditions) -> bool {
    let Conditions { instruction_set, precision, kv_cache, .. } = there.conditions.clone();
    there.conditions != *here && there.conditions == Conditions { instruction_set, precision, kv_cache, ..here.clone() }
}

/// The certificates in a folder that can be read; others hold nowhere.
fn there(folder: &Path) -> Result<Vec<(PathBuf, Certificate)>, GoalsError> {
    let failed = |source| GoalsError::Folder { path: folder.to_owned(), source };
    let entries: Vec<fs::DirEntry> = fs::read_dir(folder).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    let read = |path: PathBuf| Certificate::read(&path).ok().map(|certificate| (path, certificate));
    Ok(paths.into_iter().filter_map(read).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use paceline::certificate::{Calibration, Loss, Rendering, VERSION};

    use super::super::sequence::in_full;
    use super::*;

    fn conditions(target: &str) -> Conditions {
        let text = str::to_owned;
        Conditions {
            build: text("1"),
            instruction_set: text("avx512"),
            precision: text("bf16"),
            kv_cache: text("f32"),
            target: text(target),
            text: text("02"),
            exits: text("03"),
            router: text("04"),
        }
    }

    fn certificate(floor: f64, delta: f64, target: &str, tasks: &str) -> Certificate {
        Certificate {
            version: VERSION,
            floor,
            eps: 1.0 - floor,
            delta,
            claims: 3,
            bundles: Vec::new(),
            levels: LEVELS.map(|level| in_full(level, 10)).to_vec(),
            calibration: Calibration {
                tasks: tasks.to_owned(),
                n: 30,
                max_new_tokens: 64,
                rendering: Rendering::Messages,
                loss: Loss::Answers,
            },
            conditions: conditions(target),
            checksum: String::new(),
        }
    }

    #[test]
    fn floors_that_are_there_are_shown_together_with_those_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, certificate: &Certificate| {
            fs::write(folder.path().join(name), certificate.to_json().unwrap()).unwrap();
        };
        let found = |asked: &[f64]| claims(asked, 0.05, folder.path(), &conditions("01"), "0a");
        let floors = |asked: &[f64]| {
            let (claims, added) = found(asked).unwrap();
            assert!(claims.iter().all(|claim| claim.claims == 3 * claims.len() && claim.delta == 0.05), "{claims:?}");
            (claims.iter().map(|claim| claim.floor).collect::<Vec<_>>(), added)
        };
        assert_eq!(floors(&[0.9, 0.99, 0.9]), (vec![0.99, 0.9], vec![]));
        write("floor-0.99.json", &certificate(0.99, 0.05, "01", "0a"));
        assert_eq!(floors(&[0.95]), (vec![0.99, 0.95], vec![0.99]));
        assert_eq!(floors(&[0.99, 0.95]), (vec![0.99, 0.95], vec![]));
        // Of another model, of other prompts, or no certificates at all.
        write("floor-0.8.json", &certificate(0.8, 0.05, "02", "0a"));
        write("floor-0.7.json", &certificate(0.7, 0.1, "01", "0b"));
        fs::write(folder.path().join("floor-0.6.json"), "{").unwrap();
        assert_eq!(floors(&[0.95]), (vec![0.99, 0.95], vec![0.99]));
    }

    #[test]
    fn certificates_that_cannot_be_made_anew_with_the_others_are_refused_with_a_sentence() {
        for (name, delta, words) in [
            ("floor-0.99.json", 0.1, ["floor-0.99.json", "a delta of 0.1", "0.05 is asked for", "--delta 0.1"]),
            ("strict.json", 0.05, ["strict.json", "floor-0.99.json", "rename it", "made anew"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let there = certificate(0.99, delta, "01", "0a");
            fs::write(folder.path().join(name), there.to_json().unwrap()).unwrap();
            for asked in [0.99, 0.95] {
                let error = claims(&[asked], 0.05, folder.path(), &conditions("01"), "0a").unwrap_err().to_string();
                assert!(words.iter().all(|word| error.contains(word)) && error.ends_with('.'), "{error}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let mut there = certificate(0.9, 0.05, "01", "0b");
        there.conditions.instruction_set = "avx2".into();
        fs::write(folder.path().join("floor-0.9.json"), there.to_json().unwrap()).unwrap();
        let asked = |floor| claims(&[floor], 0.05, folder.path(), &conditions("01"), "0a");
        let error = asked(0.9).unwrap_err().to_string();
        let words = ["floor-0.9.json", "avx2, bf16", "avx512, bf16", "--out"];
        assert!(words.iter().all(|word| error.contains(word)) && error.ends_with('.'), "{error}");
        assert!(asked(0.95).is_ok());
        let error = claims(&[0.9], 0.05, Path::new("/nowhere"), &conditions("01"), "0a").unwrap_err().to_string();
        assert!(error.contains("/nowhere") && error.contains("--out"), "{error}");
    }
}
