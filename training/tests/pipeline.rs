//! The pipeline from tasks to draft models with the smoke recipe: losses fall, a killed run ends as one that nobody
//! disturbed, and what cannot go on is told in a sentence.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::Run;
use paceline::{DrafterChoice, Engine, EngineConfig, GenerationConfig, Prompt};

/// A folder with a recipe and what is made of it.
struct Place(tempfile::TempDir);

impl Place {
    /// The smoke recipe with some of its text replaced.
    fn new(changes: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.change(changes);
        place
    }

    /// Writes the smoke recipe with some of its text replaced.
    fn change(&self, changes: &[(&str, &str)]) {
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/smoke.toml");
        let recipe = fs::read_to_string(recipe).unwrap();
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let here = recipe.replace("${RECIPE}/../..", repository);
        let changed = changes.iter().fold(here, |recipe, (from, to)| {
            assert!(recipe.contains(from), "the smoke recipe has no `{from}`");
            recipe.replace(from, to)
        });
        fs::write(self.0.path().join("smoke.toml"), changed).unwrap();
    }

    /// A place with a vocabulary and tokens, for trainings of a few steps.
    fn tiny(changes: &[(&str, &str)]) -> Self {
        let place = Self::new(&[&TINY[..], changes].concat());
        place.step(&["tokenizer"]).succeeds(&[]);
        place.step(&["tokens"]).succeeds(&[]);
        place
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-train"));
        // Names that are none here are not asked for.
        command.env("HF_HUB_OFFLINE", "1");
        command.args(arguments).args(["smoke.toml", "--out", "made"]).current_dir(self.0.path());
        command
    }

    fn step(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Begins a step and kills it as soon as `file` has more than `bytes` bytes.
    fn kill(&self, step: &str, file: &str, bytes: u64) {
        let mut running = self.command(&[step]).stderr(Stdio::null()).spawn().unwrap();
        let (file, started) = (self.path(file), Instant::now());
        while !fs::metadata(&file).is_ok_and(|metadata| metadata.len() > bytes) {
            assert!(started.elapsed() < Duration::from_secs(300), "{} does not come", file.display());
            sleep(Duration::from_millis(1));
        }
        running.kill().unwrap();
        assert_eq!(running.wait().unwrap().code(), None, "{step} ended before it was killed");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("made").join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The column of a curve.
    fn column(&self, curve: &str, name: &str) -> Vec<f64> {
        let mut reader = csv::Reader::from_path(self.path(curve)).unwrap();
        let column = reader.headers().unwrap().iter().position(|header| header == name).unwrap();
        let values = reader.records().map(|row| row.unwrap()[column].to_owned());
        values.filter(|value| !value.is_empty()).map(|value| value.parse().unwrap()).collect()
    }
}

const TINY: [(&str, &str); 6] = [
    ("steps = 40\n", "steps = 2\n"),
    ("steps = 20\n", "steps = 1\n"),
    ("train = 2000", "train = 200"),
    ("steps = 200", "steps = 4"),
    ("steps = 100", "steps = 4"),
    ("answers = 200", "answers = 4"),
];

const TARGET: &str = "target/loss.csv";
const DRAFT: &str = "drafts/small/loss.csv";

#[test]
fn the_family_is_made_once_and_killed_runs_make_the_same() {
    let whole = Place::new(&[]);
    let run = whole.step(&["family"]);
    run.succeeds(&["step 1 of 9, tasks: done", "step 4 of 9, pretrain: done", "step 9 of 9, router: done"]);
    assert!(run.out.contains("agreement with the target") && run.out.contains("\nsmall "), "{run:?}");
    assert!(run.out.contains("\nexits of target, agreement by depth: 1 "), "{run:?}");

    for (curve, validation) in [(TARGET, "validation, tasks"), (DRAFT, "validation, answers")] {
        let train = whole.column(curve, "train");
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&train[..5]), mean(&train[train.len() - 5..]));
        assert!(last < 0.8 * first, "{curve}: {first} {last}");
        let held_out = whole.column(curve, validation);
        assert!(held_out.len() > 1 && held_out.windows(2).all(|pair| pair[1] < pair[0]), "{curve}: {held_out:?}");
    }
    let rates = whole.column(TARGET, "learning rate");
    assert!(rates.len() == 260 && rates[199] < 5e-4 && rates[210] > 1.5e-3, "the second phase starts again: {rates:?}");
    let agreement = whole.column(DRAFT, "agreement, answers");
    assert!(agreement[agreement.len() - 1] > agreement[0] + 0.2, "{agreement:?}");

