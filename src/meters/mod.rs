//! Meters: the energy that an answer took, and the [temperature](thermal) of the machine.
//!
//! A [`Meter`] is opened once and opens [`Window`]s; a finished window is an [`Energy`]. Every number says where it comes from, sources
//! are never mixed, and nothing is replaced by an estimate: where nothing measures, energy is unavailable and the meter says
//! [why](Meter::problem). A meter is read when a window begins and when it ends, and not in between.
//!
//! Gross energy, everything that the meter counted, is what is quoted. Net energy, without what the machine takes when it is idle,
//! stands beside it where that is known: by the settings, or [measured](Meter::measure_idle).

mod config;
mod estimate;
pub mod nvml;
mod rapl;
mod system;
#[cfg(test)]
mod tests;
pub mod thermal;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use config::{EnergyConfig, EnergySource};
pub use estimate::Estimate;
pub use rapl::Rapl;
pub use system::ROOT;

use crate::model::DeviceName;
use nvml::{Gpu, NvmlMeter};

/// The source of an energy that nobody tells.
pub const UNAVAILABLE: &str = "unavailable";

/// Meter of energy. Reasons, the errors of its functions, end without a full stop.
pub trait EnergyMeter: Send + Sync {
    /// Quantity that is measured and how, or the formula of an estimate with its numbers.
    fn source(&self) -> &str;

    /// The shortest window of which it tells more than a rough number.
    fn resolution(&self) -> Duration;

    /// Watts of what it counts when nothing runs, where it knows them.
    fn idle_watts(&self) -> Option<f64> {
        None
    }

    /// Begins to count.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn start(&self) -> Result<Box<dyn Count>, String>;
}

/// A meter that counts.
pub trait Count: Send {
    /// Ends it, after so many seconds.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn finish(self: Box<Self>, seconds: f64) -> Result<Counted, String>;
}

/// Energy that was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Joules, of everything that the meter is for.
    pub joules: f64,
    /// Doubt about them beside the window's length, in a sentence.
    pub doubt: Option<String>,
}

/// Why there is no energy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// A meter that was named is not there.
    #[error("The energy meter `{meter}` is missing: {reason}.")]
    Missing {
        /// Which one.
        meter: EnergySource,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no meter, and none was asked for.
    #[error("Energy is unavailable: {0}.")]
    Unavailable(String),
    /// A meter could not be read.
    #[error("The energy could not be measured ({meter}): {reason}.")]
    Failed {
        /// The meter's source.
        meter: String,
        /// Why.
        reason: String,
    },
}

/// An energy and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Energy {
    /// Gross joules: everything that the meter counted.
    pub joules: f64,
    /// Joules without those of an idle machine over the same time, where its watts are known. Noise can bring them below 0.
    pub net_joules: Option<f64>,
    /// Where they come from.
    pub source: String,
    /// Length of the measurement, in seconds.
    pub seconds: f64,
    /// Doubts about the number, in sentences.
    pub doubt: Option<String>,
}

/// Joules of a watt-hour.
const WATT_HOUR: f64 = 3600.0;

impl Energy {
    /// The energy of one of several answers that were made together, whose share of the common work took so many of its seconds.
    #[must_use]
    pub fn shared(self, own_seconds: f64) -> Self {
        let share = if self.seconds > 0.0 { (own_seconds / self.seconds).clamp(0.0, 1.0) } else { 1.0 };
        let sentence =
            "Answers shared their steps: this is the energy meanwhile, by the share of the time that was the answer's.";
        let doubts: Vec<String> = self.doubt.into_iter().chain([sentence.to_owned()]).collect();
        Self {
            joules: self.joules * share,
            net_joules: self.net_joules.map(|joules| joules * share),
            doubt: Some(doubts.join(" ")),
            ..self
        }
    }

    /// Gross energy in watt-hours.
    pub fn watt_hours(&self) -> f64 {
        self.joules / WATT_HOUR
    }

    /// Net energy in watt-hours, where it is known.
    pub fn net_watt_hours(&self) -> Option<f64> {
        self.net_joules.map(|joules| joules / WATT_HOUR)
    }

    /// The mean power in watts; 0 of a window without length.
    pub fn watts(&self) -> f64 {
        if self.seconds > 0.0 { self.joules / self.seconds } else { 0.0 }
    }

    /// The same with net energy by these idle watts, as they were measured around it.
    #[must_use]
    pub fn without_idle(self, watts: f64) -> Self {
        Self { net_joules: Some(self.joules - watts * self.seconds), ..self }
    }
}

/// The energy meter of a device, or word that there is none. A clone is the same meter.
#[derive(Clone)]
pub struct Meter {
    /// The meter, or why there is none.
    meter: Result<Arc<dyn EnergyMeter>, String>,
    source: Arc<str>,
    idle_watts: Option<f64>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("source", &self.source).field("problem", &self.problem()).finish_non_exhaustive()
    }
}

impl Meter {
    /// The meter that the settings name, for what computes on `device`.
    ///
    /// # Errors
    /// A sentence if one was named and is missing. Where `auto` finds none there is no error, but a meter that tells nothing.
    ///
    /// ```
    /// use paceline::meters::{EnergyConfig, Meter};
    /// use paceline::model::DeviceName;
    ///
    /// let meter = Meter::open(&EnergyConfig::default(), DeviceName::Cpu)?;
    /// let window = meter.start();
    /// match window.finish() {
    ///     Ok(energy) => println!("{} J ({})", energy.joules, energy.source),
    ///     Err(why) => println!("{why}"),
    /// }
    /// # Ok::<(), paceline::meters::MeterError>(())
    /// ```
    pub fn open(config: &EnergyConfig, device: DeviceName) -> Result<Self, MeterError> {
        Self::open_in(config, device, Path::new(ROOT), nvml::gpu)
    }

