//! What was typed: wrong flags and settings, and the help.

use std::path::Path;

use crate::{Run, file, fixture, generate};

#[test]
fn wrong_usage_is_refused_with_exit_code_2() {
    for (arguments, words) in [
        (&["--foo"][..], &["--foo", "--help"][..]),
        (&["--propmt", "x"], &["'--propmt'", "'--prompt'"]),
        (&["extra"], &["'extra'"]),
        (&["--prompt"], &["--prompt"]),
        (&["--prompt", "x", "--prompt", "y"], &["--prompt", "multiple times"]),
        (&["--prompt", "x", "--prompts", "y"], &["--prompt ", "--prompts"]),
        (&["--max-new-tokens", "0"], &["max-new-tokens", "at least 1"]),
        (&["--max-new-tokens", "ten"], &["max-new-tokens", "whole number"]),
        (&["--seed", "-1"], &["'-1'", "--seed", "whole number"]),
        (&["--seed", "18446744073709551616"], &["--seed", "2^64 - 1"]),
        (&["--top-k", "-1"], &["--top-k", "whole number"]),
        (&["--threads", "-1"], &["--threads", "whole number"]),
        (&["--threads", "99999999999999999999"], &["--threads", "whole number"]),
        (&["--temperature", "hot"], &["--temperature", "finite number"]),
        (&["--temperature", "nan"], &["--temperature", "finite number"]),
        (&["--temperature", "inf"], &["--temperature", "finite number"]),
        (&["--temperature", "-1"], &["temperature", "-1"]),
        (&["--top-p", "2"], &["top-p", "up to 1"]),
        (&["--min-p", "-0.5"], &["min-p", "-0.5"]),
        (&["--repetition-penalty", "0"], &["repetition-penalty", "above 0"]),
        (&["--presence-penalty", "nan"], &["presence-penalty", "finite number"]),
        (&["--stop", ""], &["stop", "empty"]),
        (&["--drafter", "magic"], &["magic", "lookup"]),
        (&["--drafter", "exit:x"], &["exit:x", "exit:4"]),
        (&["--drafter", "self:bf16"], &["self:bf16", "self:int4"]),
        (&["--drafter", "skip:"], &["skip plan is empty", "a3,m3,5"]),
        (&["--drafter", "skip:x3"], &["`x3`", "m3 for its MLP"]),
        (&["--drafter", "skip:a1,1"], &["`a1`", "twice"]),
        (&["--self-draft", "bf16"], &["self-draft", "bf16", "int4"]),
        (&["--drafter", "skip:file:/nowhere"], &["file /nowhere cannot be read"]),
        (&["--skip-plan", "file:/nowhere"], &["--skip-plan", "file /nowhere cannot be read"]),
        (&["--skip-plan", "a1,a1"], &["--skip-plan", "`a1`", "twice"]),
        (&["--skip-plan", ""], &["--skip-plan", "empty"]),
        (&["--draft-len", "0"], &["draft-len", "1 to 16"]),
        (&["--draft-len", "-3"], &["draft-len", "1 to 16"]),
        (&["--draft-len", "17"], &["draft-len", "1 to 16"]),
        (&["--quality", "bounded"], &["quality", "`bounded`", "--quality-floor"]),
        (&["--quality", "best"], &["quality", "best", "exact"]),
        (&["--quality", "bounded", "--quality-floor", "2"], &["quality-floor", "0 to 1"]),
        (&["--quality", "bounded", "--quality-floor", "x"], &["--quality-floor", "finite number"]),
        (&["--quality", "best-effort", "--quality-floor", "0.9"], &["quality-floor", "`bounded`"]),
        (&["--quality", "bounded", "--quality-floor", "0.9", "--temperature", "1"], &["greedy", "`temperature`"]),
        (
            &["--quality", "bounded", "--quality-floor", "0.9", "--skip-layers", "early:1"],
            &["`skip-layers`", "certificate"],
        ),
        (&["--exit-threshold", "0.9"], &["`exit-threshold`", "--quality best-effort"]),
        (&["--quality", "best-effort", "--exit-threshold", "0.2"], &["0.2", "0.5 to 1"]),
        (&["--quality", "best-effort", "--exit-threshold", "nan"], &["--exit-threshold", "finite number"]),
        (&["--quality", "best-effort", "--exit-threshold", "0.9", "--drafter", "none"], &["`none`", "`exit:E`"]),
        (&["--skip-layers", "early:1"], &["`skip-layers`", "--quality best-effort"]),
        (&["--quality", "best-effort", "--skip-layers", "middle:1"], &["`middle:1`", "uniform:N"]),
        (&["--quality", "best-effort", "--skip-layers", "late:0"], &["`late:0`", "from 1 on"]),
        (&["--quality", "best-effort", "--skip-layers", "1,x"], &["`x`", "m3 for its MLP"]),
        (&["--lower-precision", "int4"], &["`lower-precision`", "--quality best-effort"]),
        (&["--quality", "best-effort", "--lower-precision", "bf16"], &["lower-precision", "bf16", "int4"]),
        (
            &["--quality", "best-effort", "--lower-precision", "int4", "--skip-layers", "early:1"],
            &["`skip-layers` and `lower-precision`", "leave one out"],
        ),
        (&["--precision", "int3"], &["precision", "int3", "bf16"]),
        (&["--draft-precision", "f64"], &["draft-precision", "f64", "bf16"]),
        (&["--kv-cache", "int8"], &["kv-cache", "int8", "f16"]),
        (&["--device", "gpu"], &["gpu", "cuda:0"]),
        (&["--energy-source", "guessed"], &["energy-source", "guessed", "estimated"]),
        (&["--energy-source", "estimated"], &["`idle-watts` is not given", "`package-cores`"]),
        (&["--idle-watts", "-1"], &["`idle-watts` is -1", "from 0"]),
        (&["--idle-watts", "9", "--tdp-watts", "8"], &["`idle-watts` is 9", "8 of `tdp-watts`"]),
        (&["--tdp-watts", "many"], &["--tdp-watts", "finite number"]),
        (&["--idle-share", "1.5"], &["`idle-share` is 1.5", "0 to 1"]),
        (&["--package-cores", "0"], &["`package-cores` is 0"]),
        (&["--package-cores", "-2"], &["--package-cores", "whole number"]),
        (&["--device", "cuda:x"], &["cuda:x", "cuda:0"]),
    ] {
        let run = generate(arguments);
        run.fails(2, words);
    }
    if Path::new("/dev/zero").exists() {
        generate(&["--drafter", "skip:file:/dev/zero"]).fails(2, &["/dev/zero", "it is a device"]);
    }
    for (arguments, words) in [
        (&["--period", "24"][..], &["`24`", "--period", "7d"][..]),
        (&["--period", "-1h"], &["`-1h`", "15m"]),
        (&["--period", "0s"], &["`0s`", "from 1 on"]),
        (&["--period", ""], &["--period", "24h"]),
        (&["24h"], &["'24h'"]),
        (&["--model", "x"], &["'--model'"]),
    ] {
        Run::new(&[&["stats"], arguments].concat()).fails(2, words);
    }
    Run::new(&["dance"]).fails(2, &["dance"]);
    Run::new(&["inspect", "a", "b"]).fails(2, &["'b'"]);
}

