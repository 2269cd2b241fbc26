//! Which meter is chosen, and what its windows tell.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::sync::Mutex;

use proptest::prelude::*;

use super::nvml::tests::Fake;
use super::system::recorded::{put, tree};
use super::*;

const PACKAGE: &[(&str, &str)] = &[
    ("powercap/intel-rapl:0/name", "package-0\n"),
    ("powercap/intel-rapl:0/energy_uj", "1000000\n"),
    ("powercap/intel-rapl:0/max_energy_range_uj", "262143328850\n"),
];
const CUDA: DeviceName = DeviceName::Cuda(0);

fn card(_index: usize) -> Result<Arc<dyn Gpu>, String> {
    Ok(Arc::new(Fake { millijoules: Mutex::new(vec![Ok(0), Ok(1_000), Ok(4_000)]), ..Fake::default() }))
}

fn no_card(_index: usize) -> Result<Arc<dyn Gpu>, String> {
    Err("there is no driver; install it".to_owned())
}

fn estimated() -> EnergyConfig {
    EnergyConfig {
        idle_watts: Some(40.0),
        tdp_watts: Some(100.0),
        share: 0.5,
        package_cores: Some(4),
        ..EnergyConfig::new(EnergySource::Estimated)
    }
}

/// A meter that tells the same of every window.
struct Constant {
    joules: f64,
    resolution: Duration,
    doubt: Option<&'static str>,
}

impl EnergyMeter for Constant {
    fn source(&self) -> &str {
        "constant"
    }

    fn resolution(&self) -> Duration {
        self.resolution
    }

    fn start(&self) -> Result<Box<dyn Count>, String> {
        Ok(Box::new(Counted { joules: self.joules, doubt: self.doubt.map(str::to_owned) }))
    }
}

impl Count for Counted {
    fn finish(self: Box<Self>, _seconds: f64) -> Result<Counted, String> {
        Ok(*self)
    }
}

fn constant(joules: f64) -> Meter {
    Meter::of(Arc::new(Constant { joules, resolution: Duration::from_secs(1), doubt: None }))
}

#[test]
fn auto_measures_what_computes_and_never_estimates() {
    let (with, without) = (tree(PACKAGE), tree(&[]));
    // Everything that an estimate needs is there, and not taken.
    let auto = EnergyConfig { source: EnergySource::Auto, ..estimated() };
    for (device, root, gpu, source) in [
        (DeviceName::Cpu, &with, card as fn(usize) -> _, "RAPL: counters of package-0,"),
        (DeviceName::Cpu, &without, card, UNAVAILABLE),
        (CUDA, &with, card, "NVML: energy counter of GPU 0 (Fake),"),
        (CUDA, &with, no_card, UNAVAILABLE),
    ] {
        let meter = Meter::open_in(&auto, device, root.path(), gpu).unwrap();
        assert!(meter.source().starts_with(source), "{device}: {meter:?}");
        assert_eq!(meter.problem().is_some(), source == UNAVAILABLE, "{meter:?}");
    }
    let none = Meter::open_in(&EnergyConfig::new(EnergySource::None), CUDA, with.path(), card).unwrap();
    assert_eq!(none.source(), UNAVAILABLE);
    let error = none.start().finish().unwrap_err();
    assert_eq!(error, MeterError::Unavailable("`energy-source = none` was asked for".to_owned()));
    assert_eq!(none.measure_idle(Duration::from_secs(3600)), Err(error));
}

