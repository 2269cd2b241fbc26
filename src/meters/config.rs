//! Settings of the energy meter: which one, and the watts that it cannot know by itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// More watts than any processor or card takes.
const MOST_WATTS: f64 = 100_000.0;

/// Source of the energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergySource {
    /// The meter of the device that computes: `nvml` for a GPU, `rapl` for the processor, nothing where that is
    /// missing. Never an estimate.
    #[default]
    Auto,
    /// The NVIDIA driver's counter of the card that computes.
    Nvml,
    /// The processor packages' own counters, as Linux shows them.
    Rapl,
    /// A formula over processor time, from watts that the settings name. It follows processor time, so it shows no saving that is not
    /// one of processor time.
    Estimated,
    /// Nothing.
    None,
}

impl fmt::Display for EnergySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Nvml => "nvml",
            Self::Rapl => "rapl",
            Self::Estimated => "estimated",
            Self::None => "none",
        })
    }
}

/// Which energy meter, and what it needs to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EnergyConfig {
    /// Source of the energy. One that is named and missing keeps an engine from loading.
    #[serde(rename = "energy-source")]
    pub source: EnergySource,
    /// Watts that what is measured takes when nothing runs: where they are known, net energy is told beside gross. For `estimated`,
    /// which needs them, those of the whole package.
    pub idle_watts: Option<f64>,
    /// Watts of the whole package when all its processors work, as its maker states them (TDP); `estimated` needs them.
    pub tdp_watts: Option<f64>,
    /// For `estimated`: the share of the idle watts that is this machine's, from 0 to 1. A virtual machine has as many parts of its
    /// host's package as it has of its processors.
    #[serde(rename = "idle-share")]
    pub share: f64,
    /// For `estimated`, which needs them: processors of the whole package, each as many as can work at once (hardware threads, where a
    /// core has several). A virtual machine shows fewer.
    pub package_cores: Option<usize>,
}

impl Default for EnergyConfig {
    fn default() -> Self {
        Self { source: EnergySource::Auto, idle_watts: None, tdp_watts: None, share: 1.0, package_cores: None }
    }
}

impl EnergyConfig {
    /// Settings that name a meter, everything else at its default.
    pub fn new(source: EnergySource) -> Self {
        Self { source, ..Self::default() }
    }

    /// Checks every field against its range, and whether an estimate has what it needs.
    ///
    /// # Errors
    /// A sentence that names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        for (name, watts) in [("idle-watts", self.idle_watts), ("tdp-watts", self.tdp_watts)] {
            if let Some(watts) = watts.filter(|watts| !(0.0..=MOST_WATTS).contains(watts)) {
                return Err(format!("`{name}` is {watts}, but it must be a number of watts from 0 to {MOST_WATTS}."));
            }
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(format!("`idle-share` is {}, but it must be a share from 0 to 1.", self.share));
        }
        if self.package_cores == Some(0) {
            return Err("`package-cores` is 0, but a package has at least 1 processor.".to_owned());
        }
        if let (Some(idle), Some(tdp)) = (self.idle_watts, self.tdp_watts)
            && idle > tdp
        {
            return Err(format!(
                "`idle-watts` is {idle}, which is more than the {tdp} of `tdp-watts`: a package takes least when it is idle."
            ));
        }
        let needed = [
            ("idle-watts", self.idle_watts.is_some()),
            ("tdp-watts", self.tdp_watts.is_some()),
            ("package-cores", self.package_cores.is_some()),
        ];
        match needed.iter().find(|(_, is_given)| !is_given) {
            Some((missing, _)) if self.source == EnergySource::Estimated => Err(format!(
                "`energy-source = estimated` computes energy from numbers of the whole package, and `{missing}` is not given: name `idle-watts`, `tdp-watts` and `package-cores`, and on a virtual machine `idle-share`."
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn estimated() -> EnergyConfig {
        EnergyConfig {
            idle_watts: Some(60.0),
            tdp_watts: Some(360.0),
            package_cores: Some(192),
            ..EnergyConfig::new(EnergySource::Estimated)
        }
    }

    #[test]
    fn settings_out_of_range_get_a_sentence_that_names_them() {
        type Case = (fn(&mut EnergyConfig), &'static [&'static str]);
        let cases: [Case; _] = [
            (|c| c.idle_watts = Some(-1.0), &["`idle-watts` is -1", "from 0"]),
            (|c| c.idle_watts = Some(f64::NAN), &["`idle-watts` is NaN"]),
            (|c| c.tdp_watts = Some(f64::INFINITY), &["`tdp-watts` is inf"]),
            (|c| c.tdp_watts = Some(1e6), &["`tdp-watts` is 1000000", "100000"]),
            (|c| c.share = 1.01, &["`idle-share` is 1.01", "0 to 1"]),
            (|c| c.share = -0.1, &["`idle-share` is -0.1"]),
            (|c| c.share = f64::NAN, &["`idle-share` is NaN"]),
            (|c| c.package_cores = Some(0), &["`package-cores` is 0", "at least 1"]),
            (|c| c.tdp_watts = Some(59.0), &["`idle-watts` is 60", "59 of `tdp-watts`"]),
            (|c| c.idle_watts = None, &["`idle-watts` is not given", "estimated"]),
            (|c| c.tdp_watts = None, &["`tdp-watts` is not given"]),
            (|c| c.package_cores = None, &["`package-cores` is not given"]),
        ];
        for (change, words) in cases {
            let mut config = estimated();
            change(&mut config);
            let sentence = config.validate().unwrap_err();
            assert!(sentence.ends_with('.') && words.iter().all(|word| sentence.contains(word)), "{sentence}");
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_allowed_and_measured_sources_need_nothing() {
        let ends = EnergyConfig {
            idle_watts: Some(0.0),
            tdp_watts: Some(0.0),
            share: 0.0,
            package_cores: Some(1),
            ..estimated()
        };
        assert_eq!(ends.validate(), Ok(()));
        for source in [EnergySource::Auto, EnergySource::Nvml, EnergySource::Rapl, EnergySource::None] {
            assert_eq!(EnergyConfig::new(source).validate(), Ok(()));
        }
    }

    #[test]
    fn names_are_those_of_the_settings() {
        let config: EnergyConfig = toml::from_str(
            "energy-source = \"estimated\"\nidle-watts = 60\ntdp-watts = 360\npackage-cores = 192\nidle-share = 0.01",
        )
        .unwrap();
        assert_eq!(config, EnergyConfig { share: 0.01, ..estimated() });
        for source in ["auto", "nvml", "rapl", "estimated", "none"] {
            let config: EnergyConfig = toml::from_str(&format!("energy-source = '{source}'")).unwrap();
            assert_eq!(config.source.to_string(), source);
        }
    }
}