#[test]
fn settings_that_cannot_be_met_are_refused_with_exit_code_1() {
    let (target, draft, other) = (fixture("llama-tied"), fixture("llama-draft"), fixture("micro"));
    let (_directory, empty) = file("");
    for (arguments, words) in [
        (&["--drafter", "exit:0"][..], &["exit:0", "exit:1 to exit:2"][..]),
        (&["--drafter", "exit:3"], &["exit:3", "3 layers"]),
        (&["--drafter", "skip:a3"], &["`a3`", "3 layers", "0 to 2"]),
        (&["--drafter", "skip:0,1,2"], &["everything", "keep a sublayer"]),
        (&["--skip-plan", "7"], &["`a7`", "3 layers"]),
        (&["--skip-plan", "2,1,0"], &["everything"]),
        (&["--drafter", "self:int8", "--precision", "int8"], &["held as int8", "not be cheaper"]),
        (&["--drafter", "self:int8", "--precision", "int4"], &["held as int4", "not be cheaper"]),
        (&["--self-draft", "int4", "--precision", "int4"], &["held as int4", "another drafter"]),
        (&["--quality", "bounded", "--quality-floor", "0.98"], &["0.98", "paceline-eval certify", "`best-effort`"]),
        (&["--certificate", "/nowhere"], &["certificate /nowhere", "cannot be read"]),
        (&["--certificate", &empty], &["certificate", &empty, "paceline-eval certify"]),
        (&["--quality", "best-effort", "--exit-threshold", "0.9"], &["paceline-train exits"]),
        (&["--quality", "best-effort", "--skip-layers", "early:2"], &["`early:2`", "1 to 1"]),
        (
            &["--quality", "best-effort", "--lower-precision", "int8", "--precision", "int4"],
            &["held as int4", "cheaper"],
        ),
        (&["--importance-text", "/nowhere"], &["importance-text", "/nowhere", "cannot be used"]),
        (&["--importance-text", &target], &["importance-text", "directory"]),
        (&["--importance-text", &empty], &[&empty, "fewer than two tokens"]),
        (&["--drafter", "model"], &["There is no draft model:", "--draft DIR"]),
        (&["--drafter", "model:x"], &["`x`", "--draft DIR"]),
        (&["--drafter", "model:x", "--draft", &draft], &["`x`", "llama-draft"]),
        (&["--draft", &draft, "--draft", &draft], &["Two draft models", "llama-draft", "once"]),
        (&["--draft", &other], &["vocabulary", &target, &other, "choose another draft"]),
        (&["--draft", "/nowhere"], &["/nowhere", "does not exist"]),
        (&["--threads", "100000"], &["100000", "--threads"]),
        (&["--threads", "18446744073709551615"], &["18446744073709551615", "--threads"]),
        #[cfg(not(feature = "cuda"))]
        (&["--device", "cuda:0"], &["cuda:0", "without CUDA"]),
        (&["--prompts", "/nowhere"], &["prompts file /nowhere", "cannot be read"]),
        (&["--prompts", &target], &["prompts file", "directory"]),
        (&["--prompts", "/no\nwhere"], &["/no\\nwhere"]),
        (&["--config", "/nowhere"], &["config file /nowhere", "cannot be read"]),
        (&["--config", &target], &["config file", "directory"]),
    ] {
        let run = generate(&[arguments, if arguments[0] == "--prompts" { &[] } else { &["--prompt", "x"] }].concat());
        run.fails(1, words);
    }
}

