//! The commands `run`, `report` and `compare`, as they are typed.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

#[cfg(unix)]
#[path = "../../tests/cli/examples.rs"]
mod examples;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use paceline_eval::rows::{Row, read_rows};

const PLANS: usize = 3;
const PROMPTS: usize = 5;
const REPEATS: usize = 2;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A suite of a tiny model with three plans.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
        let questions = ["a b c", "1 2 3 4", "the end", "x", "once upon"];
        let rows: String = questions
            .iter()
            .enumerate()
            .map(|(id, prompt)| {
                let level = ["simple", "complex"][id % 2];
                format!("{{\"id\": \"q{id}\", \"category\": \"c\", \"level\": \"{level}\", \"prompt\": \"{prompt}\", \"answer\": \"x\"}}\n")
            })
            .collect();
        fs::write(place.path("prompts.jsonl"), rows).unwrap();
        place.suite(&format!(
            "name = \"tiny\"\nrepeats = {REPEATS}\nwarm-up = 1\n[engine]\nmodel = \"{fixtures}/micro\"\ndraft = [\"{fixtures}/micro-draft\"]\nthreads = 1\n\
             [answer]\nmax-new-tokens = 12\n[[prompts]]\npath = \"prompts.jsonl\"\n\
             [[plan]]\nname = \"plain\"\ndrafter = \"none\"\n[[plan]]\nname = \"auto\"\n[[plan]]\nname = \"lookup\"\ndrafter = \"lookup\"\n"
        ));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn suite(&self, text: &str) {
        fs::write(self.path("suite.toml"), text).unwrap();
    }

    fn eval(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-eval"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        command.current_dir(self.folder.path()).env("XDG_STATE_HOME", self.path("state")).args(arguments);
        command.output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let done = self.eval(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A failure is one sentence, on one line.
    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let done = self.eval(arguments);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.trim_end().lines().count() == 1 && words.iter().all(|word| said.contains(word)), "{said}");
    }

    fn rows(&self, file: &str) -> Vec<Row> {
        let table = read_rows(&self.path(file)).unwrap();
        assert!(table.problems.is_empty(), "{:?}", table.problems);
        table.rows
    }
}

/// What of a row does not depend on when it was made.
type Lasting = (String, String, usize, usize, usize, String, Option<bool>);

/// That of rows, in their order.
fn lasting(rows: &[Row]) -> Vec<Lasting> {
    let of = |row: &Row| {
        (row.id.clone(), row.plan.clone(), row.repeat, row.place, row.tokens, row.digest.clone(), row.right)
    };
    rows.iter().map(of).collect()
}

#[test]
fn a_run_that_was_ended_anywhere_goes_on_with_the_same_rows() {
    let place = Place::new();
    place.succeeds(&["run", "suite.toml", "--out", "whole"]);
    let whole = place.rows("whole/rows.csv");
    assert_eq!(whole.len(), PLANS * PROMPTS * REPEATS);
    // The same tokens by every plan, and every plan in every place.
    for row in &whole {
        let plain = whole.iter().find(|other| other.id == row.id && other.plan == "plain").unwrap();
        assert_eq!(row.digest, plain.digest, "{row:?}");
        assert!(row.latency_ms.unwrap() > 0.0 && row.right == Some(false) && row.error.is_empty());
    }
    let bytes = fs::read(place.path("whole/rows.csv")).unwrap();
    let facts = fs::read(place.path("whole/run.json")).unwrap();
    // In the header, in the first block, at its end, in the middle of a row, before the last byte.
    for end in [0, 10, 700, bytes.len() / 2, bytes.len() * 3 / 4, bytes.len() - 1] {
        paceline::files::own_folder(&place.path("killed"), paceline::files::Fills::All).unwrap();
        fs::write(place.path("killed/rows.csv"), &bytes[..end]).unwrap();
        fs::write(place.path("killed/run.json"), &facts).unwrap();
        place.succeeds(&["run", "suite.toml", "--out", "killed"]);
        assert_eq!(lasting(&place.rows("killed/rows.csv")), lasting(&whole), "ended after {end} bytes");
    }
    let before = fs::read(place.path("whole/rows.csv")).unwrap();
    assert!(place.succeeds(&["run", "suite.toml", "--out", "whole"]).contains("done already"));
    assert!(fs::read(place.path("whole/rows.csv")).unwrap() == before);
}

