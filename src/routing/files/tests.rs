//! Tests of the file of what is learned while serving.

use std::process::{Command, Stdio};

use paceline_router::CostTable;

use super::*;
use crate::files::tests::names;

/// A folder with a path for a state in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    (dir, path)
}

/// One answer more.
fn learn(online: &mut Online) {
    online.observe("lookup", 0, 10.0, 0.5, 0.25);
    online.end_answer(CostTable { steps: vec![1.0], ..CostTable::default() });
}

#[test]
fn what_is_not_a_state_of_ours_is_left_alone() {
    let (dir, path) = place();
    for content in ["{\"model_type\": \"llama\"}", "{\"prompt\": \"mine\"}\n", "Dear diary,", "\u{feff}", "[1]"] {
        fs::write(&path, content).unwrap();
        let taken = StateFile::take_up(&path, "a", false);
        assert!(taken.file.is_none() && taken.known.is_none());
        let [said] = &taken.warnings[..] else { panic!("{:?}", taken.warnings) };
        assert!(said.contains("is not a learned state and was left alone. Nothing that is learned"), "{said}");
        assert!(said.ends_with("with `--online-state`."), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(names(dir.path()), ["state.json"]);
    }
    fs::write(&path, vec![b' '; MOST_BYTES as usize + 1]).unwrap();
    assert!(StateFile::take_up(&path, "a", false).warnings[0].contains("left alone"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(StateFile::take_up(&path, "a", false).warnings[0].contains("(it is a directory, not a plain file)"));
    assert_eq!(names(dir.path()), ["state.json"]);
}

#[test]
fn a_new_or_empty_file_is_begun_and_leaves_nothing_until_it_is_written() {
    let (dir, path) = place();
    for is_there in [false, true] {
        let taken = StateFile::take_up(&path, "a", false);
        assert!(taken.warnings.is_empty() && taken.known.is_none(), "{:?}", taken.warnings);
        // The state and its lock.
        assert_eq!(names(dir.path()).len(), if is_there { 2 } else { 0 });
        let mut online = Online::new("a");
        learn(&mut online);
        let saved = taken.file.unwrap().save(&online, PATIENCE).unwrap();
        assert!(!saved.has_changes() && saved.answers() == 1);
        assert_eq!(read_state(&path, "a").unwrap().unwrap(), saved);
        fs::write(&path, "").unwrap();
    }
    let none = StateFile::take_up(&dir.path().join("no/state.json"), "a", false);
    assert!(none.warnings[0].contains("will not be kept") && none.warnings[0].contains("make the folder first"));
}

#[test]
fn a_damaged_state_of_ours_is_moved_aside() {
    let (dir, path) = place();
    let mut online = Online::new("a");
    learn(&mut online);
    let good = online.to_json().unwrap();
    for (content, of) in [(&good[..good.len() / 2], "a"), (&good[..], "b")] {
        fs::write(&path, content).unwrap();
        let frozen = StateFile::take_up(&path, of, true);
        assert!(frozen.file.is_none() && frozen.warnings[0].contains("is left alone"), "{:?}", frozen.warnings);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        let taken = StateFile::take_up(&path, of, false);
        assert!(taken.file.is_some() && taken.warnings[0].contains("moved to"), "{:?}", taken.warnings);
        assert!(!path.exists());
    }
    assert_eq!(names(dir.path()), ["state.json.aside", "state.json.aside-1", "state.json.lock"]);
    assert_eq!(fs::read_to_string(dir.path().join("state.json.aside-1")).unwrap(), good);
}

#[test]
fn what_comes_in_the_way_while_serving_is_left_alone() {
    let (_dir, path) = place();
    let file = StateFile::take_up(&path, "a", false).file.unwrap();
    let mut online = Online::new("a");
    learn(&mut online);
    fs::write(&path, "{\"prompt\": \"mine\"}").unwrap();
    assert!(file.save(&online, PATIENCE).unwrap_err().to_string().contains("left alone"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"prompt\": \"mine\"}");
    // Somebody else is writing, for longer than this waits.
    fs::remove_file(&path).unwrap();
    let held = files::lock(&lock_file_of(&path), LockKind::Alone, PATIENCE).unwrap();
    assert!(matches!(file.save(&online, Duration::ZERO), Err(StateError::Locked { .. })));
    drop(held);
    assert_eq!(file.save(&online, PATIENCE).unwrap().answers(), 1);
}

#[cfg(unix)]
#[test]
fn links_to_one_state_are_one_state_and_stay_links() {
    let (dir, path) = place();
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink("state.json", &link).unwrap();
    let files = [&path, &link].map(|path| StateFile::take_up(path, "a", false).file.unwrap());
    let mut online = [Online::new("a"), Online::new("a")];
    for _ in 0..3 {
        for (file, online) in files.iter().zip(&mut online) {
            learn(online);
            *online = file.save(online, PATIENCE).unwrap();
        }
    }
    assert_eq!(online[1].answers(), 6);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // One that is damaged is moved aside where it lies.
    fs::write(&path, "{\"of\": \"").unwrap();
    assert!(StateFile::take_up(&link, "a", false).warnings[0].contains("state.json.aside"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

/// Says to the programs that are killed where their state is.
const KILLED: &str = "PACELINE_TEST_KILLED_LEARNER";

/// Learns and saves again and again, and says each time that it did so.
#[test]
#[ignore = "started by another test"]
fn a_program_that_is_killed() {
    let Some(path) = std::env::var_os(KILLED) else { return };
    let taken = StateFile::take_up(Path::new(&path), "a", false);
    assert!(taken.warnings.is_empty(), "{:?}", taken.warnings);
    let (file, mut online) = (taken.file.unwrap(), taken.known.unwrap_or_else(|| Online::new("a")));
    for _ in 0..100_000 {
        learn(&mut online);
        // Others have the file for moments only.
        online = file.save(&online, Duration::from_secs(60)).unwrap();
        println!("\nsaved {}", online.answers());
    }
}

/// Two programs at a time learn into one file and are killed, `PACELINE_TEST_KILLS` times or some: nothing that was said to be
/// saved is lost, counted twice or torn.
#[cfg(unix)]
#[test]
fn programs_that_share_a_state_and_are_killed_lose_nothing_that_was_saved() {
    use std::io::BufRead;

    let kills: u64 = std::env::var("PACELINE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let (dir, path) = place();
    let (mut said, mut killed) = (0, 0);
    while killed < kills {
        let start = || {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "routing::files::tests::a_program_that_is_killed", "--ignored", "--nocapture"])
                .env(KILLED, &path)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let begun = lines.by_ref().find(|line| line.starts_with("saved")).is_some();
            assert!(begun);
            (child, lines)
        };
        for (mut child, lines) in [start(), start()] {
            std::thread::sleep(Duration::from_micros(killed * 7919 % 3000));
            child.kill().unwrap();
            child.wait().unwrap();
            said += 1 + lines.filter(|line| line.starts_with("saved")).count() as u64;
            killed += 1;
            // It is whole at any moment, other programs writing or not.
            assert!(read_state(&path, "a").unwrap().is_some());
        }
        // One answer of each may have been saved and not said.
        let answers = read_state(&path, "a").unwrap().unwrap().answers();
        assert!((said..=said + killed).contains(&answers), "{answers} of {said}, {killed} programs");
    }
    drop(StateFile::take_up(&path, "a", false));
    assert_eq!(names(dir.path()), ["state.json", "state.json.lock"]);
}
