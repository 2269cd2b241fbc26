//! The machine around a run: what it takes when idle, how hot it is, and whether it holds back.

use std::time::Duration;

use paceline::Engine;
use paceline::meters::thermal::Thermometer;
use paceline::model::DeviceName;
use serde::{Deserialize, Serialize};

/// Duration of an idle power measurement, before a run and after it: much longer than any meter's resolution.
const IDLE: Duration = Duration::from_secs(3);

/// State of the machine while the loaded engine had nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Watts of what the meter counts; `None` where nothing measures power.
    pub idle_watts: Option<f64>,
    /// The highest temperature in degrees Celsius and its sensor, where one tells.
    pub celsius: Option<(f64, String)>,
    /// Why a card's clocks are lower than they could be.
    pub throttling: Vec<String>,
}

impl Environment {
    /// Looks at them, for an engine that computes on `device`. Where power is measured this takes [`IDLE`].
    pub fn look(engine: &Engine, device: DeviceName) -> Self {
        let meter = &engine.info().meter;
        // An estimate knows what it assumes, and measures nothing.
        let idle_watts = meter.idle_watts().or_else(|| Some(meter.measure_idle(IDLE).ok()?.watts()));
        let thermometer = Thermometer::open(device);
        Self {
            idle_watts,
            celsius: thermometer.hottest().map(|hottest| (hottest.celsius, hottest.source)),
            throttling: thermometer.throttling().into_iter().map(str::to_owned).collect(),
        }
    }

    /// In words; `None` where nothing was seen.
    pub fn described(&self) -> Option<String> {
        let watts = self.idle_watts.map(|watts| format!("{watts:.1} W idle"));
        let celsius = self.celsius.as_ref().map(|(celsius, sensor)| format!("{celsius:.0} °C ({sensor})"));
        let held = (!self.throttling.is_empty()).then(|| format!("held back by {}", self.throttling.join(", ")));
        let words: Vec<String> = [watts, celsius, held].into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
