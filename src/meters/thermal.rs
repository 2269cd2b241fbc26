//! Temperature of the machine: the highest of all sensors that it shows, with the sensor's name.
//!
//! Linux shows sensors twice: chips with their inputs (`/sys/class/hwmon`) and thermal zones (`/sys/class/thermal`). A card tells its
//! temperature through NVML.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::nvml::{self, Gpu};
use super::system::{self, ROOT, numbered};
use crate::model::DeviceName;
use crate::visible::shown;

/// Plausible temperatures, in degrees Celsius. Inputs that nothing is connected to tell the ends of their range: -128,
/// 127, 255.
const BELIEVED: std::ops::RangeInclusive<f64> = -40.0..=125.0;

/// A temperature and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// Degrees Celsius.
    pub celsius: f64,
    /// The sensor.
    pub source: String,
}

/// The sensors of this machine, and of the card that computes.
#[derive(Clone)]
pub struct Thermometer {
    root: PathBuf,
    gpu: Option<Arc<dyn Gpu>>,
}

impl Thermometer {
    /// The sensors that this system shows; for a GPU its own as well, if the driver can be asked.
    pub fn open(device: DeviceName) -> Self {
        let gpu = match device {
            DeviceName::Cpu => None,
            DeviceName::Cuda(index) => nvml::gpu(index).ok(),
        };
        Self::new(ROOT, gpu)
    }

    /// The sensors below a folder like [`ROOT`], and of a card.
    pub fn new(root: impl Into<PathBuf>, gpu: Option<Arc<dyn Gpu>>) -> Self {
        Self { root: root.into(), gpu }
    }

    /// The highest temperature by now; `None` where nothing tells any.
    pub fn hottest(&self) -> Option<Temperature> {
        let of_card = |gpu: &Arc<dyn Gpu>| {
            let celsius = f64::from(gpu.celsius().ok()?);
            Some(Temperature { celsius, source: format!("NVML: {}", gpu.name()) })
        };
        hotter(self.gpu.as_ref().and_then(of_card).into_iter().chain(hottest(&self.root)))
    }

    /// Why the card's clocks are lower than they could be, in words; empty where they are not, and without a card.
    pub fn throttling(&self) -> Vec<&'static str> {
        self.gpu.as_ref().and_then(|gpu| gpu.throttling().ok()).unwrap_or_default()
    }
}

/// The highest temperature of the sensors below a folder like [`ROOT`]; `None` where there are none that can be read.
pub fn hottest(root: &Path) -> Option<Temperature> {
    hotter(chips(root).chain(zones(root)))
}

/// The highest; of several the first.
fn hotter(temperatures: impl Iterator<Item = Temperature>) -> Option<Temperature> {
    let believed = temperatures.filter(|temperature| BELIEVED.contains(&temperature.celsius));
    believed.reduce(|most, next| if next.celsius > most.celsius { next } else { most })
}

/// The inputs of all chips.
fn chips(root: &Path) -> impl Iterator<Item = Temperature> {
    numbered(&root.join("hwmon"), "hwmon").into_iter().flat_map(|(_, chip)| {
        let kind = line(&chip.join("name")).unwrap_or_else(|| "unnamed".to_owned());
        inputs(&chip).into_iter().filter_map(move |input| {
            let beside = |what: &str| chip.join(format!("temp{input}_{what}"));
            // The driver's word that the sensor is broken.
            if line(&beside("fault")).is_some_and(|fault| fault != "0") {
                return None;
            }
            let label = line(&beside("label")).unwrap_or_else(|| format!("temp{input}"));
            Some(Temperature { celsius: celsius(&beside("input"))?, source: format!("hwmon: {kind} {label}") })
        })
    })
}

/// The numbers of a chip's temperature inputs, rising.
fn inputs(chip: &Path) -> Vec<u32> {
    let number = |name: &str| name.strip_prefix("temp")?.strip_suffix("_input")?.parse().ok();
    let entries = fs::read_dir(chip).into_iter().flatten().flatten();
    let mut inputs: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    inputs.sort_unstable();
    inputs
}

/// All thermal zones.
fn zones(root: &Path) -> impl Iterator<Item = Temperature> {
    numbered(&root.join("thermal"), "thermal_zone").into_iter().filter_map(|(number, zone)| {
        let kind = line(&zone.join("type")).unwrap_or_else(|| format!("zone {number}"));
        Some(Temperature { celsius: celsius(&zone.join("temp"))?, source: format!("thermal zone: {kind}") })
    })
}

/// Degrees, of a file that holds thousandths of them. A sensor that sleeps cannot be read, which is no failure of the others.
fn celsius(path: &Path) -> Option<f64> {
    system::number::<i64>(system::read, path).ok().map(|thousandths| thousandths as f64 / 1000.0)
}

