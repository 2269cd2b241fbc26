//! NVML: what NVIDIA's driver tells of a card. The library is looked for when a card is asked for; where it is not, that is a
//! missing meter and nothing else.
//!
//! Cards since Volta count the energy that they took. Of others the power is sampled and integrated. Either is the whole card's, every
//! program's on it, and not the processor's. Power is brought up to date every 20 to 100 ms, and on some cards measured for a part of
//! that only (Yang, Adamek and Armour, *Part-time Power Measurements: nvidia-smi's Lack of Attention*, 2023).

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{Count, Counted, EnergyMeter};
use crate::visible::shown;

/// Ten updates of a card's counter.
const RESOLUTION: Duration = Duration::from_secs(1);

/// Sampling interval of power where there is no counter.
const SAMPLING: Duration = Duration::from_millis(50);

/// Queries to a card. The errors are the driver's words, without a full stop.
pub trait Gpu: Send + Sync {
    /// Name of the card: its number and kind.
    fn name(&self) -> &str;

    /// Millijoules since the driver was loaded.
    ///
    /// # Errors
    /// If the card does not count them, or cannot be asked.
    fn millijoules(&self) -> Result<u64, String>;

    /// Milliwatts by now.
    ///
    /// # Errors
    /// If the card does not tell them, or cannot be asked.
    fn milliwatts(&self) -> Result<u32, String>;

    /// The temperature in degrees Celsius.
    ///
    /// # Errors
    /// If the card does not tell it, or cannot be asked.
    fn celsius(&self) -> Result<u32, String>;

    /// Why its clocks are lower than they could be, in words; empty where they are not, or nothing runs.
    ///
    /// # Errors
    /// If the card does not tell it, or cannot be asked.
    fn throttling(&self) -> Result<Vec<&'static str>, String>;
}

/// The card that CUDA knows by this index.
///
/// # Errors
/// Why it cannot be asked and what to do, without a full stop.
pub fn gpu(index: usize) -> Result<Arc<dyn Gpu>, String> {
    // One library a process: opening it looks for some hundred functions, and closing it would stop all who ask.
    static LIBRARY: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Nvml::init().map_err(|error| told(&error))).as_ref();
    let missing = |reason: &str| {
        format!(
            "NVML, a part of NVIDIA's driver, cannot be used ({reason}); install the driver, or choose another `energy-source`"
        )
    };
    let library = library.map_err(|reason| missing(reason))?;
    let of_environment = |name: &str| std::env::var(name).ok();
    let (visible, order) = (of_environment("CUDA_VISIBLE_DEVICES"), of_environment("CUDA_DEVICE_ORDER"));
    let names = (0..library.device_count().map_err(|error| missing(&told(&error)))?).map(|index| {
        library.device_by_index(index).and_then(|card| card.name()).map_err(|error| missing(&told(&error)))
    });
    let device = match card(index, visible.as_deref(), order.as_deref(), &names.collect::<Result<Vec<_>, _>>()?)? {
        Card::Index(index) => library.device_by_index(index),
        Card::Uuid(uuid) => library.device_by_uuid(uuid),
    };
    let device = device.map_err(|error| missing(&told(&error)))?;
    let kind = device.name().map_err(|error| missing(&told(&error)))?;
    Ok(Arc::new(Asked { device, name: format!("GPU {index} ({})", shown(&kind)) }))
}

/// The driver's words on one line.
fn told(error: &NvmlError) -> String {
    shown(&error.to_string())
}

/// Identity of a card in NVML.
#[derive(Debug, PartialEq, Eq)]
enum Card {
    Index(u32),
    Uuid(String),
}

/// The card that CUDA knows by `index`, of cards with these names. CUDA counts those of `CUDA_VISIBLE_DEVICES`, in an order of its
/// own (`CUDA_DEVICE_ORDER`); NVML counts all, as they are plugged in.
fn card(index: usize, visible: Option<&str>, order: Option<&str>, names: &[String]) -> Result<Card, String> {
    let absent = || format!("CUDA shows no device {index} here; look at `CUDA_VISIBLE_DEVICES`");
    let nth = match visible {
        None => u32::try_from(index).map_err(|_| absent())?,
        Some(visible) => match visible.split(',').nth(index).map(str::trim) {
            Some(uuid) if uuid.starts_with("GPU-") => return Ok(Card::Uuid(uuid.to_owned())),
            Some(part) if part.starts_with("MIG-") => {
                return Err(
                    "a part of a card (MIG) has no energy meter of its own; choose another `energy-source`".to_owned()
                );
            }
            entry => entry.and_then(|entry| entry.parse().ok()).ok_or_else(absent)?,
        },
    };
    if nth as usize >= names.len() {
        return Err(absent());
    }
    if order != Some("PCI_BUS_ID") && names.iter().any(|name| *name != names[0]) {
        return Err(format!(
            "this machine's cards are not all alike, and CUDA may count them in another order than NVML; set the environment's `CUDA_DEVICE_ORDER=PCI_BUS_ID`, so that cuda:{index} is one card for both"
        ));
    }
    Ok(Card::Index(nth))
}

