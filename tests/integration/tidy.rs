//! House rules that a machine can check.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository's text files, without what is generated or fetched.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![root().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["target", ".git"].contains(&name.as_str()) {
                folders.push(path);
            } else if ["rs", "md", "toml", "py"].iter().any(|kind| name.ends_with(&format!(".{kind}"))) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

pub(crate) fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let files = files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    files.map(|path| (path.strip_prefix(root()).unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
}

#[test]
fn every_module_opens_with_its_purpose() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: one idea each", path.display());
    }
}

/// Kernels know nothing of models; models nothing of drafting; the router neither; only kernels are unsafe.
#[test]
fn layers_know_only_what_is_below_them() {
    let forbidden = |path: &Path| -> &[&str] {
        let path = path.to_string_lossy();
        match () {
            () if path.starts_with("kernels/src") => &["burn", "paceline::"],
            () if path.starts_with("router/src") => &["paceline::", "paceline_kernels"],
            () if path.starts_with("src/model") => {
                &["crate::drafters", "crate::speculation", "crate::sampling", "crate::engine"]
            }
            () if path.starts_with("src/sampling") => {
                &["crate::model", "crate::drafters", "crate::speculation", "crate::engine", "burn::"]
            }
            () if path.starts_with("src/checkpoint") || path.starts_with("src/text") => {
                &["crate::model", "crate::drafters", "crate::speculation", "crate::engine", "burn::"]
            }
            () if path.starts_with("src/meters") => {
                &["crate::drafters", "crate::speculation", "crate::sampling", "crate::engine", "burn::"]
            }
            () if path.starts_with("src/drafters") => &["crate::engine", "crate::speculation"],
            () if path.starts_with("src/speculation") => &["crate::engine", "crate::config"],
            () => &[],
        }
    };
    for (path, text) in sources() {
        for word in forbidden(&path) {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.into_iter().any(|line| line.contains(word)), "{} knows {word}", path.display());
        }
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

/// A drafter's name is taken apart in one place, so that a new kind of drafter is added in one place.
#[test]
fn names_of_drafters_are_read_in_one_place() {
    let ways = ["starts_with", "strip_prefix", "split_once", "replacen", "trim_start_matches"];
    let kinds = ["exit:", "model:", "self:", "skip:"];
    let is_read = |path: &Path| path.starts_with("tests") || path.ends_with("src/drafters/choice.rs");
    for (path, text) in sources().filter(|(path, _)| !is_read(path)) {
        for (way, kind) in ways.iter().flat_map(|way| kinds.iter().map(move |kind| (way, kind))) {
            let taken_apart = format!("{way}(\"{kind}");
            assert!(!text.contains(&taken_apart), "{} reads names of drafters: {taken_apart}", path.display());
        }
    }
}

/// What is printed elsewhere is no failure where nobody takes it, and gives orders to a terminal.
#[test]
fn all_that_programs_print_goes_through_one_module() {
    let ways = ["print!(", "println!(", "io::stdout()", "stderr().lock()", "stderr().write"];
    let may = ["src/command/output.rs", "src/command/progress.rs", "src/cli/terminal.rs"];
    for (path, text) in sources() {
        let shown = path.to_string_lossy();
        let is_program = shown.starts_with("src/") || shown.contains("/src/");
        if !is_program || shown.contains("tests") || shown.starts_with("kernels/") || may.contains(&&*shown) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(!ways.iter().any(|way| line.contains(way)), "{shown} prints by itself: {line}");
        }
    }
}

/// docs/promises.md names the tests that hold each promise, ARCHITECTURE.md those of its invariants: `file.rs::test`.
#[test]
fn invariants_name_tests_that_exist() {
    for (page, least) in [("docs/promises.md", 90), ("ARCHITECTURE.md", 4)] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let names: Vec<(&str, &str)> =
            text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::")).collect();
        assert!(names.len() >= least, "{page} names {} tests", names.len());
        for (file, test) in names {
            let source = std::fs::read_to_string(root().join(format!("{file}.rs")))
                .unwrap_or_else(|_| panic!("{page} names {file}.rs, which is not there"));
            assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
        }
    }
}
