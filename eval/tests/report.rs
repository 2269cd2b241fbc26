//! What a report says of rows whose numbers are known: on its page, in its tables, and as warnings.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use paceline_eval::rows::{Row, to_csv};
use serde_json::json;

const PROMPTS: usize = 40;
const REPEATS: usize = 4;

struct Place {
    folder: tempfile::TempDir,
}

/// What a report came to.
struct Told {
    summary: Vec<String>,
    warnings: String,
    page: String,
    plans: String,
    groups: String,
}

impl Told {
    /// The value of a column of plans.csv.
    fn value(&self, plan: &str, column: &str) -> String {
        let mut reader = csv::Reader::from_reader(self.plans.as_bytes());
        let place = reader.headers().unwrap().iter().position(|name| name == column).unwrap();
        let row = reader.records().map(Result::unwrap).find(|row| &row[0] == plan).unwrap();
        row[place].to_owned()
    }

    fn number(&self, plan: &str, column: &str) -> f64 {
        self.value(plan, column).parse().unwrap()
    }

    fn warns(&self, words: &str) -> bool {
        self.warnings.contains(words) && self.page.contains("What is doubtful")
    }
}

impl Place {
    /// A run with plans by name, settings and whether they may change tokens.
    fn new(plans: &[(&str, &str, bool)], rows: &[Row]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let plans: Vec<_> = plans
            .iter()
            .map(|(name, described, lossy)| json!({"name": name, "described": described, "lossy": lossy}))
            .collect();
        let facts = json!({
            "suite": "hand-made", "reference": "plain", "plans": plans, "prompts": PROMPTS, "repeats": REPEATS, "layers": 12,
            "target": "target", "machine": "a machine", "threads": 2, "began": 1_795_316_064, "ended": 1_795_316_184,
            "instruction_set": "avx512 <x>", "router_hash": "00ff00ff00ff00ff", "exits_hash": "11ee11ee11ee11ee",
        });
        fs::create_dir(place.path("run")).unwrap();
        fs::write(place.path("run/run.json"), facts.to_string()).unwrap();
        fs::write(place.path("run/rows.csv"), to_csv(rows, true).unwrap()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn told(&self, arguments: &[&str]) -> Told {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-eval"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        let done = command.current_dir(self.folder.path()).args(["report", "run"]).args(arguments).output().unwrap();
        let warnings = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{warnings}");
        let read = |name: &str| fs::read_to_string(self.path("run").join(name)).unwrap();
        let told = Told {
            summary: String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect(),
            warnings,
            page: read("report.html"),
            plans: read("plans.csv"),
            groups: read("groups.csv"),
        };
        for text in [&told.page, &told.plans, &told.groups, &told.warnings] {
            let words = || text.split(|c: char| !c.is_alphanumeric());
            assert!(words().all(|word| !["NaN", "inf", "infinite"].contains(&word)), "{text}");
        }
        told
    }
}

/// An answer of 10 tokens: so many milliseconds each after 10 for the prompt.
fn row(plan: &str, id: usize, repeat: usize, ms: f64) -> Row {
    Row {
        id: format!("q{id:02}"),
        category: "code".into(),
        level: if id.is_multiple_of(2) { "simple".into() } else { "complex".into() },
        plan: plan.into(),
        repeat,
        tokens: 10,
        right: Some(id > 3),
        digest: format!("{id}"),
        latency_ms: Some(10.0 + 10.0 * ms),
        prefill_ms: Some(10.0),
        steps: 5,
        drafter: "none".into(),
        layer_evaluations: Some(120),
        ..Row::default()
    }
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// All answers of a plan.
fn rows(plan: &str, ms: f64, change: impl Fn(usize, usize, Row) -> Row) -> Vec<Row> {
    let all = (0..REPEATS).flat_map(|repeat| (0..PROMPTS).map(move |id| (id, repeat)));
    all.map(|(id, repeat)| change(id, repeat, row(plan, id, repeat, ms))).collect()
}

fn as_is(_: usize, _: usize, row: Row) -> Row {
    row
}

const PLAIN: (&str, &str, bool) = ("plain", "drafter = \"none\"", false);
const AUTO: (&str, &str, bool) = ("auto", "as by default", false);

fn auto(ms: f64) -> Vec<Row> {
    rows("auto", ms, |_, _, row| Row { expected_acceptance: Some(0.5), drafter: "lookup".into(), ..row })
}

#[test]
fn the_summary_says_why_energy_is_missing() {
    let of = |own: &dyn Fn(usize, usize) -> (Option<f64>, &'static str)| {
        let measured = |plan: &str, ms, reading: &dyn Fn(usize, usize) -> (Option<f64>, &'static str)| {
            rows(plan, ms, |id, repeat, row| {
                let (joules, source) = reading(id, repeat);
                Row {
                    joules,
                    energy_source: source.into(),
                    expected_acceptance: (plan == "auto").then_some(0.5),
                    ..row
                }
            })
        };
        // The meter moves in one repeat of four.
        let moves = |_: usize, repeat: usize| (Some(if repeat == 0 { 4.0 } else { 0.0 }), "rapl");
        let all = [measured("plain", 4.0, &moves), measured("auto", 2.0, own)].concat();
        Place::new(&[PLAIN, AUTO], &all).told(&[])
    };
    let told = of(&|id, repeat| (Some(if repeat == 1 { [1.0, 3.0][id % 2] } else { 0.0 }), "rapl"));
    assert!(told.summary[1].contains("50% of plain's") && told.summary[1].ends_with("rapl)."), "{:?}", told.summary);
    assert!(
        is_near(told.number("plain", "joules_per_token"), 0.1)
            && is_near(told.number("auto", "joules_per_token"), 0.05)
    );
    assert!(is_near(told.number("auto", "share_of_energy"), 0.5));
    assert!(told.number("auto", "share_of_energy_low") < 0.5 && told.number("auto", "share_of_energy_high") > 0.5);
    // By level, on the page and in the table.
    assert!(
        told.page.contains("Energy of a token as a share") && told.page.contains("<td>0.75<br><small>0.75 to 0.75")
    );
    assert!(told.groups.contains(",0.25,0.25,0.25,"), "{}", told.groups);

    // One prompt without a reading costs that prompt.
    let told = of(&|id, _| ((id > 0).then_some(0.5), "rapl"));
    assert!(
        told.summary[1].contains("rapl; of 39 of 40 prompts") && told.warns("39 of 40 prompts"),
        "{:?}",
        told.summary
    );
    let told = of(&|_, _| (Some(0.5), "nvml"));
    let differ = "meters differ, nvml for auto and rapl for plain";
    assert!(told.summary[1].contains(differ) && told.value("auto", "share_of_energy").is_empty(), "{:?}", told.summary);
    assert!(told.warns("The energy of `auto` is not compared"), "{}", told.warnings);
    let told = of(&|_, _| (None, "unavailable"));
    assert!(told.summary[1].contains("not all answers were measured"), "{:?}", told.summary);
    let told = of(&|_, _| (Some(0.0), "rapl"));
    assert!(told.summary[1].contains("too short for the meter (rapl)"), "{:?}", told.summary);
    let told = Place::new(&[PLAIN, AUTO], &[rows("plain", 4.0, as_is), auto(2.0)].concat()).told(&[]);
    assert!(told.summary[1].contains("no meter could be read"), "{:?}", told.summary);
}

#[test]
fn a_defect_in_any_repeat_is_told_and_nothing_is_said_to_be_the_same() {
    let plain = rows("plain", 4.0, as_is);
    let told = Place::new(&[PLAIN, AUTO], &[plain.clone(), auto(2.0)].concat()).told(&[]);
    assert!(
        told.summary[0].starts_with("With the same tokens, auto makes a token 2.00 times as fast"),
        "{:?}",
        told.summary
    );
    assert_eq!(told.summary[2], "All plans answer 90.0% of 40 prompts rightly, as their tokens are the same.");
    assert_eq!(told.value("auto", "not_worse_within_margin"), "same");
    // One answer of 160, and not of the first repeat, has other tokens.
    let defect = |row: Row| if row.id == "q07" && row.repeat == 3 { Row { digest: "x".into(), ..row } } else { row };
    let wrong: Vec<Row> = auto(2.0).into_iter().map(defect).collect();
    let told = Place::new(&[PLAIN, AUTO], &[plain.clone(), wrong].concat()).told(&[]);
    assert!(
        told.warns("`auto` promises the tokens of `plain` and gave others in 0.6% of the answers"),
        "{}",
        told.warnings
    );
    assert!(told.warns("`auto` gave other tokens in another repeat for 1 of 40 prompts"), "{}", told.warnings);
    assert!(
        told.summary[0].starts_with("With other tokens in 0.6% of the answers, which is a defect"),
        "{:?}",
        told.summary
    );
    assert_eq!(told.summary[2], "plain answers 90.0% of 40 prompts rightly.");
    assert_eq!(told.value("auto", "not_worse_within_margin"), "not shown");
    // Plain decoding itself is not reproducible, and its answer not always right.
    let wavers = |row: Row| if row.repeat == 3 && row.id == "q07" { Row { right: Some(false), ..row } } else { row };
    let unsteady: Vec<Row> = plain.into_iter().map(defect).map(wavers).collect();
    let told = Place::new(&[PLAIN, AUTO], &[unsteady, auto(2.0)].concat()).told(&[]);
    assert!(
        told.warns("`plain` gave other tokens in another repeat for 1 of 40 prompts: its decoding is not reproducible")
    );
    assert!(
        told.warns("right in one repeat and wrong in another, and counts as wrong: `plain` (1)"),
        "{}",
        told.warnings
    );
    assert_eq!((told.number("plain", "right"), told.number("auto", "right")), (35.0 / 40.0, 0.9));
    assert!(told.page.contains("An answer is right if it is in all repeats"));
}

#[test]
fn rows_of_other_programs_are_compared_like_with_like() {
    let place = Place::new(&[PLAIN, AUTO], &[rows("plain", 4.0, as_is), auto(2.0)].concat());
    // 25 ms for the whole answer instead of 50, of ten prompts; two more are none of the run.
    let whole = |id: usize| format!("q{id:02},whole,0,10,25,\n");
    let split = |id: usize| format!("q{id:02},split,0,10,30,10\n");
    let lines: String = (0..10).chain(80..82).map(|id| whole(id) + &split(id)).collect();
    let none = "z1,elsewhere,0,10,25,\nq01,broken,0,10,NaN,\nq02,broken,0,10,5,9\n";
    fs::write(place.path("other.csv"), format!("id,plan,repeat,tokens,latency_ms,prefill_ms\n{lines}{none}")).unwrap();
    let told = place.told(&["--import", "other.csv"]);
    assert_eq!((told.number("whole", "times_as_fast"), told.number("split", "times_as_fast")), (2.0, 2.0));
    let compared = ["whole", "split"].map(|plan| (told.value(plan, "times_of"), told.number(plan, "prompts")));
    assert_eq!(compared, [("whole answers".into(), 10.0), ("decoding".into(), 10.0)]);
    assert!(told.page.contains("<small>whole answers</small>") && told.page.contains("whole (whole answers)"));
    assert!(told.page.contains("<tr><td>split</td><td>10</td><td>2.00 "), "{}", told.page);
    for words in [
        "compared with whole answers of `plain`, and the reading of the prompt is in these times: `whole`.",
        "2 prompts of `whole` are none of the run and are left out, such as q80",
        "`elsewhere` is left out, as it has no prompt that `plain` answered too.",
        "2 answers of `broken` have no token, or no time greater than 0",
        "`broken` is left out",
    ] {
        assert!(told.warns(words), "{words}: {}", told.warnings);
    }
    assert!(!told.plans.contains("elsewhere") && !told.plans.contains("broken"));
    assert_eq!(
        told.summary[2],
        "All plans of the run answer 90.0% of 40 prompts rightly, as their tokens are the same."
    );
}

/// Names come from files of other programs: none of them becomes markup, in any file of the report.
#[test]
fn names_are_text_and_never_markup() {
    let evil = "<script>alert('1')</script>\u{1b}[2J";
    let place = Place::new(&[PLAIN, AUTO], &[rows("plain", 4.0, as_is), auto(2.0)].concat());
    let lines: String = (0..40).map(|id| format!("q{id:02},{evil},0,10,25,,{evil}\n")).collect();
    let none = format!("{evil},elsewhere{evil},0,10,25,,x\n");
    let table = format!("id,plan,repeat,tokens,latency_ms,prefill_ms,command\n{lines}{none}");
    fs::write(place.path("other.csv"), table).unwrap();
    let told = place.told(&["--import", "other.csv", "--title", evil]);
    assert!(told.page.contains("&lt;script&gt;alert") && !told.page.contains("<script"), "{}", told.page);
}

/// The page's row of a table that begins with some words.
fn line<'a>(page: &'a str, start: &str) -> &'a str {
    page.lines().find(|line| line.starts_with(&format!("<tr><td>{start}</td>"))).unwrap_or_else(|| panic!("{start}"))
}

#[test]
fn lossy_plans_are_tested_and_held_to_the_targets() {
    let plans = [
        PLAIN,
        AUTO,
        ("int8", "lower-precision = \"int8\", quality = \"best_effort\"", true),
        ("int8, plain", "drafter = \"none\", lower-precision = \"int8\", quality = \"best_effort\"", true),
        ("int4", "lower-precision = \"int4\", quality = \"best_effort\"", true),
        ("leaves", "drafter = \"exit:9\", exit-threshold = 0.99, quality = \"best_effort\"", true),
    ];
    let lossy = |plan: &str, ms, wrong: usize, drafted, unverified| {
        rows(plan, ms, |id, _, row| {
            let right = Some(id > 3 && id >= 4 + wrong);
            Row { right, digest: if id == 9 { "x".into() } else { row.digest.clone() }, drafted, unverified, ..row }
        })
    };
    let all = [
        rows("plain", 4.0, as_is),
        auto(2.0),
        lossy("int8", 1.0, 0, 3, 0),
        lossy("int8, plain", 3.0, 2, 0, 0),
        lossy("int4", 1.5, 4, 3, 0),
        lossy("leaves", 3.5, 0, 0, 9),
    ];
    let told = Place::new(&plans, &all.concat()).told(&[]);
    assert!(
        line(&told.page, "target in int8")
            .contains("time 0.75, energy unknown at 0.944 of the quality <small>(int8, plain)")
    );
    assert!(
        line(&told.page, "target in int4").contains(", with drafting <small>(int4)"),
        "{}",
        line(&told.page, "target in int4")
    );
    // Whole answers: 10 + 20 ms and 10 + 10 ms beside 10 + 40 ms.
    let simple = line(&told.page, "latency of simple prompts");
    assert!(simple.contains("<td>-40% of whole answers</td><td>-60% of whole answers</td>"), "{simple}");
    assert!(line(&told.page, "target layers run").contains("compute -30% to -60%") && !told.page.contains(">compute<"));
    assert!(line(&told.page, "loss of accuracy").contains("none: the same tokens</td><td>points: 0.0 <small>"));
    // Tango's interval of no difference on 40 prompts is 3.84 / 43.84 wide to either side, by hand.
    let ends =
        ["right_difference", "right_difference_low", "right_difference_high"].map(|column| told.number("int8", column));
    assert!(
        ends[0] == 0.0 && (ends[2] - 3.841_459 / 43.841_459).abs() < 1e-6 && (ends[1] + ends[2]).abs() < 1e-6,
        "{ends:?}"
    );
    assert!(told.page.contains("+0.0 <small>-8.8 to +8.8</small>"));
    assert_eq!(told.number("int8, plain", "right_difference"), -0.05);
    // McNemar of 0 and 4 is 0.125, of 0 and 2 it is 0.5; there are four tests.
    assert!(
        is_near(told.number("int4", "p_other_accuracy"), 0.5)
            && is_near(told.number("int8, plain", "p_other_accuracy"), 1.0)
    );
    assert_eq!(told.value("int8", "not_worse_within_margin"), "not shown");
    assert!(told.value("auto", "p_other_accuracy").is_empty());
    // 2.5% over four tests are 2.4977 standard deviations: 99 * 6.2386.
    assert!(
        told.warns("with 4 plans tested that takes 618. This is so of `int4`, `int8`, `int8, plain`, `leaves`."),
        "{}",
        told.warnings
    );
    assert!(told.page.contains("over the number of plans tested, 4 (Bonferroni)"));
    for words in [
        "share of right answers Wilson's, of the difference Tango's",
        "Right answers, with Wilson's 95% intervals",
        "<td>80%<br><small>58 to 92</small></td>",
    ] {
        assert!(told.page.contains(words), "{words}");
    }
    assert_eq!(
        (told.value("leaves", "tokens_per_step"), told.number("plain", "tokens_per_step")),
        (String::new(), 2.0)
    );
    assert!(told.summary[2].contains("int8 is 4.00 times as fast and answers 90.0% rightly, against 90.0% (difference +0.0 points, -8.8 to +8.8); that it is"), "{:?}", told.summary);
    // A lossy plan whose answers nobody checked.
    let unchecked: Vec<Row> =
        all.concat().into_iter().map(|row| if row.plan == "int8" { Row { right: None, ..row } } else { row }).collect();
    let told = Place::new(&plans, &unchecked).told(&[]);
    assert!(
        told.summary[2].ends_with("int8 is 4.00 times as fast; how many of its answers are right is unknown."),
        "{:?}",
        told.summary
    );
}

#[test]
fn a_router_that_is_behind_a_static_plan_is_a_defect() {
    let plans = [
        PLAIN,
        AUTO,
        ("thrifty", "objective = \"energy\", drafter = \"auto\"", false),
        ("open", "draft-length = 4", false),
        ("inherits", "draft-length = 5", false),
        ("named", "drafter = \"model:drafter\", draft-length = 4", false),
    ];
    let drafted = |plan: &str, ms, by: &'static [&'static str]| {
        rows(plan, ms, |id, _, row| Row { drafter: by[id % by.len()].into(), ..row })
    };
    let all = |ms: f64| {
        [
            rows("plain", 4.0, as_is),
            auto(ms),
            drafted("thrifty", 1.0, &["lookup"]),
            drafted("open", 1.0, &["lookup", "model:a", "none"]),
            drafted("inherits", 3.0, &["lookup", "none"]),
            drafted("named", 2.0, &["model:drafter"]),
        ]
        .concat()
    };
    let told = Place::new(&plans, &all(2.2)).told(&[]);
    assert!(
        told.warns("`auto` is behind the best static plan (`named`) by 10.0% of its time (10.0% to 10.0%)"),
        "{}",
        told.warnings
    );
    assert!(told.page.contains("The static plan is one of plain, inherits, named, chosen"), "{}", told.page);
    let told = Place::new(&plans, &all(1.9)).told(&[]);
    assert!(!told.warnings.contains("behind the best static plan"), "{}", told.warnings);
}