/// A card behind the driver.
struct Asked {
    device: Device<'static>,
    name: String,
}

impl Gpu for Asked {
    fn name(&self) -> &str {
        &self.name
    }

    fn millijoules(&self) -> Result<u64, String> {
        self.device.total_energy_consumption().map_err(|error| told(&error))
    }

    fn milliwatts(&self) -> Result<u32, String> {
        self.device.power_usage().map_err(|error| told(&error))
    }

    fn celsius(&self) -> Result<u32, String> {
        self.device.temperature(TemperatureSensor::Gpu).map_err(|error| told(&error))
    }

    fn throttling(&self) -> Result<Vec<&'static str>, String> {
        self.device.current_throttle_reasons().map(reasons).map_err(|error| told(&error))
    }
}

/// Reasons in words.
fn reasons(bits: ThrottleReasons) -> Vec<&'static str> {
    [
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "a program's setting of clocks"),
        (ThrottleReasons::SW_POWER_CAP, "the power limit"),
        (ThrottleReasons::HW_SLOWDOWN, "slowed down by the hardware"),
        (ThrottleReasons::SYNC_BOOST, "another card in its group"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "temperature, by the driver"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "temperature, by the hardware"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "the power supply's brake"),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "a display's setting of clocks"),
    ]
    .into_iter()
    .filter(|(bit, _)| bits.contains(*bit))
    .map(|(_, words)| words)
    .collect()
}

/// The energy of a card.
pub struct NvmlMeter {
    gpu: Arc<dyn Gpu>,
    source: String,
    /// Sampling interval of power; `None` where the card counts energy.
    sampling: Option<Duration>,
}

impl NvmlMeter {
    /// The meter of a card: its counter, or else its power. Which of them is found out here, once.
    ///
    /// # Errors
    /// If it tells neither, and what to do; without a full stop.
    pub fn open(gpu: Arc<dyn Gpu>) -> Result<Self, String> {
        let name = gpu.name();
        let (source, sampling) = match (gpu.millijoules(), gpu.milliwatts()) {
            (Ok(_), _) => (format!("NVML: energy counter of {name}, all programs on it"), None),
            (Err(_), Ok(_)) => {
                let source = format!(
                    "NVML: power of {name}, sampled every {} ms and integrated, all programs on it",
                    SAMPLING.as_millis()
                );
                (source, Some(SAMPLING))
            }
            (Err(counter), Err(power)) => {
                return Err(format!(
                    "{name} tells neither energy ({counter}) nor power ({power}); choose another `energy-source`"
                ));
            }
        };
        Ok(Self { gpu, source, sampling })
    }
}

impl EnergyMeter for NvmlMeter {
    fn source(&self) -> &str {
        &self.source
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn start(&self) -> Result<Box<dyn Count>, String> {
        let gpu = Arc::clone(&self.gpu);
        Ok(match self.sampling {
            None => Box::new(Counting { before: gpu.millijoules()?, gpu }),
            Some(interval) => Box::new(Sampling::start(gpu, interval)?),
        })
    }
}

/// A window under way by the counter.
struct Counting {
    gpu: Arc<dyn Gpu>,
    before: u64,
}

impl Count for Counting {
    fn finish(self: Box<Self>, _seconds: f64) -> Result<Counted, String> {
        let used = self.gpu.millijoules()?.checked_sub(self.before);
        let used = used.ok_or_else(|| {
            format!("the energy counter of {} was set back, as by a reset of the card", self.gpu.name())
        })?;
        Ok(Counted { joules: used as f64 * 1e-3, doubt: None })
    }
}

/// A window under way by samples of the power, which a thread of its own takes. It ends with the window, finished or not.
struct Sampling {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Result<f64, String>>,
}

impl Sampling {
    fn start(gpu: Arc<dyn Gpu>, interval: Duration) -> Result<Self, String> {
        let (stop, stopped) = mpsc::channel();
        let started = Instant::now();
        let mut sum = Integral::default();
        sum.add(0.0, watts(&*gpu)?);
        let sample = move || {
            loop {
                let is_over = stopped.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected);
                sum.add(started.elapsed().as_secs_f64(), watts(&*gpu)?);
                if is_over {
                    return Ok(sum.joules);
                }
            }
        };
        let thread = std::thread::Builder::new().name("paceline-power".into()).spawn(sample);
        let thread = thread.map_err(|error| format!("the thread that samples power could not be started ({error})"))?;
        Ok(Self { stop, thread })
    }
}

