//! An estimate where nothing measures: energy by processor time.
//!
//! `E = wall * P_idle * share + (P_tdp - P_idle) * cpu_seconds / package_cores`: a share of what the package takes when it is idle,
//! for as long as it took, and for each second of a processor its part of what the package takes beyond that when all of them work.
//! Between the two watts that is linear, and it knows nothing of clocks, instructions or memory. It follows processor time: where
//! two ways take the same processor time, it tells the same energy of them, and no saving beyond that is claimed from it.

use std::time::Duration;

use super::config::EnergyConfig;
use super::{Count, Counted, EnergyMeter};

/// Ten hundredths of a second, in which some systems count the time of a process that runs; Linux tells it to the microsecond.
const RESOLUTION: Duration =
    if cfg!(target_os = "linux") { Duration::from_millis(1) } else { Duration::from_millis(100) };

/// Processor time of this process so far, or why the system does not tell it.
type Clock = fn() -> Result<Duration, String>;

/// The estimate by the numbers of the settings.
#[derive(Clone, Debug)]
pub struct Estimate {
    idle_watts: f64,
    tdp_watts: f64,
    share: f64,
    package_cores: usize,
    source: String,
    clock: Clock,
}

impl Estimate {
    /// By these settings.
    ///
    /// # Errors
    /// Which of the numbers is missing or out of range, or that this system does not tell processor time; without a full stop.
    pub fn open(config: &EnergyConfig) -> Result<Self, String> {
        Self::open_with(config, processor_time)
    }

    fn open_with(config: &EnergyConfig, clock: Clock) -> Result<Self, String> {
        let (Some(idle_watts), Some(tdp_watts), Some(package_cores)) =
            (config.idle_watts, config.tdp_watts, config.package_cores)
        else {
            return Err("it needs `idle-watts`, `tdp-watts` and `package-cores`".to_owned());
        };
        clock()?;
        let share = config.share;
        let source = format!(
            "estimated: E = wall * P_idle * share + (P_tdp - P_idle) * cpu_seconds / package_cores with P_idle = {idle_watts} W, share = {share}, P_tdp = {tdp_watts} W, package_cores = {package_cores}; it follows processor time"
        );
        Ok(Self { idle_watts, tdp_watts, share, package_cores, source, clock })
    }

    /// Joules of so many seconds in which processors worked for so many seconds in sum.
    pub fn joules(&self, wall: f64, cpu_seconds: f64) -> f64 {
        let working = (self.tdp_watts - self.idle_watts) * cpu_seconds / self.package_cores as f64;
        wall * self.idle_watts * self.share + working
    }
}

impl EnergyMeter for Estimate {
    fn source(&self) -> &str {
        &self.source
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn idle_watts(&self) -> Option<f64> {
        Some(self.idle_watts * self.share)
    }

    fn start(&self) -> Result<Box<dyn Count>, String> {
        Ok(Box::new(Counting { before: (self.clock)()?, meter: self.clone() }))
    }
}

/// A window under way.
struct Counting {
    meter: Estimate,
    before: Duration,
}

impl Count for Counting {
    fn finish(self: Box<Self>, seconds: f64) -> Result<Counted, String> {
        let after = (self.meter.clock)()?;
        let used = after.checked_sub(self.before).ok_or("the system's count of processor time went back")?;
        Ok(Counted { joules: self.meter.joules(seconds, used.as_secs_f64()), doubt: None })
    }
}

/// Processor time of this process by now, all threads, ended ones too. A system call of less than a microsecond; `/proc/self/stat`
/// tells the same in hundredths of a second, longer than many an answer.
#[cfg(unix)]
fn processor_time() -> Result<Duration, String> {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::ProcessCPUTime);
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds)) => Ok(Duration::new(seconds, nanoseconds)),
        _ => Err("the system tells a negative processor time".to_owned()),
    }
}