#[test]
fn the_page_tells_when_and_with_what_it_was_measured() {
    let told = Place::new(&[PLAIN, AUTO], &[rows("plain", 4.0, as_is), auto(2.0)].concat()).told(&[]);
    for words in [
        "2026-11-22 02:54 to 2026-11-22 02:56 (UTC)",
        "instruction set avx512 &lt;x&gt;",
        "<li>Router: 00ff00ff00ff00ff</li>",
        "<li>Trained exits: 11ee11ee11ee11ee</li>",
    ] {
        assert!(told.page.contains(words), "{words}");
    }
    assert!(told.page.matches("<table>").count() == told.page.matches("<div class=\"scroll\"><table>").count());
}

#[test]
fn two_runs_are_compared_with_an_interval_and_for_all_plans() {
    // After, one plan has other tokens and 4 right answers fewer, another has 2 fewer.
    let changed = |plan: &str, lost: usize| {
        rows(plan, 1.0, |id, _, row| {
            let is_lost = id > 3 && id < 4 + lost;
            Row {
                right: Some(id > 3 && !is_lost),
                digest: if is_lost { "x".into() } else { row.digest.clone() },
                ..row
            }
        })
    };
    let plans = [PLAIN, ("a", "", true), ("b", "", true)];
    let before = [rows("plain", 4.0, as_is), rows("a", 2.0, as_is), rows("b", 2.0, as_is)].concat();
    let after = [rows("plain", 4.0, as_is), changed("a", 4), changed("b", 2)].concat();
    let (before, after) = (Place::new(&plans, &before), Place::new(&plans, &after));
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-eval"));
    // Names that are none here are not asked for.
    command.env("HF_HUB_OFFLINE", "1");
    let done = command.arg("compare").args([before.path("run"), after.path("run")]).output().unwrap();
    let (said, noted) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    let line = |plan: &str| said.lines().find(|line| line.starts_with(&format!("| {plan} |"))).unwrap();
    assert!(line("plain").ends_with("| 90.0% | 90.0% | - | - | 100.0% |"), "{said}");
    // McNemar of 0 and 4 is 0.125, twice that of two tests; of 0 and 2 it is 0.5.
    let (a, b) = (line("a"), line("b"));
    assert!(a.contains("| 0.500 (0.500 to 0.500) |") && a.contains("| 90.0% | 80.0% | -10.0 (-"), "{a}");
    assert!(a.ends_with("| 0.250 | 90.0% |") && b.ends_with("| 0.500 | 95.0% |"), "{said}");
    assert!(noted.contains("there are 2, so p is corrected"), "{noted}");
}