impl Count for Sampling {
    fn finish(self: Box<Self>, _seconds: f64) -> Result<Counted, String> {
        drop(self.stop);
        let joules = self.thread.join().unwrap_or_else(|_| Err("the thread that samples power panicked".to_owned()))?;
        Ok(Counted { joules, doubt: None })
    }
}

fn watts(gpu: &dyn Gpu) -> Result<f64, String> {
    Ok(f64::from(gpu.milliwatts()?) * 1e-3)
}

/// Energy by samples of power, with straight lines between them (the trapezoidal rule).
#[derive(Default)]
struct Integral {
    joules: f64,
    last: Option<(f64, f64)>,
}

impl Integral {
    /// Adds a sample of so many watts after so many seconds.
    fn add(&mut self, seconds: f64, watts: f64) {
        if let Some((before, last)) = self.last {
            self.joules += (seconds - before) * (watts + last) / 2.0;
        }
        self.last = Some((seconds, watts));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
pub(super) mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// A card that answers from lists, the last entry for ever; what is not in a list it does not support.
    #[derive(Default)]
    pub(in super::super) struct Fake {
        pub(in super::super) millijoules: Mutex<Vec<Result<u64, &'static str>>>,
        pub(in super::super) milliwatts: Mutex<Vec<Result<u32, &'static str>>>,
        pub(in super::super) celsius: Option<u32>,
        pub(in super::super) throttling: Vec<&'static str>,
    }

    fn next<T: Copy>(answers: &Mutex<Vec<Result<T, &'static str>>>) -> Result<T, String> {
        let mut answers = answers.lock().unwrap();
        let first = *answers.first().unwrap_or(&Err("not supported"));
        if answers.len() > 1 {
            answers.drain(..1);
        }
        first.map_err(str::to_owned)
    }

    impl Gpu for Fake {
        fn name(&self) -> &str {
            "GPU 0 (Fake)"
        }

        fn millijoules(&self) -> Result<u64, String> {
            next(&self.millijoules)
        }

        fn milliwatts(&self) -> Result<u32, String> {
            next(&self.milliwatts)
        }

        fn celsius(&self) -> Result<u32, String> {
            self.celsius.ok_or_else(|| "not supported".to_owned())
        }

        fn throttling(&self) -> Result<Vec<&'static str>, String> {
            Ok(self.throttling.clone())
        }
    }