    for model in ["target", "small"] {
        let tokens: Vec<u32> =
            serde_json::from_slice(&whole.read(&format!("models/{model}/draft_vocabulary.json"))).unwrap();
        assert_eq!(tokens.len(), 256, "{model}");
    }

    // What was made is what the runtime takes, and the draft drafts.
    let config =
        EngineConfig { draft: vec![whole.path("models/small")], ..EngineConfig::new(whole.path("models/target")) };
    let engine = Engine::load(&config).unwrap();
    let settings =
        GenerationConfig { max_new_tokens: 8, drafter: DrafterChoice::Model(None), ..GenerationConfig::default() };
    let answer = engine.generate(Prompt::Text("The".to_owned()), &settings).unwrap().finish().unwrap();
    assert!(!answer.tokens.is_empty());

    let again = whole.step(&["family"]);
    assert_eq!((again.code, again.err.matches("skipped, it was done already").count()), (Some(0), 9), "{again:?}");
    // The step `exits` prints a table of its own when it runs.
    assert!(run.out.ends_with(&again.out), "{again:?}");
    whole.step(&["pretrain"]).succeeds(&["pretrain: done already"]);
    whole.step(&["distill", "--draft", "small"]).succeeds(&["distill small: done already"]);

    let killed = Place::new(&[]);
    killed.step(&["tokenizer"]).succeeds(&[]);
    killed.step(&["tokens"]).succeeds(&[]);
    killed.kill("pretrain", "target/checkpoint.safetensors", 0);
    assert!(!killed.path("models/target").exists());
    // A second time, when it has grown.
    let grown = whole.read("target/checkpoint.safetensors").len() as u64 * 9 / 10;
    killed.kill("pretrain", "target/checkpoint.safetensors", grown);
    // And a third time, in the second phase.
    let curve = String::from_utf8(whole.read(TARGET)).unwrap();
    let first_phase: usize = curve.split_inclusive('\n').take(206).map(str::len).sum();
    killed.kill("pretrain", TARGET, first_phase as u64);
    killed.step(&["pretrain"]).succeeds(&[]);
    let same = |name: &str| assert!(whole.read(name) == killed.read(name), "{name} differs");
    same("models/target/model.safetensors");
    same(TARGET);
    killed.kill("distill", "answers/answers-64.jsonl", 5000);
    killed.kill("distill", "drafts/small/checkpoint.safetensors", 0);
    assert!(!killed.path("models/small").exists());
    killed.step(&["distill"]).succeeds(&["picks the target's token on answers"]);
    for name in ["answers/answers-64.jsonl", "answers/held-out-64.jsonl", "models/small/model.safetensors", DRAFT] {
        same(name);
    }
}

/// A signal that comes while it trains gets a checkpoint of its own.
#[test]
#[cfg(target_os = "linux")]
fn a_training_that_a_signal_ends_leaves_a_checkpoint_and_goes_on() {
    use std::io::{BufRead, BufReader};
    let short = [("steps = 40\n", "steps = 2\n"), ("steps = 20\n", "steps = 1\n"), ("steps = 200", "steps = 60")];
    let rare = [("train = 2000", "train = 200"), ("save_every = 5", "save_every = 100000")];
    let place = Place::new(&[&short[..], &rare].concat());
    place.step(&["tokenizer"]).succeeds(&[]);
    place.step(&["tokens"]).succeeds(&[]);
    let mut running = place.command(&["pretrain"]).stderr(Stdio::piped()).spawn().unwrap();
    // Its first line comes when it has trained for a second.
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines().map(Result::unwrap);
    if !lines.any(|line| line.contains(" tokens (")) {
        running.wait().unwrap();
        return println!("skipped: it trains too fast here to be ended");
    }
    Command::new("kill").args(["-TERM", &running.id().to_string()]).status().unwrap();
    let last = lines.last().unwrap();
    assert!(
        last.ends_with("ended early by SIGTERM; what was done is kept, and the same command goes on from there."),
        "{last}"
    );
    assert_eq!(running.wait().unwrap().code(), Some(143));
    assert!(place.path("target/checkpoint.safetensors").is_file());
    let steps = place.column(TARGET, "train").len();
    // The curve is saved with the checkpoint, and the rest of it follows.
    place.step(&["pretrain"]).succeeds(&[]);
    assert!(steps > 0 && steps < 63 && place.column(TARGET, "train").len() == 63, "{steps}");
}

