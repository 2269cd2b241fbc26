//! From traces to a working router with the models of the smoke recipe: what is traced is what drafters do, a killed run ends as
//! one that nobody disturbed, the runtime takes the router up, and tokens stay those of plain decoding.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::Run;
use paceline::info::RouterState;
use paceline::routing::{open_router, read_state};
use paceline::{
    Answer, DraftLength, DrafterChoice, Engine, EngineConfig, GenerationConfig, Message, Prompt, SamplingConfig,
};
use paceline_router::TraceRow;

const RECIPE: &str = "seed = 3
[tokenizer]
from = \"MODEL\"
[data.tasks]
train = 240
[traces]
model = \"MODEL\"
drafts = [\"DRAFT\"]
prompts = 200
held_out = 40
longest_answer = 24
temperatures = [0.0, 0.7]
lower = [\"int8\"]
skip = [\"m1\"]
[router]
queries = 2
inside = 8
steps = 80
decide = 40
batch = 16
ablation = false
save_every = 5
";

/// A folder with a target, a draft, and a recipe for its router.
struct Place(tempfile::TempDir);

impl Place {
    /// Models of the smoke recipe's shape that have learned next to nothing: enough to agree now and then.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let smoke = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/smoke.toml")).unwrap();
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let changes = [
            ("${RECIPE}/../..", repository),
            ("steps = 40\n", "steps = 2\n"),
            ("steps = 20\n", "steps = 1\n"),
            ("train = 2000", "train = 400"),
            ("steps = 200", "steps = 40"),
            ("steps = 100", "steps = 10"),
            ("answers = 200", "answers = 4"),
            ("rows = 20000", "rows = 2000"),
            ("held_out = 4096", "held_out = 512"),
        ];
        let smoke = changes.iter().fold(smoke, |smoke, (from, to)| smoke.replace(from, to));
        let smoke = &smoke[..smoke.find("[traces]").unwrap()];
        fs::write(place.path("smoke.toml"), smoke).unwrap();
        place.run(&["family", "smoke.toml", "--out", "made"]).succeeds(&[]);
        place.recipe(&[]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn recipe(&self, changes: &[(&str, &str)]) {
        let recipe = RECIPE.replace("MODEL", "made/models/target").replace("DRAFT", "made/models/small");
        let recipe = changes.iter().fold(recipe, |recipe, (from, to)| {
            assert!(recipe.contains(from), "{from}");
            recipe.replace(from, to)
        });
        fs::write(self.path("own.toml"), recipe).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-train"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        command.args(arguments).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    fn step(&self, step: &str, out: &str) -> Run {
        self.run(&[step, "own.toml", "--out", out])
    }

    /// Begins a step and kills it as soon as a file is there.
    fn kill(&self, step: &str, out: &str, file: &str) {
        let mut running = self.command(&[step, "own.toml", "--out", out]).stderr(Stdio::null()).spawn().unwrap();
        let (file, started) = (self.path(out).join(file), Instant::now());
        while !file.exists() {
            assert!(started.elapsed() < Duration::from_secs(300), "{} does not come", file.display());
            sleep(Duration::from_millis(1));
        }
        running.kill().unwrap();
        assert_eq!(running.wait().unwrap().code(), None, "{step} ended before it was killed");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn engine(&self) -> EngineConfig {
        EngineConfig {
            draft: vec![self.path("made/models/small")],
            threads: 1,
            ..EngineConfig::new(self.path("made/models/target"))
        }
    }
}

fn ask(engine: &Engine, question: &str, config: &GenerationConfig) -> Answer {
    let prompt = Prompt::Messages(vec![Message::new("user", question)]);
    engine.generate(prompt, config).unwrap().finish().unwrap()
}

const QUESTIONS: [&str; 4] =
    ["Sort these words: pear fig apple", "Find the result. 12 + 30", "a", "Name the colours: red, green"];

#[test]
fn a_router_is_learned_from_traces_and_changes_no_token() {
    let place = Place::new();
    place.step("router", "whole").fails(1, &["no traces in whole/traces yet", "`paceline-train traces` first"]);
    place.step("traces", "whole").succeeds(&[]);
    place.step("traces", "whole").succeeds(&["traces: done already"]);

    // A drafter that is asked for every token agrees as often in serving as teacher forcing says.
    let rows: Vec<TraceRow> = csv::Reader::from_path(place.path("whole/traces/traces.csv"))
        .unwrap()
        .deserialize()
        .map(Result::unwrap)
        .collect();
    let mut sums: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.exact_match.is_none()) {
        let sum = sums.entry(&row.plan).or_default();
        [1, row.evaluated, row.accepted].into_iter().zip(sum).for_each(|(by, sum)| *sum += by);
    }
    let plans: Vec<&str> = sums.keys().copied().collect();
    assert_eq!(plans, ["exit:1", "exit:2", "exit:3", "lookup", "model:small", "self:int8", "skip:m1"]);
    // Some prompts leave no room for an answer.
    let prompts = sums["lookup"][0];
    assert!(prompts > 200 && sums.values().all(|sum| sum[0] == prompts), "{sums:?}");
    let [_, evaluated, accepted] = sums["self:int8"];
    assert!(accepted as f64 > 0.9 * evaluated as f64, "rounded to 8 bits the target agrees with itself: {sums:?}");
    assert!(rows.iter().any(|row| row.exact_match == Some(true)) && rows.iter().any(|row| row.temperature > 0.0));

    // Killed while it traces, and while it learns.
    place.kill("traces", "killed", "traces/part-0001.safetensors");
    place.step("traces", "killed").succeeds(&[]);
    for part in ["answers.jsonl", "part-0000.safetensors", "part-0003.safetensors"] {
        assert!(
            place.read(&format!("whole/traces/{part}")) == place.read(&format!("killed/traces/{part}")),
            "{part} differs"
        );
    }
    // Traces of a draft that was trained anew since say nothing of it.
    let weights = place.path("made/models/small/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    place.step("router", "whole").fails(1, &["whole/traces are of another target", "`paceline-train traces` again"]);
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let judged = place.step("router", "whole");
    assert!(judged.code == Some(0) && judged.out.contains("of the gap from static to oracle"), "{judged:?}");
    let router = place.read("made/models/target/router.safetensors");
    assert!(router.len() < 1_000_000, "{}", router.len());
    place.step("router", "whole").succeeds(&["router: done already"]);
    fs::remove_file(place.path("made/models/target/router.safetensors")).unwrap();
    // What was measured differs from run to run, and what is learned from it.
    fs::copy(place.path("whole/traces/costs.json"), place.path("killed/traces/costs.json")).unwrap();
    place.kill("router", "killed", "router/whole/checkpoint.safetensors");
    place.step("router", "killed").succeeds(&[]);
    assert!(place.read("made/models/target/router.safetensors") == router, "a killed run learns something else");

    // A group of features that is left out is not taken in serving either.
    let open = || open_router(&place.path("made/models/target")).unwrap().unwrap();
    assert!(open().description().exit.is_some());
    place.recipe(&[("[router]\n", "[router]\nleave_out = [\"uncertainty\"]\n")]);
    place.step("router", "killed").succeeds(&[]);
    assert_eq!(open().description().exit, None);
    place.recipe(&[("[router]\n", "[router]\nleave_out = [\"attention\"]\n")]);
    place.step("router", "killed").fails(1, &["`leave_out` of [router]", "`uncertainty`"]);
    place.recipe(&[]);
    fs::write(place.path("made/models/target/router.safetensors"), &router).unwrap();

    // The runtime uses it, and tokens stay those of plain decoding while it learns.
    let state = place.path("state.json");
    let config = EngineConfig { online_state: Some(state.clone()), ..place.engine() };
    let engine = Engine::load(&config).unwrap();
    assert_eq!(engine.info().router, RouterState::Used);
    for temperature in [0.0, 0.7, 1.5] {
        for (seed, question) in (0..).zip(QUESTIONS) {
            let sampling = SamplingConfig { temperature, seed, ..SamplingConfig::default() };
            let auto =
                GenerationConfig { sampling, max_new_tokens: 40, ignore_eos: true, ..GenerationConfig::default() };
            let plain = GenerationConfig { drafter: DrafterChoice::None, ..auto.clone() };
            let fixed = GenerationConfig { draft_len: DraftLength::Fixed(3), ..auto.clone() };
            let expected = ask(&engine, question, &plain);
            assert_eq!((&expected.report.plan.difficulty, expected.report.routing_ms), (&None, None));
            for config in [auto, fixed] {
                let routed = ask(&engine, question, &config);
                assert_eq!(routed.tokens, expected.tokens, "{question} at {temperature}");
                let level = routed.report.plan.difficulty.unwrap();
                assert!(["simple", "medium", "complex"].contains(&level.as_str()));
                assert!(routed.report.routing_ms.is_some_and(|ms| ms > 0.0) && routed.report.warnings.is_empty());
            }
        }
    }
    drop(engine);
    let of = open_router(&place.path("made/models/target")).unwrap().unwrap().description().made_of.clone();
    let learned = read_state(&state, &of).unwrap().unwrap();
    assert!(learned.answers() > 0 && learned.costs().steps[0] > 0.0);

    refusals(&place, &state);
}

/// What does not fit is left alone, said, and answers go on.
fn refusals(place: &Place, state: &Path) {
    let settings = GenerationConfig { max_new_tokens: 4, ..GenerationConfig::default() };
    let warned = |config: &EngineConfig, words: &[&str]| {
        let engine = Engine::load(config).unwrap();
        let answer = ask(&engine, QUESTIONS[0], &settings);
        let warnings = answer.report.warnings.join(" ");
        assert!(words.iter().all(|word| warnings.contains(word)), "{warnings}");
        (engine.info().router.clone(), answer.tokens)
    };
    let with_state = EngineConfig { online_state: Some(state.to_owned()), ..place.engine() };
    let (_, expected) = warned(&place.engine(), &[]);

    // A frozen state stays as it is; a damaged one is moved aside.
    let before = fs::read(state).unwrap();
    warned(&EngineConfig { frozen: true, ..with_state.clone() }, &[]);
    assert!(fs::read(state).unwrap() == before);
    fs::write(state, &before[..before.len() / 2]).unwrap();
    warned(&with_state, &["is damaged", "moved to", "state.json.aside", "begins anew"]);
    assert!(fs::read(state.with_extension("json.aside")).unwrap() == before[..before.len() / 2]);

    // Another draft under the same name, another target, a damaged file, and none.
    let router = place.path("made/models/target/router.safetensors");
    let good = fs::read(&router).unwrap();
    let (used, tokens) = warned(&EngineConfig { no_router: true, ..place.engine() }, &[]);
    assert_eq!((used, &tokens), (RouterState::Absent, &expected));
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    fs::create_dir(other.join("small")).unwrap();
    for entry in fs::read_dir(place.path("made/models/small")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.join("small").join(entry.file_name())).unwrap();
    }
    fs::write(other.join("small/draft_vocabulary.json"), "[1, 2, 3]").unwrap();
    let config = EngineConfig { draft: vec![other.join("small")], ..place.engine() };
    let (refused, tokens) =
        warned(&config, &["by measurements alone", "another drafter `model:small`", "or remove it"]);
    assert!(matches!(refused, RouterState::Refused(_)) && tokens == expected);
    fs::write(&router, &good[..good.len() / 2]).unwrap();
    let (refused, tokens) = warned(&place.engine(), &["cannot be read", "`paceline-train router`"]);
    assert!(matches!(refused, RouterState::Refused(_)) && tokens == expected);
    let draft = place.path("made/models/small");
    fs::write(draft.join("router.safetensors"), &good).unwrap();
    warned(&EngineConfig { threads: 1, ..EngineConfig::new(draft) }, &["for another model"]);
    fs::write(&router, &good).unwrap();

    // Recipes that cannot be.
    for (change, said) in [
        (("temperatures = [0.0, 0.7]", "temperatures = []"), "`temperatures` of [traces] needs"),
        (("skip = [\"m1\"]", "layer = 9"), "`layer` of [traces] is 9, and the target has 4 layers"),
        (("held_out = 40", "held_out = 0"), "`prompts` or `held_out` in [traces]"),
        (("steps = 80", "steps = 0"), "`steps` and `save_every` of [router]"),
        (("inside = 8", "inside = 0"), "`inside` of [router] must be from 1"),
    ] {
        place.recipe(&[change]);
        let traced = place.step("traces", "bad");
        let failed = if traced.code == Some(0) { place.step("router", "bad") } else { traced };
        failed.fails(1, &[said]);
    }
}
