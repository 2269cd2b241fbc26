//! RAPL: the energy counters of processor packages (Running Average Power Limit), as Linux shows them in powercap files
//! (`Documentation/power/powercap/powercap.rst` of the kernel). AMD's processors have them under the same name.
//!
//! A package's counter is the whole package's: every program's energy is in it, the memory's is not. Counters are brought up to
//! date about once a millisecond (Hähnel et al., *Measuring Energy Consumption for Short Code Paths Using RAPL*, 2012).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::system::{self, Read, numbered};
use super::{Count, Counted, EnergyMeter};
use crate::visible::shown_path;

/// Ten updates of a counter: what was counted between two of them is off by a tenth at most.
const RESOLUTION: Duration = Duration::from_millis(10);

/// Watts that no package takes. A counter tells energy up to whole turns, and this bounds how many there can have been.
const MOST_WATTS: f64 = 1000.0;

/// The counters of all processor packages.
#[derive(Clone, Debug)]
pub struct Rapl {
    packages: Vec<Package>,
    source: String,
    read: Read,
}

/// One counter.
#[derive(Clone, Debug)]
struct Package {
    name: String,
    /// Microjoules, up to the range and then from 0 on.
    counter: PathBuf,
    range: u64,
}

impl Rapl {
    /// The packages below a folder like [`ROOT`](super::ROOT).
    ///
    /// # Errors
    /// The missing part and what to do, without a full stop. One package that cannot be read is all of them: a part of
    /// the energy would be no energy.
    pub fn open(root: &Path) -> Result<Self, String> {
        Self::open_with(root, system::read)
    }

    fn open_with(root: &Path, read: Read) -> Result<Self, String> {
        let folder = root.join("powercap");
        let mut packages = Vec::new();
        for (_, zone) in numbered(&folder, "intel-rapl:") {
            let name = read(&zone.join("name")).map_err(|error| unreadable(&zone.join("name"), &error))?;
            // Beside packages there may be `psys`, a platform's whole, which would count them twice.
            if name.starts_with("package") {
                let range = system::number(read, &zone.join("max_energy_range_uj"))?;
                let package = Package { name: name.trim().to_owned(), counter: zone.join("energy_uj"), range };
                package.now(read)?;
                packages.push(package);
            }
        }
        if packages.is_empty() {
            return Err(format!(
                "{} shows no processor package, as on most virtual machines and where the kernel has no `intel_rapl` module; choose `auto`, `none`, or `estimated`, which needs watts",
                shown_path(&folder)
            ));
        }
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        let source = format!("RAPL: counters of {}, all programs on them, without memory", names.join(", "));
        Ok(Self { packages, source, read })
    }

    fn now(&self) -> Result<Vec<u64>, String> {
        self.packages.iter().map(|package| package.now(self.read)).collect()
    }
}

/// A file that cannot be read, with what to do.
fn unreadable(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        // Since 2020 the kernel lets root alone read counters, which tell attackers what others compute (CVE-2020-8694).
        io::ErrorKind::PermissionDenied => {
            "let your user read it (as root: `chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`), or choose another `energy-source`"
        }
        _ => "choose another `energy-source`",
    };
    format!("{} cannot be read ({error}); {advice}", shown_path(path))
}

impl Package {
    /// Microjoules by now.
    fn now(&self, read: Read) -> Result<u64, String> {
        let count = match read(&self.counter) {
            Err(error) => return Err(unreadable(&self.counter, &error)),
            Ok(_) if self.range == 0 => return Err(self.broken("comes round at 0")),
            Ok(text) => text.trim().parse::<u64>().map_err(|_| self.broken("holds no number of microjoules"))?,
        };
        if count > self.range {
            return Err(self.broken(&format!("is at {count}, although it comes round at {}", self.range)));
        }
        Ok(count)
    }

    fn broken(&self, what: &str) -> String {
        format!("{} {what}; choose another `energy-source`, and look what wrote that", shown_path(&self.counter))
    }

    /// Microjoules from one count to a later one, if the counter came round at most once.
    fn between(&self, before: u64, after: u64) -> u64 {
        if after >= before { after - before } else { (self.range - before).saturating_add(after) }
    }

    /// Doubt about so many microjoules in so many seconds.
    fn doubt(&self, used: u64, seconds: f64) -> Option<String> {
        let (watts, name) = (used as f64 * 1e-6 / seconds, &self.name);
        // Of a window as short as an update, watts say nothing; that it is short is said elsewhere.
        if watts > MOST_WATTS && seconds >= RESOLUTION.as_secs_f64() {
            return Some(format!(
                "The counter of {name} tells {watts:.0} W, more than a package takes: it was set back, as by a suspended machine."
            ));
        }
        let turn = (used as f64 + self.range as f64) * 1e-6;
        (turn < MOST_WATTS * seconds).then(|| {
            format!(
                "The counter of {name} may have come round once more in {seconds:.0} s, which would be {turn:.0} J: measure shorter windows and add them up."
            )
        })
    }
}