#[test]
fn a_loss_that_is_no_number_stops_at_its_step_and_leaves_the_checkpoint() {
    let wild = [("learning_rate = 4e-3", "learning_rate = 1e9"), ("save_every = 5", "save_every = 1")];
    let place = Place::tiny(&[&wild[..], &[("steps = 4", "steps = 50")]].concat());
    let words = ["The loss of target is no longer finite at step ", "lower `learning_rate`", "last good weights"];
    let first = place.step(&["pretrain"]);
    first.fails(1, &words);
    let checkpoint = place.read("target/checkpoint.safetensors");
    // It goes on from there, to the same end.
    let second = place.step(&["pretrain"]);
    second.fails(1, &words);
    let sentence = |run: &Run| run.err.lines().last().map(str::to_owned);
    assert_eq!(sentence(&first), sentence(&second));
    assert!(checkpoint == place.read("target/checkpoint.safetensors"));
    assert!(!place.path("models/target").exists());
    let rates = [("learning_rate = 4e-3", "learning_rate = 1e8")];
    place.change(&[&TINY[..], &rates].concat());
    place.step(&["pretrain"]).fails(1, &["made by another recipe", "delete it to begin anew"]);
}

#[test]
fn a_phase_draws_by_its_own_weights() {
    let losses = |weights: &str| {
        let place = Place::tiny(&[("{ tasks = 0.5, focus = 0.5 }", weights)]);
        place.step(&["pretrain"]).succeeds(&[]);
        place.column(TARGET, "train")
    };
    let (tasks, focus) = (losses("{ tasks = 1 }"), losses("{ tasks = 0, focus = 1 }"));
    assert_eq!((tasks.len(), &tasks[..4]), (7, &focus[..4]));
    assert!(tasks[4..] != focus[4..], "{tasks:?}");
}

#[test]
fn a_training_that_is_done_is_gone_on_with_when_it_gets_a_phase() {
    const MORE: &str = "[[target.training.phases]]\nsteps = 3\n\n[drafts.small]\n";
    let place = Place::tiny(&[]);
    place.step(&["pretrain"]).succeeds(&[]);
    let once = place.read("models/target/model.safetensors");
    place.change(&[&TINY[..], &[("[drafts.small]\n", MORE)]].concat());
    place.step(&["pretrain"]).succeeds(&[]);
    let whole = Place::tiny(&[("[drafts.small]\n", MORE)]);
    whole.step(&["pretrain"]).succeeds(&[]);
    let losses = place.column(TARGET, "train");
    assert_eq!((losses.len(), losses), (10, whole.column(TARGET, "train")));
    let model = place.read("models/target/model.safetensors");
    assert!(model == whole.read("models/target/model.safetensors") && model != once);
    // What has begun cannot change any more.
    place.change(&[&TINY[..], &[("learning_rate = 2e-3", "learning_rate = 1e-3")]].concat());
    place.step(&["pretrain"]).fails(1, &["made by another recipe"]);
}

