//! The plans that are tested, and their names in files and on the command line.

use std::fmt;
use std::str::FromStr;

use paceline::info::EngineInfo;
use paceline::{DrafterChoice, GenerationConfig, Quality};
use paceline_router::Lossy;

/// Confidences of the deepest exit, and of the next one.
const DEEPEST: [f64; 4] = [0.999, 0.99, 0.95, 0.9];
const NEXT: [f64; 2] = [0.99, 0.9];

/// A plan as it is named: `int8`, `exit:9@0.999`, `skip:a3,m3`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle(pub Lossy);

impl FromStr for Bundle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is not a plan: write int8, int4, exit:9@0.99 or skip:a3,m3");
        let exit = |rest: &str| {
            let (depth, threshold) = rest.split_once('@')?;
            let threshold = threshold.parse().ok().filter(|threshold| (0.5..=1.0).contains(threshold))?;
            Some(Lossy::Exit { depth: depth.parse().ok()?, threshold })
        };
        Ok(Self(match (text, text.split_once(':')) {
            ("int8" | "int4", _) => Lossy::Precision(text.to_owned()),
            (_, Some(("exit", rest))) => exit(rest).ok_or_else(unknown)?,
            (_, Some(("skip", plan))) => {
                let plan: paceline::SkipPlan = plan.parse().map_err(|_| unknown())?;
                Lossy::Skip(plan.to_string())
            }
            _ => return Err(unknown()),
        }))
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Lossy::Exit { depth, threshold } => write!(f, "exit:{depth}@{threshold}"),
            Lossy::Skip(plan) => write!(f, "skip:{plan}"),
            Lossy::Precision(precision) => f.write_str(precision),
        }
    }
}

impl Bundle {
    /// The settings that ask for it.
    ///
    /// # Errors
    /// The rest of a sentence where it cannot be asked for.
    pub fn settings(&self, answer: &GenerationConfig) -> Result<GenerationConfig, String> {
        let free = GenerationConfig { quality: Quality::BestEffort, ..answer.clone() };
        Ok(match &self.0 {
            Lossy::Exit { depth, threshold } => {
                GenerationConfig { drafter: DrafterChoice::Exit(*depth), exit_threshold: Some(*threshold), ..free }
            }
            Lossy::Skip(plan) => GenerationConfig {
                skip_layers: Some(plan.parse().map_err(|_| format!("`{plan}` is not a list of layers"))?),
                ..free
            },
            Lossy::Precision(name) => GenerationConfig {
                lower_precision: Some(
                    serde_json::from_value(name.as_str().into())
                        .map_err(|_| format!("`{name}` is not a lower precision"))?,
                ),
                ..free
            },
        })
    }
}

/// The plans of what a target has, from conservative to aggressive: its lower precisions, or where none is loaded its exits. Both in one
/// order would deploy the slower: tokens that leave early are not drafted for, and lose more right answers than `int4` does.
pub fn defaults(info: &EngineInfo) -> Vec<Bundle> {
    let is_loaded = |name: &str| info.lower_precisions.iter().any(|format| format.to_string() == name);
    let bundle = |name: &str| Bundle(Lossy::Precision(name.to_owned()));
    let lower: Vec<Bundle> = ["int8", "int4"].into_iter().filter(|name| is_loaded(name)).map(bundle).collect();
    if !lower.is_empty() {
        return lower;
    }
    let mut exits = info.exits.iter().rev();
    let (deepest, next) = (exits.next(), exits.next());
    let leaving = |depth: Option<&usize>, confidences: &[f64]| -> Vec<Bundle> {
        let at = |depth: usize| confidences.iter().map(move |&threshold| Bundle(Lossy::Exit { depth, threshold }));
        depth.map(|depth| at(*depth)).into_iter().flatten().collect()
    };
    [leaving(deepest, &DEEPEST), leaving(next, &NEXT)].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_written() {
        for name in ["int8", "int4", "exit:9@0.999", "exit:2@0.5", "skip:2,a0,m1"] {
            let bundle: Bundle = name.parse().unwrap();
            assert_eq!(bundle.to_string(), name);
            bundle.settings(&GenerationConfig::default()).unwrap().validate().unwrap();
        }
        for name in ["", "int3", "exit:9", "exit:x@0.9", "exit:9@0.4", "exit:9@nan", "skip:", "skip:x", "lookup"] {
            let error = name.parse::<Bundle>().unwrap_err();
            assert!(error.contains("exit:9@0.99"), "{name}: {error}");
        }
    }
}
