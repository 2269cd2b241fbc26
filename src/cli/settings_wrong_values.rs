//! Values of every wrong kind for every setting of a config file, and what is said of them.

use std::path::PathBuf;

use paceline::command::wording::rust_word;

use super::*;

/// Values of every kind, as TOML has them.
const VALUES: [&str; 20] = [
    "\"x\"",
    "\"\"",
    "5",
    "-1",
    "1.5",
    "-0.5",
    "nan",
    "inf",
    "1e300",
    "99999999999",
    "9223372036854775807",
    "true",
    "2026-01-01",
    "12:00:00",
    "[1]",
    "[\"x\"]",
    "[[1]]",
    "{ a = 1 }",
    "{ a = { b = 2026-01-01 } }",
    "[2026-01-01]",
];

fn resolved(text: &str) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.toml");
    std::fs::write(&path, text).unwrap();
    let mut flags = GenerateFlags::default();
    flags.config = Some(path);
    resolve(&flags).map_err(|failure| failure.error.to_string())
}

#[test]
fn no_wrong_value_is_told_in_words_of_rust() {
    let mut refused = 0;
    for key in known_settings().ok().unwrap().keys() {
        for value in VALUES {
            let Err(message) = resolved(&format!("{key} = {value}\n")) else { continue };
            refused += 1;
            assert!(message.contains(key.as_str()) || message.contains("quality"), "{key} = {value}: {message}");
            assert!(
                message.ends_with('.') && !message.contains('\n') && !message.contains(".."),
                "{key} = {value}: {message}"
            );
            assert_eq!(rust_word(&message), None, "{key} = {value}: {message}");
        }
    }
    assert!(refused > 400, "{refused}");
}

#[test]
fn a_file_takes_what_a_flag_takes() {
    let settings =
        resolved("hints = \"turn=3\"\nweights = \"time=1,energy=0.5\"\nstop = \"x\"\ndraft = \"d\"\n").unwrap();
    assert_eq!(settings.generation.hints.turn, Some(3.0));
    assert_eq!(settings.generation.weights.map(|weights| (weights.time, weights.energy)), Some((1.0, 0.5)));
    assert_eq!((settings.generation.stop, settings.engine.draft), (vec!["x".to_owned()], vec![PathBuf::from("d")]));
    let settings = resolved("stop = [\"x\", \"y\"]\n[hints]\nturn = 3\n[weights]\ntime = 2\n").unwrap();
    assert_eq!((settings.generation.hints.turn, settings.generation.stop.len()), (Some(3.0), 2));
    for (text, said) in [
        ("hints = 5", "write a text like \"turn=3\", or a table like { turn = 3 }"),
        ("hints = \"x=1\"", "`x` is not a hint"),
        ("hints = { turn = \"x\" }", "write a number, like 0.7"),
        ("hints = { x = 1 }", "there is no `x`; there are turn, past-acceptance"),
        ("weights = true", "write a text like \"time=1,energy=0.5\""),
        ("seed = 2026-01-01", "`seed` is a date"),
        ("stop = 5", "write a list in brackets"),
        ("draft-len = true", "write \"auto\" or a whole number from 1 to 16"),
        ("temperature = inf", "not a finite number"),
    ] {
        let Err(message) = resolved(text) else { panic!("{text} is accepted") };
        assert!(message.contains(said), "{text}: {message}");
    }
}