impl EnergyMeter for Rapl {
    fn source(&self) -> &str {
        &self.source
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn start(&self) -> Result<Box<dyn Count>, String> {
        Ok(Box::new(Counting { before: self.now()?, meter: self.clone() }))
    }
}

/// A window under way.
struct Counting {
    meter: Rapl,
    before: Vec<u64>,
}

impl Count for Counting {
    fn finish(self: Box<Self>, seconds: f64) -> Result<Counted, String> {
        let after = self.meter.now()?;
        let mut counted = Counted { joules: 0.0, doubt: None };
        for ((package, before), after) in self.meter.packages.iter().zip(self.before).zip(after) {
            let used = package.between(before, after);
            counted.joules += used as f64 * 1e-6;
            counted.doubt = counted.doubt.or_else(|| package.doubt(used, seconds));
        }
        Ok(counted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::super::system::recorded::{put, tree};
    use super::*;

    /// Two packages with their parts, a platform, and the second way to the first package's counter: names and ranges as a machine
    /// with two sockets shows them.
    const TWO_PACKAGES: &[(&str, &str)] = &[
        ("powercap/intel-rapl/enabled", "1\n"),
        ("powercap/intel-rapl:0/name", "package-0\n"),
        ("powercap/intel-rapl:0/energy_uj", "262000000000\n"),
        ("powercap/intel-rapl:0/max_energy_range_uj", "262143328850\n"),
        ("powercap/intel-rapl:0:0/name", "dram\n"),
        ("powercap/intel-rapl:0:0/energy_uj", "70000000\n"),
        ("powercap/intel-rapl:0:0/max_energy_range_uj", "65712999613\n"),
        ("powercap/intel-rapl:1/name", "package-1\n"),
        ("powercap/intel-rapl:1/energy_uj", "5000000\n"),
        ("powercap/intel-rapl:1/max_energy_range_uj", "262143328850\n"),
        ("powercap/intel-rapl:2/name", "psys\n"),
        ("powercap/intel-rapl:2/energy_uj", "900000000\n"),
        ("powercap/intel-rapl:2/max_energy_range_uj", "262143328850\n"),
        ("powercap/intel-rapl-mmio:0/name", "package-0\n"),
        ("powercap/intel-rapl-mmio:0/energy_uj", "1\n"),
    ];
    const FIRST: &str = "powercap/intel-rapl:0/energy_uj";
    const SECOND: &str = "powercap/intel-rapl:1/energy_uj";

    /// Energy that is counted while the files change.
    fn counted(changes: &[(&str, &str)], seconds: f64) -> Result<Counted, String> {
        let root = tree(TWO_PACKAGES);
        let window = Rapl::open(root.path()).unwrap().start().unwrap();
        changes.iter().for_each(|(path, text)| put(root.path(), path, text));
        window.finish(seconds)
    }

    #[test]
    fn all_packages_are_added_and_nothing_else() {
        let root = tree(TWO_PACKAGES);
        let meter = Rapl::open(root.path()).unwrap();
        assert_eq!(meter.source(), "RAPL: counters of package-0, package-1, all programs on them, without memory");
        // The platform, the memory and the second way change too; they are not counted.
        let changes = [
            (FIRST, "262012000000"),
            (SECOND, "8500000"),
            ("powercap/intel-rapl:2/energy_uj", "999000000"),
            ("powercap/intel-rapl:0:0/energy_uj", "99000000"),
            ("powercap/intel-rapl-mmio:0/energy_uj", "99000000"),
        ];
        assert_eq!(counted(&changes, 0.5), Ok(Counted { joules: 15.5, doubt: None }));
        assert_eq!(counted(&[], 0.5), Ok(Counted { joules: 0.0, doubt: None }));
    }

    #[test]
    fn a_counter_that_came_round_goes_on_from_its_range() {
        // 143.32885 J to the end of the range, and 6.67115 from there.
        let found = counted(&[(FIRST, "6671150\n")], 2.0).unwrap();
        assert!((found.joules - 150.0).abs() < 1e-9 && found.doubt.is_none(), "{found:?}");
    }

    #[test]
    fn a_package_that_vanishes_is_an_error_and_not_a_smaller_number() {
        let root = tree(TWO_PACKAGES);
        let meter = Rapl::open(root.path()).unwrap();
        let window = meter.start().unwrap();
        std::fs::remove_dir_all(root.path().join("powercap/intel-rapl:1")).unwrap();
        let reason = window.finish(1.0).unwrap_err();
        assert!(reason.contains("intel-rapl:1/energy_uj cannot be read"), "{reason}");
        assert!(meter.start().is_err());
    }

    #[test]
    fn one_that_appears_is_not_counted() {
        let root = tree(TWO_PACKAGES);
        let window = Rapl::open(root.path()).unwrap().start().unwrap();
        for (path, text) in [("name", "package-3"), ("energy_uj", "77"), ("max_energy_range_uj", "100")] {
            put(root.path(), &format!("powercap/intel-rapl:3/{path}"), text);
        }
        put(root.path(), SECOND, "6000000");
        assert_eq!(window.finish(1.0).unwrap().joules, 1.0);
    }

    #[test]
    fn garbage_is_a_missing_meter_that_names_the_file() {
        for (path, text, words) in [
            (FIRST, "", &["intel-rapl:0/energy_uj", "no number of microjoules"][..]),
            (FIRST, "-5", &["no number of microjoules"]),
            (FIRST, "12 J", &["no number of microjoules"]),
            (SECOND, "99999999999999999999999", &["intel-rapl:1/energy_uj", "no number"]),
            (SECOND, "262143328851", &["is at 262143328851", "comes round at 262143328850"]),
            ("powercap/intel-rapl:0/max_energy_range_uj", "lots", &["max_energy_range_uj", "`lots`"]),
            ("powercap/intel-rapl:0/max_energy_range_uj", "0", &["comes round at 0"]),
        ] {
            let root = tree(TWO_PACKAGES);
            put(root.path(), path, text);
            let reason = Rapl::open(root.path()).unwrap_err();
            assert!(words.iter().all(|word| reason.contains(word)), "{text}: {reason}");
            if !path.contains("range") {
                let reason = counted(&[(path, text)], 1.0).unwrap_err();
                assert!(words.iter().all(|word| reason.contains(word)), "{text} in the middle: {reason}");
            }
        }
        let root = tree(TWO_PACKAGES);
        std::fs::write(root.path().join(FIRST), b"\xff\xfe").unwrap();
        assert!(Rapl::open(root.path()).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn machines_without_packages_are_told_so() {
        for files in [&[][..], &[("powercap/other/name", "x")], &[("powercap/intel-rapl:0/name", "psys")]] {
            let root = tree(files);
            let reason = Rapl::open(root.path()).unwrap_err();
            assert!(reason.contains("shows no processor package") && reason.contains("`estimated`"), "{reason}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_told_with_what_to_do() {
        fn deny_second(path: &Path) -> io::Result<String> {
            match path.ends_with("intel-rapl:1/energy_uj") {
                true => Err(io::ErrorKind::PermissionDenied.into()),
                false => system::read(path),
            }
        }
        let root = tree(TWO_PACKAGES);
        let reason = Rapl::open_with(root.path(), deny_second).unwrap_err();
        for word in
            ["intel-rapl:1/energy_uj cannot be read", "permission denied", "chmod a+r", "another `energy-source`"]
        {
            assert!(reason.contains(word), "{word}: {reason}");
        }
        // Taken away while an answer was made.
        let meter = Rapl { read: deny_second, ..Rapl::open(root.path()).unwrap() };
        let window = Counting { before: vec![0, 0], meter };
        assert!(Box::new(window).finish(1.0).unwrap_err().contains("chmod a+r"));
    }

    #[test]
    fn what_no_package_takes_is_doubtful() {
        // Set back: 262 kJ to the end of the range in a second.
        let set_back = counted(&[(SECOND, "4000000")], 1.0).unwrap().doubt.unwrap();
        assert!(set_back.contains("package-1") && set_back.contains("set back"), "{set_back}");
        // In 270 s another turn of 262 kJ would still be less than 1000 W.
        let long = counted(&[(SECOND, "6000000")], 270.0).unwrap().doubt.unwrap();
        assert!(long.contains("come round once more in 270 s"), "{long}");
        assert_eq!(counted(&[(SECOND, "6000000")], 260.0).unwrap().doubt, None);
        // An update's whole energy in a window that is shorter: rough, but not wrong.
        assert_eq!(counted(&[(SECOND, "5200000")], 1e-4).unwrap().doubt, None);
    }

    proptest! {
        #[test]
        fn up_to_a_turn_is_counted_from_anywhere(range in 1_u64..u64::MAX, start: u64, used: u64) {
            let package = Package { name: String::new(), counter: PathBuf::new(), range };
            let (start, used) = (start % range, used % range);
            let end = ((u128::from(start) + u128::from(used)) % u128::from(range)) as u64;
            prop_assert_eq!(package.between(start, end), used);
        }
    }
}
