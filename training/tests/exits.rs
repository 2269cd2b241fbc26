//! The step `exits`, from end to end on the smoke recipe: heads that beat untrained ones, runs that are killed, and the
//! runtime that reads what was trained.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use burn::tensor::{Device, Tensor, TensorData};
use paceline::checkpoint::{Checkpoint, EXITS, exit_tensors};
use paceline::model::{Compute, Decoder, DeviceName, Parameters, Trainable};
use paceline::{DraftLength, DrafterChoice, Engine, EngineConfig, GenerationConfig, Prompt};

fn command(step: &str, out: &Path) -> Command {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/smoke.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-train"));
    // Names that are none here are not asked for.
    command.env("HF_HUB_OFFLINE", "1");
    command.arg(step).arg(recipe).arg("--out").arg(out).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// What a step printed.
#[track_caller]
fn run(step: &str, out: &Path) -> (String, String) {
    let output = command(step, out).output().unwrap();
    let [told, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{step}: {said}");
    (told, said)
}

/// Runs the step until `file` of its folder is there, and kills it.
fn kill_when(file: &Path, out: &Path) {
    let mut child = command("exits", out).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while !file.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "the step ended before it was killed");
    assert!(!out.join("models/target").join(EXITS).exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn exits_are_trained_resumed_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("whole");
    for step in ["tokenizer", "tokens", "pretrain"] {
        run(step, &out);
    }
    let killed = dir.path().join("killed");
    copy(&out, &killed);
    let (table, _) = run("exits", &out);
    assert!(table.contains("depth   untrained   trained"), "{table}");
    let (_, said) = run("exits", &out);
    assert!(said.contains("done already"), "{said}");
    check_agreement(&out);

    // Killed while activations are written, then at a checkpoint of the heads.
    for file in ["training.json", "checkpoint.safetensors"] {
        kill_when(&killed.join("exits").join(file), &killed);
    }
    run("exits", &killed);
    for file in ["models/target/exits.safetensors", "exits/loss.csv", "exits/agreement.csv", "exits/agreement.svg"] {
        let read = |out: &Path| fs::read(out.join(file)).unwrap();
        assert!(read(&out) == read(&killed), "{file} differs after the run was killed");
    }

    let model = out.join("models/target");
    check_parity(&model);
    check_exactness(&model);
}

/// The table's columns: depth, untrained, trained, error as it is, calibrated, temperature, rows.
fn check_agreement(out: &Path) {
    let table = fs::read_to_string(out.join("exits/agreement.csv")).unwrap();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("depth,\"agreement, untrained\",\"agreement, trained\""), "{table}");
    let rows: Vec<Vec<f64>> = lines.map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect()).collect();
    assert_eq!(rows.len(), 3);
    let mean = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>() / 3.0;
    println!("{table}");
    assert!(mean(2) > mean(1) + 0.02, "trained exits agree no more than untrained ones: {table}");
    assert!(mean(4) <= mean(3) + 0.01, "calibration makes confidence worse: {table}");
}

/// The runtime's heads against the trainer's.
fn check_parity(model: &Path) {
    let checkpoint = Checkpoint::open(model).unwrap();
    let exits = checkpoint.exits().unwrap().unwrap();
    let compute = Compute::open(DeviceName::Cpu, 2).unwrap();
    let decoder = Decoder::load(&checkpoint, None, &compute, &mut |_, _| {}).unwrap();
    let decoder = decoder.with_exits(&checkpoint, &exits).unwrap();
    let trunk = Trainable::open(&checkpoint, &compute).unwrap();
    let width = checkpoint.config().hidden_size;
    let shapes = exits.config().exits.iter().flat_map(|exit| exit_tensors(exit.depth, exits.config().rank, width));
    let heads = Parameters::new(shapes, &compute, |name, _| exits.tensor(name).unwrap().to_f32());
    let values: Vec<f32> = (0..5 * width).map(|place| ((place * 37 % 101) as f32 - 50.0) / 30.0).collect();
    let place = |device: &Device| Tensor::<2>::from_data(TensorData::new(values.clone(), [5, width]), device);
    for exit in decoder.exits() {
        let ours = decoder.exit_logits(exit.depth, &decoder.hidden(values.clone()));
        let logits = trunk.model(true).exit(&heads, exit.depth, place(heads.device())).1;
        let theirs: Vec<f32> = logits.inner().into_data().try_into_vec().unwrap();
        let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
        assert!(apart < 5e-5, "depth {}: {apart}", exit.depth);
    }
}

/// Tokens are those of plain decoding, whatever trained exit drafts.
fn check_exactness(model: &Path) {
    let engine = Engine::load(&EngineConfig { threads: 2, ..EngineConfig::new(model) }).unwrap();
    let tokens = |drafter: DrafterChoice, temperature| {
        let config = GenerationConfig {
            max_new_tokens: 60,
            ignore_eos: true,
            drafter,
            draft_len: DraftLength::Fixed(4),
            sampling: paceline::SamplingConfig { temperature, ..Default::default() },
            ..GenerationConfig::default()
        };
        let answer = engine.generate(Prompt::Text("What is 3 + 4?".to_owned()), &config).unwrap().finish().unwrap();
        answer.tokens
    };
    for temperature in [0.0, 0.8] {
        let expected = tokens(DrafterChoice::None, temperature);
        for depth in 1..4 {
            assert_eq!(tokens(DrafterChoice::Exit(depth), temperature), expected, "exit:{depth} at {temperature}");
        }
    }
    assert!(PathBuf::from(model).join(EXITS).exists());
}