    /// A meter whose first reading, when it is opened, is the first of the list.
    fn counter(answers: &[Result<u64, &'static str>]) -> NvmlMeter {
        NvmlMeter::open(Arc::new(Fake { millijoules: Mutex::new(answers.to_vec()), ..Fake::default() })).unwrap()
    }

    fn power(answers: &[Result<u32, &'static str>]) -> NvmlMeter {
        let card = Fake { milliwatts: Mutex::new(answers.to_vec()), ..Fake::default() };
        NvmlMeter { sampling: Some(Duration::from_millis(2)), ..NvmlMeter::open(Arc::new(card)).unwrap() }
    }

    #[test]
    fn a_counter_is_read_at_both_ends() {
        let meter = counter(&[Ok(1_000), Ok(5_000), Ok(12_500)]);
        assert_eq!(meter.source(), "NVML: energy counter of GPU 0 (Fake), all programs on it");
        assert_eq!(meter.start().unwrap().finish(1.0), Ok(Counted { joules: 7.5, doubt: None }));
    }

    #[test]
    fn a_counter_that_fails_or_goes_back_is_an_error() {
        let window = counter(&[Ok(1_000), Ok(5_000), Err("GPU lost")]).start().unwrap();
        assert_eq!(window.finish(1.0), Err("GPU lost".to_owned()));
        assert_eq!(counter(&[Ok(1_000), Err("GPU lost")]).start().err(), Some("GPU lost".to_owned()));
        let window = counter(&[Ok(1_000), Ok(5_000), Ok(10)]).start().unwrap();
        assert!(window.finish(1.0).unwrap_err().contains("set back"));
    }

    #[test]
    fn a_card_without_a_counter_has_its_power_integrated() {
        let meter = power(&[Ok(80_000)]);
        assert!(meter.source().contains("power of GPU 0 (Fake), sampled every 50 ms"), "{}", meter.source());
        let (started, window) = (Instant::now(), meter.start().unwrap());
        std::thread::sleep(Duration::from_millis(30));
        let least = started.elapsed();
        let joules = window.finish(0.0).unwrap().joules;
        let most = started.elapsed();
        // 80 W for as long as the window was open, whenever the thread got its turn.
        assert!((80.0 * least.as_secs_f64() * 0.99..=80.0 * most.as_secs_f64()).contains(&joules), "{joules} J");
    }

    #[test]
    fn power_that_fails_in_the_middle_is_an_error() {
        let window = power(&[Ok(80_000), Ok(80_000), Ok(80_000), Err("GPU lost")]).start().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(window.finish(1.0), Err("GPU lost".to_owned()));
        assert!(power(&[Ok(80_000), Err("GPU lost")]).start().is_err());
    }

    #[test]
    fn a_window_that_is_dropped_ends_its_thread() {
        let gpu = Arc::new(Fake { milliwatts: Mutex::new(vec![Ok(1)]), ..Fake::default() });
        let held = Arc::clone(&gpu);
        drop(Sampling::start(gpu, Duration::from_millis(1)).unwrap());
        let waited = Instant::now();
        while Arc::strong_count(&held) > 1 {
            assert!(waited.elapsed() < Duration::from_secs(60), "the thread still samples");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_card_that_tells_neither_is_no_meter() {
        let reason = NvmlMeter::open(Arc::new(Fake::default())).err().unwrap();
        assert_eq!(
            reason,
            "GPU 0 (Fake) tells neither energy (not supported) nor power (not supported); choose another `energy-source`"
        );
    }

    /// With a driver there may be a card; without one this must be a sentence and no crash.
    #[test]
    fn a_machine_without_a_driver_or_card_is_told_so() {
        match gpu(usize::MAX) {
            Ok(_) => panic!("no machine has so many cards"),
            Err(reason) => {
                assert!(reason.contains("NVIDIA's driver") || reason.contains("CUDA shows no device"), "{reason}");
            }
        }
    }

    /// For machines with a card: `cargo test -- --ignored the_first_card`.
    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn the_first_card_tells_energy_and_temperature() {
        let card = gpu(0).unwrap();
        let meter = NvmlMeter::open(Arc::clone(&card)).unwrap();
        let window = meter.start().unwrap();
        std::thread::sleep(2 * RESOLUTION);
        let joules = window.finish(2.0).unwrap().joules;
        // A card that is on takes some watts, and none takes two kilowatts.
        assert!((5.0..4000.0).contains(&joules), "{} tells {joules} J", meter.source());
        assert!((10..120).contains(&card.celsius().unwrap()));
        card.throttling().unwrap();
    }

    #[test]
    fn a_card_of_cuda_is_the_same_card_here() {
        let alike = vec!["A".to_owned(); 4];
        let mixed = ["A", "B", "A", "A"].map(str::to_owned);
        let of = |index, visible, order, names: &[String]| card(index, visible, order, names);
        assert_eq!(of(1, None, None, &alike), Ok(Card::Index(1)));
        assert_eq!(of(0, Some("3, 1"), None, &alike), Ok(Card::Index(3)));
        assert_eq!(of(1, Some("3, 1"), None, &alike), Ok(Card::Index(1)));
        assert_eq!(of(1, Some("0,GPU-8932f937"), None, &alike), Ok(Card::Uuid("GPU-8932f937".into())));
        assert_eq!(of(1, None, Some("PCI_BUS_ID"), &mixed), Ok(Card::Index(1)));
        for order in [None, Some("FASTEST_FIRST")] {
            assert!(of(1, None, order, &mixed).unwrap_err().contains("CUDA_DEVICE_ORDER=PCI_BUS_ID"));
        }
        for (index, visible) in
            [(4, None), (usize::MAX, None), (2, Some("3,1")), (0, Some("")), (0, Some("-1")), (0, Some("9"))]
        {
            assert!(
                of(index, visible, None, &alike).unwrap_err().contains("CUDA_VISIBLE_DEVICES"),
                "{index} {visible:?}"
            );
        }
        assert!(of(0, Some("MIG-41b36624"), None, &alike).unwrap_err().contains("MIG"));
    }

    #[test]
    fn reasons_are_told_in_words_and_idleness_is_none() {
        assert!(reasons(ThrottleReasons::NONE).is_empty() && reasons(ThrottleReasons::GPU_IDLE).is_empty());
        let hot = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::GPU_IDLE;
        assert_eq!(reasons(hot), ["the power limit", "temperature, by the hardware"]);
    }

    proptest! {
        /// Exact for power that changes linearly, whenever it is sampled.
        #[test]
        fn integration_is_exact_on_straight_lines(
            mut times in prop::collection::vec(0.0..100.0_f64, 2..20), start in 0.0..500.0_f64, slope in -5.0..5.0_f64,
        ) {
            times.sort_by(f64::total_cmp);
            let mut sum = Integral::default();
            times.iter().for_each(|&at| sum.add(at, start + slope * at));
            let (from, to) = (times[0], times[times.len() - 1]);
            let expected = start * (to - from) + slope * (to * to - from * from) / 2.0;
            prop_assert!((sum.joules - expected).abs() < 1e-6, "{} for {}", sum.joules, expected);
        }
    }
}