/// The answer that goes on is no measurement; what was written before is whole, and the same command goes on.
#[test]
#[cfg(target_os = "linux")]
fn a_run_that_a_signal_ends_says_so_and_goes_on_with_the_same_rows() {
    let place = Place::new();
    let suite = fs::read_to_string(place.path("suite.toml")).unwrap();
    place.suite(&suite.replace("max-new-tokens = 12", "max-new-tokens = 200\nignore-eos = true"));
    place.succeeds(&["run", "suite.toml", "--out", "whole"]);
    let lines = || fs::read_to_string(place.path("ended/rows.csv")).map_or(0, |text| text.lines().count());
    let mut codes = Vec::new();
    for signal in ["-TERM", "-INT", "-TERM"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-eval"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        command.current_dir(place.folder.path()).args(["run", "suite.toml", "--out", "ended"]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let before = lines().max(1);
        while lines() <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).output().unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        let code = done.status.code().unwrap();
        assert_eq!(said.contains("the same command goes on from there."), code != 0, "{said}");
        codes.push((signal, code));
    }
    let expected = |&(signal, code): &(&str, i32)| code == 0 || code == if signal == "-INT" { 130 } else { 143 };
    assert!(codes.iter().all(expected) && codes.iter().any(|(_, code)| *code != 0), "{codes:?}");
    place.succeeds(&["run", "suite.toml", "--out", "ended"]);
    assert_eq!(lasting(&place.rows("ended/rows.csv")), lasting(&place.rows("whole/rows.csv")));
}

