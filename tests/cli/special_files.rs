//! Pipes, devices, folders and other people's files where a file of ours should be: each is told in a sentence or left out, at
//! once, and none of them is changed.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Run, fixture, generate, generate_from, quiet_command};

/// Things that are no plain files, or no end of one.
const KINDS: [&str; 7] =
    ["pipe", "endless device", "empty device", "folder", "socket", "file of the system", "link to nothing"];

/// Puts something special at a path; whether this system has it.
fn put(path: &Path, kind: &str) -> bool {
    match kind {
        "pipe" => {
            let made = Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success());
            if !made {
                println!("There is no mkfifo here, so a pipe was not tried.");
            }
            made
        }
        "endless device" => symlink("/dev/zero", path).is_ok(),
        "empty device" => symlink("/dev/null", path).is_ok(),
        "folder" => fs::create_dir(path).is_ok(),
        "socket" => UnixListener::bind(path).is_ok(),
        "file of the system" => Path::new("/proc/self/maps").exists() && symlink("/proc/self/maps", path).is_ok(),
        _ => symlink("nowhere", path).is_ok(),
    }
}

/// What a path is, for seeing that it stayed so.
fn look(path: &Path) -> (fs::FileType, Option<PathBuf>) {
    (fs::symlink_metadata(path).unwrap().file_type(), fs::read_link(path).ok())
}

#[test]
fn special_files_in_a_model_are_told_or_left_out() {
    let files = [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "exits.safetensors",
        "router.safetensors",
        "draft_vocabulary.json",
        "chat_template.jinja",
        "certificates/floor-0.9.json",
    ];
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    for file in files {
        for kind in KINDS {
            let _ = fs::remove_dir_all(&model);
            fs::create_dir_all(model.join("certificates")).unwrap();
            for entry in fs::read_dir(fixture("micro")).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
            }
            let path = model.join(file);
            if path.exists() {
                fs::remove_file(&path).unwrap();
            }
            if !put(&path, kind) {
                continue;
            }
            let before = look(&path);
            let model = model.to_str().unwrap();
            let run = generate_from(model, &["--no-journal", "--prompt", "a", "--max-new-tokens", "2", "--json"]);
            match run.code {
                Some(0) => assert_eq!(run.objects().len(), 1, "{file} as {kind}: {run:?}"),
                _ => run.fails(1, &[]),
            }
            assert!(look(&path) == before, "{file} as {kind}");
        }
    }
}

#[test]
fn special_files_that_settings_name_are_told_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    for (number, kind) in KINDS.iter().enumerate() {
        let path = dir.path().join(number.to_string());
        if !put(&path, kind) {
            continue;
        }
        let before = look(&path);
        let named = path.to_str().unwrap();
        let plan = format!("skip:file:{named}");
        for setting in [
            &["--prompts", named][..],
            &["--config", named],
            &["--certificate", named, "--quality", "bounded", "--quality-floor", "0.9"],
            &["--importance-text", named],
            &["--drafter", &plan],
        ] {
            let own = ["--no-journal", "--max-new-tokens", "2"];
            let prompt = if setting[0] == "--prompts" { &[][..] } else { &["--prompt", "a"] };
            let run = generate(&[&own[..], prompt, setting].concat());
            if (setting[0], *kind) == ("--config", "empty device") {
                // How people say that there is no file of settings.
                assert_eq!(run.code, Some(0), "{run:?}");
            } else if (setting[0], *kind) == ("--importance-text", "file of the system") {
                // It is text like any other.
                assert_eq!(run.code, Some(0), "{run:?}");
            } else if (setting[0], *kind) == ("--prompts", "file of the system") {
                // It is text, with an error for each line.
                assert_eq!(run.code, Some(1), "{run:?}");
            } else {
                assert!(matches!(run.code, Some(1 | 2)), "{setting:?} as {kind}: {run:?}");
                run.says(&[]);
            }
            assert!(look(&path) == before, "{setting:?} as {kind}");
        }
        // A link to nothing is where a journal may be begun; so is what leads to the system's devices.
        let journal = generate(&["--prompt", "a", "--max-new-tokens", "2", "--journal", named]);
        assert_eq!(journal.code, Some(0), "{kind}: {journal:?}");
        assert!(look(&path) == before, "journal as {kind}");
        let _ = fs::remove_file(dir.path().join("nowhere"));
    }
}

/// The same for what is written, with the model that ships: it has a router, which learns.
#[test]
fn what_is_learned_goes_into_files_of_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let learn = |path: &Path| {
        let mut command =
            quiet_command(&["generate", "--no-journal", "--prompt", "Sort: b a", "--max-new-tokens", "4"]);
        command.args(["--threads", "1", "--online-state"]).arg(path);
        Run::of(command, b"")
    };
    for (number, kind) in KINDS.iter().enumerate().filter(|(_, kind)| **kind != "link to nothing") {
        let path = dir.path().join(number.to_string());
        if !put(&path, kind) {
            continue;
        }
        let before = look(&path);
        let run = learn(&path);
        assert_eq!(run.code, Some(0), "{kind}: {run:?}");
        run.says(&["--online-state"]);
        assert!(look(&path) == before, "{kind}");
    }
    // Somebody else's file.
    let prompts = dir.path().join("prompts.jsonl");
    fs::write(&prompts, "{\"prompt\": \"mine\"}\n").unwrap();
    learn(&prompts).says(&["is not a learned state and was left alone"]);
    assert_eq!(fs::read_to_string(&prompts).unwrap(), "{\"prompt\": \"mine\"}\n");
    // A link to a state that is not there yet stays one, and both names are one state.
    let (state, link) = (dir.path().join("state.json"), dir.path().join("link.json"));
    symlink("state.json", &link).unwrap();
    for path in [&link, &state, &link] {
        learn(path).succeeds();
    }
    let learned: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    assert_eq!(learned["answers"], 3);
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert!(!fs::symlink_metadata(&state).unwrap().file_type().is_fifo());
}