#[test]
fn what_does_not_fit_is_told_in_a_sentence() {
    let place = Place::tiny(&[]);
    place
        .step(&["distill"])
        .fails(1, &["There is no target in made/models/target yet", "`paceline-train pretrain` first"]);
    place.step(&["pretrain"]).succeeds(&[]);
    place.step(&["distill", "--draft", "smal"]).fails(1, &["no draft called `smal`", "(small)"]);
    place.step(&["distill"]).succeeds(&[]);

    // Other settings than those of the checkpoints.
    let change = |changes: &[(&str, &str)]| place.change(&[&TINY[..], changes].concat());
    change(&[("hard_labels = 0.1", "hard_labels = 0.2")]);
    let other = ["drafts/small/checkpoint.safetensors was made by another recipe", "delete it"];
    place.step(&["distill"]).fails(1, &other);
    // When checkpoints are written changes nothing of what is learned.
    change(&[("save_every = 5\nproducts", "save_every = 3\nproducts")]);
    place.step(&["pretrain"]).succeeds(&[]);
    change(&[("learning_rate = 4e-3", "learning_rate = 3e-3")]);
    let named = "it has `learning_rate: 0.004` where this one has `learning_rate: 0.003`";
    place.step(&["pretrain"]).fails(1, &["target/checkpoint.safetensors was made by another recipe", named]);
    place.step(&["family"]).fails(1, &["target/checkpoint.safetensors was made by another recipe"]);
    change(&[("seed = 1", "seed = 2")]);
    place.step(&["pretrain"]).fails(1, &["target/checkpoint.safetensors was made by another recipe"]);

    // Another vocabulary than the target's, and than the tokens'.
    change(&[("vocabulary = 512", "vocabulary = 400")]);
    place.step(&["tokenizer"]).succeeds(&[]);
    place.step(&["pretrain"]).fails(1, &["were made with another tokenizer", "run `paceline-train tokens` again"]);
    place.step(&["distill"]).fails(1, &["models/target was not made with the tokenizer in made/tokenizer"]);
    place.step(&["exits"]).fails(1, &["made/tokenizer is another than that of the model in made/models/target"]);
    place.step(&["tokens"]).succeeds(&[]);
    place.step(&["pretrain"]).fails(1, &["target/checkpoint.safetensors was made by another recipe"]);
}

/// Files may not grow beyond what a full disk would leave room for: checkpoints, models, answers and activations stay as
/// they were, and with room again everything ends as if nothing had been.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_good_files_and_is_gone_on_from() {
    // Checkpoints at steps 2 and 4, of which the second is of a deeper model and larger.
    let changes = [&TINY[..], &[("save_every = 5", "save_every = 2")]].concat();
    let whole = Place::new(&changes);
    whole.step(&["family"]).succeeds(&[]);
    let place = Place::tiny(&[("save_every = 5", "save_every = 2")]);
    let full = |step: &str, bytes: u64| {
        let blocks = bytes / 512;
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_paceline-train");
        let arguments = ["-c", &line, "sh", program, step, "smoke.toml", "--out", "made"];
        Run::of(Command::new("sh").args(arguments).current_dir(place.0.path()))
    };
    let size = |name: &str| whole.read(name).len() as u64;
    let checkpoint = "target/checkpoint.safetensors";
    full("pretrain", size(checkpoint) * 8 / 10)
        .fails(1, &["checkpoint.safetensors cannot be written and stays as it was"]);
    let kept = place.read(checkpoint);
    assert!(!kept.is_empty() && !place.path("models/target").exists());
    full("pretrain", size(checkpoint) * 8 / 10)
        .fails(1, &["checkpoint.safetensors cannot be written and stays as it was"]);
    assert!(place.read(checkpoint) == kept);
    place.step(&["pretrain"]).succeeds(&[]);
    full("distill", size("answers/answers-64.jsonl") / 2).fails(1, &["answers-64.jsonl cannot be kept", "make room"]);
    full("exits", size("exits/training.rows") / 2).fails(1, &["training.rows cannot be written", "make room"]);
    place.step(&["family"]).succeeds(&[]);
    for name in ["models/target/model.safetensors", "models/small/model.safetensors", "models/target/exits.safetensors"]
    {
        assert!(whole.read(name) == place.read(name), "{name} differs");
    }
}