#[test]
fn a_run_that_is_killed_goes_on_with_the_same_rows() {
    let place = Place::new();
    place.succeeds(&["run", "suite.toml", "--out", "whole"]);
    let all = lasting(&place.rows("whole/rows.csv")).len();
    let lines = || fs::read_to_string(place.path("killed/rows.csv")).map_or(0, |text| text.lines().count());
    let mut ended = Vec::new();
    // Once while it loads, and then whenever some more has been written, a little later each time.
    for round in 0..4 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-eval"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        let mut child =
            command.current_dir(place.folder.path()).args(["run", "suite.toml", "--out", "killed"]).spawn().unwrap();
        let before = lines();
        while round > 0 && lines() <= before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        std::thread::sleep(std::time::Duration::from_micros(300 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        ended.push(lines().saturating_sub(1));
    }
    assert!(ended.iter().any(|rows| (1..all).contains(rows)), "never in the middle: {ended:?} of {all}");
    place.succeeds(&["run", "suite.toml", "--out", "killed"]);
    assert_eq!(lasting(&place.rows("killed/rows.csv")), lasting(&place.rows("whole/rows.csv")));
}

#[test]
fn what_is_somebody_elses_is_not_replaced() {
    let place = Place::new();
    fs::create_dir(place.path("theirs")).unwrap();
    for name in ["rows.csv", "report.html"] {
        fs::write(place.path("theirs").join(name), "years").unwrap();
    }
    place.fails(&["run", "suite.toml", "--out", "theirs"], 1, &["theirs holds rows.csv", "--out"]);
    place.succeeds(&["run", "suite.toml", "--out", "run"]);
    place.fails(&["report", "run", "--out", "theirs"], 1, &["theirs holds report.html", "--out"]);
    for name in ["rows.csv", "report.html"] {
        assert_eq!(fs::read(place.path("theirs").join(name)).unwrap(), b"years");
    }
    place.succeeds(&["report", "run"]);
    place.succeeds(&["report", "run", "--out", "page"]);
    place.succeeds(&["report", "run", "--out", "page"]);
}

#[test]
fn two_parts_are_one_run() {
    let place = Place::new();
    place.succeeds(&["run", "suite.toml", "--out", "whole"]);
    place.succeeds(&["run", "suite.toml", "--out", "parts", "--shard", "1/2"]);
    place.succeeds(&["run", "suite.toml", "--out", "parts", "--shard", "2/2"]);
    let key = |row: &Lasting| (row.0.clone(), row.1.clone(), row.2);
    let sorted = |files: &[&str]| {
        let mut rows: Vec<_> = files.iter().flat_map(|file| lasting(&place.rows(file))).collect();
        rows.sort_by_key(key);
        rows
    };
    let parts = ["parts/rows-1-of-2.csv", "parts/rows-2-of-2.csv"];
    assert!(parts.iter().all(|part| !place.rows(part).is_empty()));
    assert_eq!(sorted(&parts), sorted(&["whole/rows.csv"]));
    // The report takes them as one.
    for folder in ["whole", "parts"] {
        place.succeeds(&["report", folder]);
        let table = fs::read_to_string(place.path(&format!("{folder}/plans.csv"))).unwrap();
        assert_eq!(table.lines().count(), 1 + PLANS, "{table}");
    }
    // A third copy of a part is not counted twice.
    for kind in ["rows-1-of-2.csv", "run-1-of-2.json"] {
        let copy = kind.replace("1-of-2", "1-of-3");
        fs::copy(place.path(&format!("parts/{kind}")), place.path(&format!("parts/{copy}"))).unwrap();
    }
    place.fails(&["report", "parts"], 1, &["an answer twice"]);
}

#[test]
fn the_page_needs_nothing_else_and_says_what_is_doubtful() {
    let place = Place::new();
    place.succeeds(&["run", "suite.toml", "--out", "run"]);
    let other = "id,plan,repeat,tokens,latency_ms,right,command\nq0,other engine,0,12,100,false,\"other --model <x>\"\nq1,other engine,0,12,90,false,other\nq9,other engine,0,bad,1,,\n";
    fs::write(place.path("other.csv"), other).unwrap();
    let done = place.eval(&["report", "run", "--import", "other.csv", "--out", "page", "--title", "A <title>"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && said.contains("other.csv, line 4") && said.contains("5 prompts say little"),
        "{said}"
    );
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    for needed in [
        "A &lt;title&gt;",
        "other engine",
        "Not in the picture, as fewer prompts were answered: other engine (2 prompts, 95.0 ms)",
        "other --model &lt;x&gt;",
        "prefers-color-scheme",
        "viewport",
        "aria-label",
        "What is doubtful",
        "How this was measured",
    ] {
        assert!(page.contains(needed), "{needed}");
    }
    for fetched in ["http://", "https://", "<script", "<link", "<img"] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(fetched), "{fetched}");
    }
    for table in ["plans.csv", "groups.csv", "positions.csv", "steps.csv", "router.csv"] {
        assert!(place.path("page").join(table).is_file(), "{table}");
    }
    let compared = place.succeeds(&["compare", "run", "run"]);
    assert!(compared.contains("| plain | 5 | 1.000 (1.000 to 1.000) |"), "{compared}");
    fs::write(place.path("other.csv"), other.replace("other engine", "plain")).unwrap();
    place.fails(&["report", "run", "--import", "other.csv"], 1, &["plain", "another name"]);
}

