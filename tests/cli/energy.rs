//! Energy in reports: the number with its source, and meters that are not there.

use std::path::Path;

use serde_json::Value;

use crate::{answer, file, fixture, generate_from};

const SOURCE: &str = "estimated: E = wall * P_idle * share + (P_tdp - P_idle) * cpu_seconds / package_cores with \
                      P_idle = 60 W, share = 0.25, P_tdp = 360 W, package_cores = 64; it follows processor time";

/// The report's energies in joules: gross, and net of the idle power.
fn joules(report: &Value) -> (f64, f64) {
    let of = |key: &str| 3600.0 * report[key].as_f64().unwrap();
    (of("energy_wh"), of("energy_net_wh"))
}

#[test]
fn an_estimate_is_the_formula_with_its_numbers() {
    let settings = ["--energy-source", "estimated", "--idle-watts", "60", "--tdp-watts", "360"];
    let machine = ["--idle-share", "0.25", "--package-cores", "64", "--threads", "1"];
    let prompt = ["--prompt", "Each rider", "--max-new-tokens", "200", "--ignore-eos", "--drafter", "none"];
    // What runs beside may come between the end of the window and that of the latency, so the best of some.
    let mut least = f64::INFINITY;
    for _ in 0..20 {
        let report = answer(&[&prompt[..], &settings, &machine].concat())["report"].take();
        assert_eq!(report["energy_source"], SOURCE);
        assert!(
            report["energy_doubt"].is_null() || report["energy_doubt"].as_str().unwrap().contains("is shorter than")
        );
        let (gross, net) = joules(&report);
        let wall = report["latency_ms"].as_f64().unwrap() / 1e3;
        // One thread decodes while another writes; 300 W over 64 processors.
        let cpu = net * 64.0 / 300.0;
        assert!(cpu > 0.0 && cpu < 2.5 * wall + 0.1, "{cpu} s of processors in {wall} s");
        least = least.min(((gross - net) / (wall * 60.0 * 0.25) - 1.0).abs());
        if least < 0.02 {
            return;
        }
    }
    panic!("idle energy is never less than {least} from wall * P_idle * share");
}

#[test]
fn a_config_file_names_a_meter_as_flags_do() {
    let (_directory, path) = file(
        "energy-source = 'estimated'\nidle-watts = 60\ntdp-watts = 360\nidle-share = 0.25\npackage-cores = 64\nmax-new-tokens = 2",
    );
    let found = answer(&["--prompt", "x", "--config", &path]);
    assert_eq!(found["report"]["energy_source"], SOURCE);
    // Flags win, and nothing is what can always be asked for.
    let found = answer(&["--prompt", "x", "--config", &path, "--energy-source", "none"]);
    let report = &found["report"];
    assert_eq!(report["energy_source"], "unavailable");
    for key in ["energy_wh", "energy_net_wh", "energy_doubt"] {
        assert_eq!(report.get(key), Some(&Value::Null), "{key}");
    }
}

#[test]
fn a_meter_that_is_named_and_missing_ends_loading_with_a_sentence() {
    let ask = |source| generate_from(&fixture("llama-tied"), &["--prompt", "x", "--energy-source", source]);
    ask("nvml").fails(1, &["`nvml` is missing", "`cpu` computes", "choose `rapl`"]);
    if !Path::new("/sys/class/powercap").exists() {
        ask("rapl").fails(1, &["`rapl` is missing", "/sys/class/powercap", "`estimated`, which needs watts"]);
    }
}