    /// As [`Meter::open`], with a folder in place of [`ROOT`] and another way to a card.
    fn open_in(
        config: &EnergyConfig,
        device: DeviceName,
        root: &Path,
        gpu: impl Fn(usize) -> Result<Arc<dyn Gpu>, String>,
    ) -> Result<Self, MeterError> {
        let nvml = || match device {
            DeviceName::Cuda(index) => Ok(Arc::new(NvmlMeter::open(gpu(index)?)?) as Arc<dyn EnergyMeter>),
            // What a card takes that does not compute would be a number about something else.
            DeviceName::Cpu => {
                Err(format!("NVML measures NVIDIA's cards, and `{device}` computes; choose `rapl`, or `auto`"))
            }
        };
        let rapl = || Ok(Arc::new(Rapl::open(root)?) as Arc<dyn EnergyMeter>);
        let meter = match (config.source, device) {
            (EnergySource::None, _) => Err("`energy-source = none` was asked for".to_owned()),
            (EnergySource::Auto, DeviceName::Cuda(_)) | (EnergySource::Nvml, _) => nvml(),
            (EnergySource::Auto, DeviceName::Cpu) | (EnergySource::Rapl, _) => rapl(),
            (EnergySource::Estimated, _) => {
                Estimate::open(config).map(|estimate| Arc::new(estimate) as Arc<dyn EnergyMeter>)
            }
        };
        let may_be_missing = matches!(config.source, EnergySource::Auto | EnergySource::None);
        let meter = match meter {
            Err(reason) if !may_be_missing => {
                return Err(MeterError::Missing { meter: config.source, reason });
            }
            Err(reason) => return Ok(Self { meter: Err(reason), source: UNAVAILABLE.into(), idle_watts: None }),
            Ok(meter) => Self::of(meter),
        };
        let is_of_processor = matches!(config.source, EnergySource::Rapl | EnergySource::Estimated);
        let source = match device {
            DeviceName::Cuda(_) if is_of_processor => {
                format!("{}; without {device}, which computes", meter.source).into()
            }
            _ => meter.source,
        };
        Ok(Self { source, idle_watts: meter.idle_watts.or(config.idle_watts), ..meter })
    }

    /// A meter of one's own.
    pub fn of(meter: Arc<dyn EnergyMeter>) -> Self {
        Self { source: meter.source().into(), idle_watts: meter.idle_watts(), meter: Ok(meter) }
    }

    /// Quantity that it measures and how; [`UNAVAILABLE`] without a meter.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Why nothing measures, without a full stop; `None` where something does.
    pub fn problem(&self) -> Option<&str> {
        self.meter.as_ref().err().map(String::as_str)
    }

    /// Watts of an idle machine by which net energy is told, where they are known.
    pub fn idle_watts(&self) -> Option<f64> {
        self.idle_watts
    }

    /// The same meter with other idle watts: those that [`Meter::measure_idle`] found.
    #[must_use]
    pub fn with_idle_watts(self, watts: f64) -> Self {
        Self { idle_watts: Some(watts), ..self }
    }

    /// Begins to measure. What cannot be read is told when the window is finished; dropping it ends it.
    pub fn start(&self) -> Window {
        let (count, resolution) = match &self.meter {
            Ok(meter) => (meter.start().map_err(|reason| self.failed(reason)), meter.resolution()),
            Err(reason) => (Err(MeterError::Unavailable(reason.clone())), Duration::ZERO),
        };
        let (source, idle_watts) = (Arc::clone(&self.source), self.idle_watts);
        Window { count, started: Instant::now(), source, resolution, idle_watts }
    }

    /// Measures for so long while nothing runs: its [watts](Energy::watts) are the idle power. It sleeps meanwhile. Take it before
    /// a run and after: where the two differ, something else was at work, or the machine was still warm.
    ///
    /// # Errors
    /// As [`Window::finish`].
    pub fn measure_idle(&self, duration: Duration) -> Result<Energy, MeterError> {
        let window = self.start();
        // There is nothing to wait for where the window did not begin.
        if window.count.is_ok() {
            std::thread::sleep(duration);
        }
        window.finish()
    }

    fn failed(&self, reason: String) -> MeterError {
        failed(&self.source, reason)
    }
}

fn failed(source: &str, reason: String) -> MeterError {
    MeterError::Failed { meter: source.to_owned(), reason }
}

/// A measurement under way.
pub struct Window {
    count: Result<Box<dyn Count>, MeterError>,
    started: Instant,
    source: Arc<str>,
    resolution: Duration,
    idle_watts: Option<f64>,
}

impl Window {
    /// Ends it.
    ///
    /// # Errors
    /// [`MeterError::Unavailable`] where there is no meter, [`MeterError::Failed`] where it could not be read, now or at the
    /// beginning.
    pub fn finish(self) -> Result<Energy, MeterError> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.after(seconds)
    }

    /// Ends it after so many seconds.
    fn after(self, seconds: f64) -> Result<Energy, MeterError> {
        let Counted { joules, doubt } = self.count?.finish(seconds).map_err(|reason| failed(&self.source, reason))?;
        let resolution = self.resolution.as_secs_f64();
        let short = (seconds < resolution).then(|| {
            format!(
                "The window of {seconds:.4} s is shorter than {resolution} s, from which on this meter tells more than a rough number: add up many answers."
            )
        });
        let doubts: Vec<String> = short.into_iter().chain(doubt).collect();
        Ok(Energy {
            joules,
            net_joules: self.idle_watts.map(|watts| joules - watts * seconds),
            source: self.source.to_string(),
            seconds,
            doubt: (!doubts.is_empty()).then(|| doubts.join(" ")),
        })
    }
}
