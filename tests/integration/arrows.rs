//! Arrows between modules run one way: every module imports only those that stand before it in these lists.

use std::path::Path;

use super::tidy::sources;

/// `src`, from plain data to commands. The command itself (`src/cli`) sees the library from outside.
const LIBRARY: &[&str] = &[
    "visible",
    "checksum",
    "files",
    "checkpoint",
    "text",
    "local",
    "sampling",
    "model",
    "meters",
    "drafters",
    "speculation",
    "routing",
    "config",
    "info",
    "report",
    "answer",
    "lossy",
    "certificate",
    "journal",
    "engine",
    "bench",
    "command",
];
/// `eval/src`.
const EVALUATION: &[&str] = &["statistics", "prompts", "rows", "suite", "run", "report", "certify", "cli"];

/// `training/src`, from the settings of a recipe to steps and commands.
const TRAINING: &[&str] = &[
    "checksum",
    "curve",
    "device",
    "initial",
    "progress",
    "tasks",
    "settings",
    "task_sets",
    "optimizer",
    "recipe",
    "sources",
    "tokenizer",
    "export",
    "growth",
    "job",
    "objective",
    "tokens",
    "answers",
    "generate",
    "likelihood",
    "packing",
    "speed",
    "score",
    "state",
    "tokenize",
    "vocabulary",
    "baseline",
    "exits",
    "frequent",
    "traces",
    "trainer",
    "distill",
    "pretrain",
    "router",
    "family",
    "cli",
];

/// The modules that a line of code imports from its own crate: `crate::a::B`, `crate::{a::B, c}`. A name of the crate's root
/// (`crate::Engine`) counts as a module that nobody knows.
fn imported(line: &str) -> Vec<&str> {
    let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = Vec::new();
    for (start, _) in line.match_indices("crate::") {
        let is_own = !line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &line[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            _ if !is_own => {}
            None => found.push(&rest[..name(rest)]),
            Some(list) => {
                let (mut depth, mut begins) = (0, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        ' ' => {}
                        _ if begins => {
                            found.push(&list[at..at + name(&list[at..])]);
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

/// The code of a file on lines, a `use` of several lines on one; without comments and the tests at its end.
fn code(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\n#[allow").next().unwrap_or_default();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let joined = lines.collect::<Vec<_>>().join("\n");
    joined.split_inclusive(';').map(|statement| statement.replace('\n', " ").replace("    ", " ")).collect()
}

fn is_one_way(folder: &str, order: &[&str]) {
    let place = |module: &str| order.iter().position(|known| *known == module);
    for (path, text) in sources() {
        let Ok(inner) = path.strip_prefix(folder) else { continue };
        let is_test =
            inner.components().any(|part| Path::new(part.as_os_str()).file_stem().is_some_and(|stem| stem == "tests"));
        let module =
            inner.iter().next().map(|first| Path::new(first).file_stem().unwrap().to_string_lossy().into_owned());
        let module = module.unwrap_or_default();
        if is_test || ["lib", "main"].contains(&module.as_str()) || folder == "src" && module == "cli" {
            continue;
        }
        let own = place(&module)
            .unwrap_or_else(|| panic!("{folder} has no place for the module {module}: add it to its list"));
        for statement in code(&text) {
            for name in imported(&statement).into_iter().filter(|name| **name != *module) {
                let below = place(name).is_some_and(|other| other < own);
                assert!(below, "{} imports {name}, which does not stand below {module}: {statement}", path.display());
            }
        }
    }
}

#[test]
fn modules_import_only_what_stands_below_them() {
    is_one_way("src", LIBRARY);
    is_one_way("eval/src", EVALUATION);
    is_one_way("training/src", TRAINING);
}

#[test]
fn imports_are_found() {
    for (line, names) in [
        ("use crate::files;", &["files"][..]),
        ("use crate::{config::Quality, engine::{self, Engine}, Error};", &["config", "engine", "Error"]),
        ("fn a(b: &crate::text::Message) -> crate::Answer {", &["text", "Answer"]),
        ("pub(crate) fn a() { other_crate::b(); }", &[]),
    ] {
        assert_eq!(imported(line), names, "{line}");
    }
}