/// Where the system is asked in another way.
#[cfg(not(unix))]
fn processor_time() -> Result<Duration, String> {
    Err("it needs the processor time of this process, which is read on Unix alone".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::config::EnergySource;
    use super::*;

    fn config(idle: f64, tdp: f64, share: f64, cores: usize) -> EnergyConfig {
        EnergyConfig {
            source: EnergySource::Estimated,
            idle_watts: Some(idle),
            tdp_watts: Some(tdp),
            share,
            package_cores: Some(cores),
        }
    }

    fn estimate(idle: f64, tdp: f64, share: f64, cores: usize) -> Estimate {
        Estimate::open(&config(idle, tdp, share, cores)).unwrap()
    }

    #[test]
    fn the_formula_gives_hand_numbers() {
        // 10 s of 60 W * 0.25, and 300 W over 64 processors for 16 s of one.
        assert_eq!(estimate(60.0, 360.0, 0.25, 64).joules(10.0, 16.0), 150.0 + 75.0);
        // A package that is this machine's alone, all of whose processors work: its TDP.
        assert_eq!(estimate(60.0, 360.0, 1.0, 64).joules(2.0, 128.0), 720.0);
        assert_eq!(estimate(60.0, 360.0, 1.0, 64).joules(2.0, 0.0), 120.0);
        assert_eq!(estimate(0.0, 100.0, 0.5, 2).joules(3.0, 1.0), 50.0);
        assert_eq!(estimate(0.0, 0.0, 1.0, 1).joules(3.0, 3.0), 0.0);
    }

    #[test]
    fn the_source_is_the_formula_with_its_numbers() {
        assert_eq!(
            estimate(60.0, 360.5, 0.01, 192).source(),
            "estimated: E = wall * P_idle * share + (P_tdp - P_idle) * cpu_seconds / package_cores with P_idle = 60 W, share = 0.01, P_tdp = 360.5 W, package_cores = 192; it follows processor time"
        );
        assert_eq!(estimate(60.0, 360.5, 0.01, 192).idle_watts(), Some(0.6));
    }

    #[test]
    fn what_is_not_told_is_not_made_up() {
        for change in [
            |c: &mut EnergyConfig| c.idle_watts = None,
            |c: &mut EnergyConfig| c.tdp_watts = None,
            |c: &mut EnergyConfig| c.package_cores = None,
        ] {
            let mut config = config(60.0, 360.0, 1.0, 64);
            change(&mut config);
            assert!(Estimate::open(&config).unwrap_err().contains("`package-cores`"));
        }
        let config = config(60.0, 360.0, 1.0, 64);
        assert_eq!(Estimate::open_with(&config, || Err("no clock".into())).unwrap_err(), "no clock");
        let meter = Estimate { clock: || Ok(Duration::ZERO), ..estimate(60.0, 360.0, 1.0, 64) };
        let window = Box::new(Counting { meter, before: Duration::from_secs(1) });
        assert!(window.finish(1.0).unwrap_err().contains("went back"));
    }

    /// Threads that have ended count too: the pool of an engine that was dropped in the window.
    #[test]
    #[cfg(target_os = "linux")]
    fn work_of_every_thread_is_counted() {
        const WORK: Duration = Duration::from_millis(60);
        let before = processor_time().unwrap();
        let work = || {
            let (begun, clock) = (processor_time().unwrap(), Instant::now());
            // By the process's own time, as other programs may take the processors; with an end, should that stand still.
            while processor_time().unwrap() < begun + WORK && clock.elapsed() < 100 * WORK {}
        };
        std::thread::spawn(work).join().unwrap();
        assert!(processor_time().unwrap() - before >= WORK);
    }

    proptest! {
        /// Windows add up, and more work never takes less.
        #[test]
        fn energy_is_additive_and_grows_with_work(
            idle in 0.0..500.0_f64, above in 0.0..500.0_f64, share in 0.0..=1.0_f64, cores in 1_usize..512,
            wall in (0.0..1e4_f64, 0.0..1e4_f64), cpu in (0.0..1e5_f64, 0.0..1e5_f64),
        ) {
            let meter = estimate(idle, idle + above, share, cores);
            let apart = meter.joules(wall.0, cpu.0) + meter.joules(wall.1, cpu.1);
            let together = meter.joules(wall.0 + wall.1, cpu.0 + cpu.1);
            prop_assert!((apart - together).abs() <= 1e-9 * together.max(1.0));
            prop_assert!(meter.joules(wall.0, cpu.0) >= 0.0);
            prop_assert!(meter.joules(wall.0, cpu.0 + cpu.1) >= meter.joules(wall.0, cpu.0));
            // Less idle energy, what is left is processor time's alone.
            let net = meter.joules(wall.0, cpu.0) - wall.0 * meter.idle_watts().unwrap();
            prop_assert!((net - above * cpu.0 / cores as f64).abs() <= 1e-9 * (net.abs() + wall.0 * idle).max(1.0));
        }
    }
}