#[test]
fn wrong_config_files_are_refused() {
    for (text, code, words) in [
        (&b"seed = "[..], 1, &["line 2", "TOML"][..]),
        (b"seed = 1\nseed = 2", 1, &["line 3", "duplicate"]),
        (b"\xff", 1, &["config file", "UTF-8"]),
        (b"max_new_tokens = 3", 2, &["max_new_tokens", "max-new-tokens"]),
        (b"prompt = 'x'", 2, &["`prompt`"]),
        (b"[generation]\nseed = 1", 2, &["generation"]),
        (b"seed = -1", 2, &["seed", "-1"]),
        (b"seed = 'x'", 2, &["seed", "x"]),
        (b"temperature = nan", 2, &["temperature", "finite"]),
        (b"temperature = 1e39", 2, &["temperature", "finite"]),
        (b"max-new-tokens = 0", 2, &["max-new-tokens", "at least 1"]),
        (b"draft = 5", 2, &["draft", "list in brackets"]),
        (b"draft-len = 99", 2, &["draft-len", "1 to 16"]),
        (b"quality = 'best'", 2, &["quality", "best_effort"]),
        (b"exit-threshold = 0.9", 2, &["exit-threshold", "best_effort"]),
        (b"quality = 'best_effort'\nexit-threshold = nan", 2, &["exit-threshold", "finite"]),
        (b"quality = 'best_effort'\nskip-layers = 'late:9'", 1, &["late:9", "1 to 1"]),
        (b"energy-source = 'estimated'", 2, &["`idle-watts` is not given"]),
        (b"idle-watts = nan", 2, &["idle-watts", "finite"]),
        (b"package-cores = 1.5", 2, &["package-cores", "1.5"]),
        (b"drafter = 'exit:0'", 1, &["exit:0"]),
    ] {
        let (_directory, path) = file([&b"threads = 1\n"[..], text].concat());
        generate(&["--prompt", "x", "--config", &path]).fails(code, words);
    }
}