/// A file's text, on one line; `None` where it cannot be read or says nothing.
fn line(path: &Path) -> Option<String> {
    let text = shown(system::read(path).ok()?.trim());
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::super::nvml::tests::Fake;
    use super::super::system::recorded::{put, tree};
    use super::*;

    /// A workstation: a processor, a drive, a board with an input that nothing is connected to and one that is broken, two zones.
    const WORKSTATION: &[(&str, &str)] = &[
        ("hwmon/hwmon0/name", "nvme\n"),
        ("hwmon/hwmon0/temp1_input", "38850\n"),
        ("hwmon/hwmon0/temp1_label", "Composite\n"),
        ("hwmon/hwmon1/name", "k10temp\n"),
        ("hwmon/hwmon1/temp1_input", "61875\n"),
        ("hwmon/hwmon1/temp1_label", "Tctl\n"),
        ("hwmon/hwmon1/temp3_input", "54250\n"),
        ("hwmon/hwmon1/temp3_label", "Tccd1\n"),
        ("hwmon/hwmon1/temp3_crit", "95000\n"),
        ("hwmon/hwmon2/name", "nct6798\n"),
        ("hwmon/hwmon2/temp1_input", "127500\n"),
        ("hwmon/hwmon2/temp2_input", "-128000\n"),
        ("hwmon/hwmon2/temp3_input", "99000\n"),
        ("hwmon/hwmon2/temp3_fault", "1\n"),
        ("hwmon/hwmon2/temp10_input", "31000\n"),
        ("hwmon/hwmon2/temp10_fault", "0\n"),
        ("hwmon/hwmon2/fan1_input", "1200000\n"),
        ("thermal/cooling_device0/type", "Processor\n"),
        ("thermal/thermal_zone0/type", "acpitz\n"),
        ("thermal/thermal_zone0/temp", "27800\n"),
        ("thermal/thermal_zone10/type", "x86_pkg_temp\n"),
        ("thermal/thermal_zone10/temp", "48000\n"),
    ];

    fn found(celsius: f64, source: &str) -> Option<Temperature> {
        Some(Temperature { celsius, source: source.to_owned() })
    }

    #[test]
    fn the_hottest_sensor_is_told_by_name() {
        let root = tree(WORKSTATION);
        assert_eq!(hottest(root.path()), found(61.875, "hwmon: k10temp Tctl"));
        put(root.path(), "thermal/thermal_zone10/temp", "82000\n");
        assert_eq!(hottest(root.path()), found(82.0, "thermal zone: x86_pkg_temp"));
        put(root.path(), "hwmon/hwmon2/temp10_input", "125000\n");
        assert_eq!(hottest(root.path()), found(125.0, "hwmon: nct6798 temp10"));
    }

    #[test]
    fn a_card_is_one_more_sensor() {
        let root = tree(WORKSTATION);
        let card = |celsius| {
            let throttling = vec!["temperature, by the hardware"];
            Thermometer::new(root.path(), Some(Arc::new(Fake { celsius, throttling, ..Fake::default() })))
        };
        assert_eq!(card(Some(83)).hottest(), found(83.0, "NVML: GPU 0 (Fake)"));
        assert_eq!(card(Some(40)).hottest(), found(61.875, "hwmon: k10temp Tctl"));
        assert_eq!(card(None).hottest(), found(61.875, "hwmon: k10temp Tctl"));
        assert_eq!(card(None).throttling(), ["temperature, by the hardware"]);
        assert!(Thermometer::new(root.path(), None).throttling().is_empty());
    }

    #[test]
    fn sensors_that_tell_nothing_are_passed_over() {
        let root = tree(&[
            ("hwmon/hwmon0/temp1_input", "hot"),
            ("hwmon/hwmon0/temp2_input", ""),
            ("hwmon/hwmon0/temp3_input", "99999999999999999999"),
            ("hwmon/hwmon1/name", "\n"),
            ("hwmon/hwmon1/temp1_input", "-39000"),
            ("thermal/thermal_zone0/temp", "-274000"),
            ("thermal/thermal_zone1/type", "x"),
        ]);
        std::fs::create_dir(root.path().join("hwmon/hwmon0/temp4_input")).unwrap();
        assert_eq!(hottest(root.path()), found(-39.0, "hwmon: unnamed temp1"));
        assert_eq!(hottest(tree(&[]).path()), None);
        assert_eq!(hottest(Path::new("/nowhere")), None);
    }

    #[test]
    fn this_machine_can_be_asked() {
        let told = Thermometer::open(DeviceName::Cpu).hottest();
        assert!(told.is_none_or(|told| BELIEVED.contains(&told.celsius) && !told.source.is_empty()));
    }

    proptest! {
        #[test]
        fn none_of_the_believed_is_hotter(thousandths in prop::collection::vec(-300_000..300_000_i64, 0..8)) {
            let files: Vec<(String, String)> = thousandths
                .iter()
                .enumerate()
                .map(|(zone, value)| (format!("thermal/thermal_zone{zone}/temp"), value.to_string()))
                .collect();
            let root = tree(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>());
            let believed = thousandths.iter().filter(|value| (-40_000..=125_000).contains(*value)).max();
            prop_assert_eq!(hottest(root.path()).map(|most| most.celsius), believed.map(|value| *value as f64 / 1000.0));
        }
    }
}