#[test]
fn a_meter_that_is_named_and_missing_is_a_sentence() {
    let root = tree(&[]);
    for (source, device, words) in [
        (EnergySource::Rapl, DeviceName::Cpu, &["`rapl` is missing", "powercap", "choose `auto`"][..]),
        (EnergySource::Nvml, CUDA, &["`nvml` is missing", "no driver"]),
        (EnergySource::Nvml, DeviceName::Cpu, &["`nvml` is missing", "`cpu` computes", "choose `rapl`"]),
        (EnergySource::Estimated, DeviceName::Cpu, &["`estimated` is missing", "`package-cores`"]),
    ] {
        let sentence =
            Meter::open_in(&EnergyConfig::new(source), device, root.path(), no_card).unwrap_err().to_string();
        assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
        assert!(sentence.ends_with('.') && !sentence.ends_with("..") && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn what_is_not_measured_of_a_card_is_said() {
    let root = tree(PACKAGE);
    for config in [EnergyConfig::new(EnergySource::Rapl), estimated()] {
        let of = |device| Meter::open_in(&config, device, root.path(), card).unwrap().source().to_owned();
        assert_eq!(of(CUDA), format!("{}; without cuda:0, which computes", of(DeviceName::Cpu)));
    }
}

#[test]
fn a_window_tells_gross_and_net_with_the_source() {
    let root = tree(PACKAGE);
    let config = EnergyConfig { idle_watts: Some(10.0), ..EnergyConfig::new(EnergySource::Rapl) };
    let window = Meter::open_in(&config, DeviceName::Cpu, root.path(), no_card).unwrap().start();
    put(root.path(), "powercap/intel-rapl:0/energy_uj", "37000000");
    let energy = window.after(2.0).unwrap();
    assert_eq!((energy.joules, energy.net_joules, energy.seconds), (36.0, Some(16.0), 2.0));
    assert_eq!((energy.watt_hours(), energy.watts()), (0.01, 18.0));
    assert_eq!(energy.net_watt_hours(), Some(16.0 / 3600.0));
    assert_eq!(energy.source, "RAPL: counters of package-0, all programs on them, without memory");
    assert_eq!(energy.doubt, None);

    let window = Meter::open_in(&EnergyConfig::default(), CUDA, root.path(), card).unwrap().start();
    let energy = window.after(2.0).unwrap();
    assert_eq!((energy.joules, energy.net_joules), (3.0, None));
    assert_eq!(energy.without_idle(1.0).net_joules, Some(1.0));
}

/// Of an estimate, idle watts are those of this machine's share, and what is left is that of processor time.
#[test]
fn an_estimate_knows_its_idle_power() {
    let meter = Meter::open_in(&estimated(), DeviceName::Cpu, Path::new("/nowhere"), no_card).unwrap();
    assert_eq!(meter.idle_watts(), Some(20.0));
    assert_eq!(meter.clone().with_idle_watts(7.0).idle_watts(), Some(7.0));
    let energy = meter.start().after(3.0).unwrap();
    let (gross, net) = (energy.joules, energy.net_joules.unwrap());
    assert!((gross - net - 60.0).abs() < 1e-9 && net >= 0.0, "{energy:?}");
}

#[test]
fn a_short_window_is_doubtful() {
    let doubt = constant(1.0).start().after(0.25).unwrap().doubt.unwrap();
    assert!(doubt.contains("0.2500 s is shorter than 1 s") && doubt.ends_with('.'), "{doubt}");
    assert_eq!(constant(1.0).start().after(1.0).unwrap().doubt, None);
    let meter = Meter::of(Arc::new(Constant { joules: 1.0, resolution: Duration::from_secs(1), doubt: Some("Odd.") }));
    assert!(meter.start().after(0.5).unwrap().doubt.unwrap().ends_with("answers. Odd."));
    assert_eq!(meter.start().after(2.0).unwrap().doubt.as_deref(), Some("Odd."));
}

#[test]
fn a_meter_that_fails_is_told_when_the_window_ends() {
    let root = tree(PACKAGE);
    let meter = Meter::open_in(&EnergyConfig::default(), DeviceName::Cpu, root.path(), no_card).unwrap();
    let begun = meter.start();
    std::fs::remove_dir_all(root.path().join("powercap")).unwrap();
    for window in [begun, meter.start()] {
        let sentence = window.finish().unwrap_err().to_string();
        assert!(sentence.starts_with("The energy could not be measured (RAPL: counters of package-0"), "{sentence}");
        assert!(sentence.contains("intel-rapl:0/energy_uj cannot be read") && sentence.ends_with('.'), "{sentence}");
    }
}

#[test]
fn idle_power_is_measured_for_as_long_as_asked() {
    let energy = constant(5.0).measure_idle(Duration::from_millis(20)).unwrap();
    assert!(energy.seconds >= 0.02 && energy.joules == 5.0, "{energy:?}");
    assert!(energy.watts() <= 250.0);
    let nothing = constant(5.0).start().after(0.0).unwrap();
    assert_eq!(nothing.watts(), 0.0);
}

/// Format that scripts read.
#[test]
fn an_energy_is_an_object_with_its_source() {
    let energy = constant(5.0).start().after(2.0).unwrap();
    assert_eq!(
        serde_json::to_value(&energy).unwrap(),
        serde_json::json!({"joules": 5.0, "net_joules": null, "source": "constant", "seconds": 2.0, "doubt": null})
    );
}

proptest! {
    /// Net and gross differ by what an idle machine takes, below 0 too.
    #[test]
    fn net_is_gross_without_idle(joules in 0.0..1e6_f64, watts in 0.0..1e4_f64, seconds in 0.0..1e5_f64) {
        let energy = constant(joules).with_idle_watts(watts).start().after(seconds).unwrap();
        let net = energy.net_joules.unwrap();
        prop_assert!((joules - net - watts * seconds).abs() <= 1e-9 * (joules + watts * seconds).max(1.0));
        prop_assert_eq!(energy.clone().without_idle(watts), energy);
    }
}
