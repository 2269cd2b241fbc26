//! What the dependencies are allowed to be, by Cargo.lock and the crates' own manifests: the offline part of what `cargo deny`
//! checks, so that it is checked with every run of the tests. `deny.toml` is the one place that says what is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn toml_of(name: &str) -> toml::Table {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap().parse().unwrap()
}

fn text(value: &toml::Value, key: &str) -> String {
    value.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

/// What cargo knows of all crates for this system; `None` where it would have to fetch some and cannot.
fn metadata() -> Option<Value> {
    let version = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let ask = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(ROOT).args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host]);
        command.args(more).output().ok().filter(|output| output.status.success())
    };
    let output = ask(&["--offline"]).or_else(|| ask(&[]))?;
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Whether a licence expression can be met with allowed licences alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let words = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = words.split_whitespace().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words, allowed);
        return words.next() == Some(")") && met;
    }
    let mut name = words.next().unwrap_or_default().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&name)
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, is_met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("", false),
        ("MIT ISC", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), is_met, "{expression}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in toml_of("Cargo.lock")["package"].as_array().unwrap() {
        let (name, source) = (text(package, "name"), text(package, "source"));
        let is_own = name.starts_with("paceline");
        assert_eq!(source.is_empty(), is_own, "{name} comes from {source:?}");
        let is_fetched_by_checksum = source.starts_with("registry+") && !text(package, "checksum").is_empty();
        assert!(is_own || is_fetched_by_checksum, "{name} comes from {source}");
    }
    for refused in toml_of("deny.toml")["bans"]["deny"].as_array().unwrap() {
        let name = text(refused, "name");
        let lock = toml_of("Cargo.lock");
        let there = lock["package"].as_array().unwrap().iter().any(|package| text(package, "name") == name);
        assert!(!there, "{name} came in: {}", text(refused, "reason"));
    }
}

#[test]
fn every_licence_is_allowed() {
    let Some(metadata) = metadata() else {
        println!("skipped: some crates are not here and cannot be fetched");
        return;
    };
    let licences = &toml_of("deny.toml")["licenses"];
    let allowed = licences["allow"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let clarified: BTreeMap<String, String> = licences["clarify"]
        .as_array()
        .unwrap()
        .iter()
        .map(|clarified| (text(clarified, "crate"), text(clarified, "expression")))
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let said = package["license"].as_str().or(clarified.get(name).map(String::as_str)).unwrap_or("none");
        assert!(is_allowed(said, &allowed), "{name} has the licence {said}, which deny.toml does not allow");
    }
}

/// Crates that the programs have in two versions, because others ask for them: none is a direct dependency of ours.
const TWICE: [(&str, &str); 13] = [
    ("base64", "tokenizers; ureq"),
    ("darling", "macros of tokenizers, of nvml-wrapper and of burn's enumset"),
    ("darling_core", "as darling"),
    ("darling_macro", "as darling"),
    ("getrandom", "ahash in burn and tokenizers; rand"),
    ("hashbrown", "burn; indexmap"),
    ("nom", "spm_precompiled in tokenizers; tynm in burn"),
    ("rand", "tokenizers; burn and ours"),
    ("rand_chacha", "as rand"),
    ("rand_core", "as rand"),
    ("syn", "macros, at build time"),
    ("thiserror", "nvml-wrapper; everything else"),
    ("thiserror-impl", "as thiserror"),
];

#[test]
fn no_further_crate_comes_in_two_versions() {
    let output = Command::new(env!("CARGO"))
        .current_dir(ROOT)
        .args(["tree", "--workspace", "--edges", "normal", "--prefix", "none", "--locked", "--offline"])
        .output()
        .unwrap();
    if !output.status.success() {
        println!("skipped: some crates are not here");
        return;
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let tree = String::from_utf8(output.stdout).unwrap();
    for line in tree.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    assert!(versions.len() > 100, "{}", versions.len());
    let known: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = versions.iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| *name).collect();
    assert_eq!(found, known, "a crate comes in two versions that did not, or no longer does: see `cargo tree -d`");
}

/// The packages that cargo would build with these arguments, each with its features; `None` where it would have to fetch some.
fn built(arguments: &[&str]) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(ROOT).args(["tree", "--locked", "--offline", "--prefix", "none", "-f", "{p}|{f}"]);
    let output = command.args(arguments).output().ok().filter(|output| output.status.success())?;
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Some((package, features)) = line.trim_end_matches(" (*)").split_once('|') else { continue };
        packages.entry(package.to_owned()).or_default().insert(features.to_owned());
    }
    Some(packages)
}

/// README's two commands build burn, and all else that both need, once: no package has other features in one than in the other.
#[test]
fn both_commands_of_the_readme_share_their_builds() {
    let run = built(&["-p", "paceline", "-e", "normal,build"]);
    let Some((run, test)) = run.zip(built(&["--workspace", "-e", "normal,build,dev"])) else {
        eprintln!("skipped: cargo would have to fetch packages");
        return;
    };
    assert!(run.len() > 100 && run.keys().any(|package| package.starts_with("burn v")), "{}", run.len());
    for (package, features) in &run {
        assert_eq!(
            test.get(package),
            Some(features),
            "{package} is built twice: ask for the same features in Cargo.toml"
        );
    }
}

/// Who uses the library alone builds nothing of the command line.
#[test]
fn the_library_alone_has_no_command_line() {
    let Some(alone) = built(&["-p", "paceline", "-e", "normal", "--no-default-features"]) else {
        eprintln!("skipped: cargo would have to fetch packages");
        return;
    };
    for package in ["clap v", "anyhow v", "signal-hook v", "unicode-width v"] {
        assert!(!alone.keys().any(|known| known.starts_with(package)), "{package}");
    }
}