#[test]
fn a_config_file_without_end_is_refused() {
    let words = ["config file", "more than the 1048576 bytes"];
    let (_directory, path) = file("#".repeat((1 << 20) + 1));
    generate(&["--prompt", "x", "--config", &path]).fails(1, &words);
    if Path::new("/dev/zero").exists() {
        generate(&["--prompt", "x", "--config", "/dev/zero"]).fails(1, &["config file", "it is a device"]);
    }
    let (_directory, path) = file("#".repeat(1 << 20));
    generate(&["--prompt", "x", "--config", &path, "--max-new-tokens", "1"]).succeeds();
}

#[test]
fn a_config_file_is_as_good_as_flags_and_flags_win() {
    let (_directory, path) = file(format!(
        "model = '{}'\nmax-new-tokens = 9\ntemperature = 2\nseed = 5\nstop = ['zzz']\ndraft-len = 3",
        fixture("llama-tied")
    ));
    let from_file = |more: &[&str]| {
        Run::new(&[&["generate", "--config", &path, "--prompt", "Each rider"], more].concat()).succeeds()
    };
    let flags = ["--prompt", "Each rider", "--max-new-tokens", "9", "--temperature", "2"];
    let from_flags = |seed: &str| generate(&[&flags[..], &["--seed", seed]].concat()).succeeds();
    assert_eq!(from_file(&[]), from_flags("5"));
    assert_eq!(from_file(&["--seed", "6"]), from_flags("6"));
    assert_ne!(from_flags("5"), from_flags("6"));
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let arguments = [OsStr::new("generate"), OsStr::new("--prompt"), OsStr::from_bytes(b"\xff")];
    Run::new(&arguments).fails(2, &["UTF-8"]);
}

#[test]
fn help_says_what_there_is_and_how_to_begin() {
    let bare = Run::new::<&str>(&[]);
    assert_eq!((bare.code, bare.out.as_str()), (Some(2), ""));
    let overview = Run::new(&["--help"]).succeeds();
    assert_eq!(bare.err, overview);
    for word in ["generate", "inspect", "stats", "Examples:", "Exit codes:", "config.json"] {
        assert!(overview.contains(word), "{word}: {overview}");
    }
    assert!(Run::new(&["inspect", "--help"]).succeeds().contains("[MODEL]"));
    assert_eq!(Run::new(&["--version"]).succeeds(), format!("paceline {}\n", env!("CARGO_PKG_VERSION")));

    let help = Run::new(&["stats", "--help"]).succeeds();
    for word in ["--period", "--journal", "--json", "Examples:", "24h", "quality"] {
        assert!(help.contains(word), "{word}: {help}");
    }

    let help = Run::new(&["generate", "--help"]).succeeds();
    let (flags, examples) = help.split_once("Examples:").unwrap();
    let promised = "model draft prompt prompts template-args max-new-tokens temperature top-k top-p min-p seed ignore-eos repetition-penalty \
                    presence-penalty stop chat drafter self-draft skip-plan draft-len draft-precision precision kv-cache materialization-root quality quality-floor exit-threshold skip-layers importance-text lower-precision journal no-journal threads device energy-source idle-watts tdp-watts idle-share package-cores config json";
    for flag in promised.split_whitespace() {
        assert!(flags.contains(&format!(" --{flag}")), "--{flag} is missing: {flags}");
    }
    let used: Vec<&str> = examples.split([' ', '`', '\n']).filter(|word| word.starts_with("--")).collect();
    assert!(used.len() > 8 && used.iter().all(|flag| promised.contains(&flag[2..])), "{used:?}");
}