#[test]
fn energy_is_told_gross_and_net_and_idle_power_that_moves_is_doubtful() {
    let place = Place::new();
    let text = fs::read_to_string(place.path("suite.toml")).unwrap();
    let meter = "[engine]\nenergy-source = \"estimated\"\nidle-watts = 8.0\ntdp-watts = 40.0\nidle-share = 0.5\npackage-cores = 4\n";
    place.suite(&text.replace("[engine]\n", meter));
    place.succeeds(&["run", "suite.toml", "--out", "run"]);
    let is_near = |a: f64, b: f64| (a - b).abs() <= 1e-9 + 0.01 * b.abs();
    let idle = |row: &Row| 4.0 * row.latency_ms.unwrap() / 1e3;
    for row in place.rows("run/rows.csv") {
        // The meter's window is about the answer's time, which has another clock; by how much they differ, a busy machine
        // decides: up to a tenth of a second here.
        let idle_joules = row.joules.unwrap() - row.net_joules.unwrap();
        assert!(idle_joules > 0.0 && idle_joules <= idle(&row) + 4.0 * 0.1, "{row:?}");
    }
    // A meter that does not know its idle power has it measured around the run, and net joules are of that.
    let facts = fs::read_to_string(place.path("run/run.json")).unwrap();
    assert_eq!(facts.matches("\"idle_watts\": 4.0").count(), 2, "{facts}");
    let mut facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    facts["before"]["idle_watts"] = 1.0.into();
    facts["after"]["idle_watts"] = 2.0.into();
    facts["after"]["throttling"] = vec!["power"].into();
    fs::write(place.path("run/run.json"), facts.to_string()).unwrap();
    let mut rows = place.rows("run/rows.csv");
    rows.retain(|row| row.plan == "plain" && row.repeat == 0);
    let net = |row: &Row| (row.joules.unwrap() - 1.5 * row.latency_ms.unwrap() / 1e3) / row.tokens as f64;
    let expected = rows.iter().map(net).sum::<f64>() / rows.len() as f64;
    let kept: Vec<String> = rows
        .iter()
        .map(|row| format!("{},plain,{},{},{}\n", row.id, row.tokens, row.latency_ms.unwrap(), row.joules.unwrap()))
        .collect();
    fs::write(place.path("run/rows.csv"), format!("id,plan,tokens,latency_ms,joules\n{}", kept.concat())).unwrap();
    let said = String::from_utf8(place.eval(&["report", "run"]).stderr).unwrap();
    assert!(
        said.contains("1.0 W before the run and 2.0 W after") && said.contains("held its clocks back (power)"),
        "{said}"
    );
    let table = fs::read_to_string(place.path("run/plans.csv")).unwrap();
    let mut lines = table.lines();
    let place_of = lines.next().unwrap().split(',').position(|name| name == "net_joules_per_token").unwrap();
    let told: f64 = lines.next().unwrap().split(',').nth(place_of).unwrap().parse().unwrap();
    assert!(is_near(told, expected), "{told} {expected}");
}

#[test]
fn a_suite_without_answers_has_no_quality() {
    let place = Place::new();
    let prompts = fs::read_to_string(place.path("prompts.jsonl")).unwrap();
    fs::write(place.path("prompts.jsonl"), prompts.replace(", \"answer\": \"x\"", "")).unwrap();
    place.succeeds(&["run", "suite.toml", "--out", "run"]);
    let done = place.eval(&["report", "run"]);
    assert!(String::from_utf8(done.stderr).unwrap().contains("The suite has no answers"));
    assert!(
        fs::read_to_string(place.path("run/report.html"))
            .unwrap()
            .contains("is unknown, as the prompts have no answers")
    );
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let place = Place::new();
    let suite = fs::read_to_string(place.path("suite.toml")).unwrap();
    place.fails(&["run", "nowhere.toml", "--out", "o"], 1, &["nowhere.toml cannot be read"]);
    place.fails(&["run", "suite.toml", "--out", "o", "--shard", "3/2"], 2, &["i/n"]);
    for (text, words) in [
        (suite.replace("repeats = 2", "repeats = "), "line 2"),
        (suite.replace("repeats = 2", "repeats = 0"), "`repeats` is 0"),
        (suite.replace("drafter = \"lookup\"", "draftr = \"lookup\""), "no setting `draftr`"),
        (suite.replace("drafter = \"lookup\"", "drafter = \"psychic\""), "plan lookup"),
        (suite.replace("drafter = \"lookup\"", "quality = \"exact\"\nskip-layers = \"late:1\""), "in plan lookup"),
        (suite.replace("name = \"auto\"", "name = \"plain\""), "two of its plans have one name"),
        (suite.replace("prompts.jsonl", "other.jsonl"), "other.jsonl cannot be read"),
        (suite.replace("threads = 1", "thread = 1"), "no setting `thread`"),
        (suite.replace("repeats = 2", "reference = \"fast\""), "none of its plans"),
    ] {
        place.suite(&text);
        place.fails(&["run", "suite.toml", "--out", "o"], 1, &[words]);
    }
    // Another suite's rows are not mixed with this one's.
    place.suite(&suite);
    place.succeeds(&["run", "suite.toml", "--out", "o"]);
    place.suite(&suite.replace("max-new-tokens = 12", "max-new-tokens = 11"));
    place.fails(&["run", "suite.toml", "--out", "o"], 1, &["another suite", "--out"]);
    // Nor are those of another program, or of another model in the same place.
    let rows = fs::read_to_string(place.path("o/rows.csv")).unwrap();
    let facts = fs::read_to_string(place.path("o/run.json")).unwrap();
    place.suite(&suite);
    for (key, words) in [
        ("version", ["the version was 0.0.0 and is", "--out"]),
        ("router_hash", ["the router was 0.0.0 and is none", "--out"]),
        ("machine", ["the machine was 0.0.0 and is", "--out"]),
    ] {
        fs::write(place.path("o/rows.csv"), rows.lines().take(1).collect::<String>() + "\n").unwrap();
        let mut other: serde_json::Value = serde_json::from_str(&facts).unwrap();
        other[key] = "0.0.0".into();
        fs::write(place.path("o/run.json"), other.to_string()).unwrap();
        place.fails(&["run", "suite.toml", "--out", "o"], 1, &words);
    }
    fs::write(place.path("o/run.json"), &facts).unwrap();
    fs::write(place.path("o/rows.csv"), rows.replace("energy_source", "energy")).unwrap();
    place.fails(&["run", "suite.toml", "--out", "o"], 1, &["rows.csv has other columns", "--out"]);
    fs::write(place.path("o/rows.csv"), rows).unwrap();
    // A plan that answers nothing is told before hours of the others.
    place.suite(&suite.replace("drafter = \"lookup\"", "quality = \"bounded\"\nquality-floor = 0.9"));
    place.fails(&["run", "suite.toml", "--out", "p"], 1, &["The plan lookup answers none"]);
    assert!(!place.path("p/rows.csv").exists());
    // Paths are meant from the suite's folder.
    fs::create_dir(place.path("sub")).unwrap();
    let below = suite.replace("prompts.jsonl", "../prompts.jsonl");
    fs::write(place.path("sub/suite.toml"), below.replace("[engine]", "[engine]\ncertificate = [\"c.json\"]")).unwrap();
    place.fails(&["run", "sub/suite.toml", "--out", "p"], 1, &["sub/c.json"]);
    place.fails(&["report", "nowhere"], 1, &["nowhere cannot be read"]);
    fs::create_dir(place.path("empty")).unwrap();
    place.fails(&["report", "empty"], 1, &["holds no run"]);
    fs::write(place.path("o/run.json"), "{").unwrap();
    place.fails(&["report", "o"], 1, &["run.json is damaged"]);
}

#[cfg(unix)]
#[test]
fn on_a_full_disk_what_is_measured_stays_and_is_gone_on_with() {
    let place = Place::new();
    place.succeeds(&["run", "suite.toml", "--out", "whole"]);
    // Files may grow to two blocks of 512 or 1024 bytes; a write beyond is an error, as the signal is ignored.
    let limited =
        format!("trap '' XFSZ; ulimit -f 4; exec '{}' run suite.toml --out full", env!("CARGO_BIN_EXE_paceline-eval"));
    let done = Command::new("sh").current_dir(place.folder.path()).args(["-c", &limited]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.code() == Some(1) && said.contains("rows.csv can no longer be written") && said.contains("goes on"),
        "{said}"
    );
    place.succeeds(&["run", "suite.toml", "--out", "full"]);
    assert_eq!(lasting(&place.rows("full/rows.csv")), lasting(&place.rows("whole/rows.csv")));
}

#[test]
fn help_is_help() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["run", "--help"], &["report", "--help"], &["compare", "--help"]] {
        assert!(place.succeeds(arguments).contains("Usage:"));
    }
    assert!(Path::new(env!("CARGO_BIN_EXE_paceline-eval")).is_file());
}

#[test]
#[cfg(unix)]
fn documented_commands_are_understood() {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    examples::are_understood("paceline-eval", env!("CARGO_BIN_EXE_paceline-eval"), repository);
}
