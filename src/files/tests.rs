//! Tests of the rules for files.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::*;

/// Names of the files in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_file_is_as_before_until_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_file(&path, b"first").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"half").unwrap();
    file.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    drop(file);
    assert_eq!(names(path.parent().unwrap()), ["file"]);
    write_file(&path, b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(path.parent().unwrap()), ["file"]);
}

#[test]
fn a_folder_is_as_before_until_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let fill = |text: &str| {
        let folder = AtomicFolder::create(&path).unwrap();
        fs::create_dir(folder.part().join("inner")).unwrap();
        fs::write(folder.part().join(text), text).unwrap();
        folder
    };
    fill("one").commit().unwrap();
    drop(fill("two"));
    assert_eq!((names(&path), names(dir.path())), (vec!["inner".into(), "one".into()], vec!["model".into()]));
    fill("three").commit().unwrap();
    assert_eq!((names(&path), names(dir.path())), (vec!["inner".into(), "three".into()], vec!["model".into()]));
}

#[test]
fn what_a_sudden_end_leaves_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    // Ended between the two moves of a commit.
    fs::create_dir(dir.path().join("model.4000000-1.old")).unwrap();
    fs::create_dir(dir.path().join("model.4000000-0.part")).unwrap();
    fs::write(dir.path().join("model.4000000-1.old/weights"), "").unwrap();
    fs::write(dir.path().join("model.4000000-0.part/rest"), "").unwrap();
    AtomicFolder::recover(&path).unwrap();
    assert_eq!(names(&path), ["weights"]);
    let folder = AtomicFolder::create(&path).unwrap();
    assert!(names(folder.part()).is_empty());
    folder.commit().unwrap();
    assert!(names(&path).is_empty());
    // Ended after the second move. What somebody keeps beside it is not ours.
    fs::create_dir(dir.path().join("model.4000000-1.old")).unwrap();
    fs::create_dir(dir.path().join("model.old")).unwrap();
    AtomicFolder::create(&path).unwrap().commit().unwrap();
    assert_eq!(names(dir.path()), ["model", "model.old"]);
    fs::remove_dir(&path).unwrap();
    AtomicFolder::recover(&path).unwrap();
    assert_eq!(names(dir.path()), ["model.old"]);
}

/// Systems that cannot exchange two folders move the former one out of the way.
#[test]
fn a_folder_is_replaced_in_two_steps_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("former"), "").unwrap();
    let folder = AtomicFolder::create(&path).unwrap();
    fs::write(folder.part().join("new"), "").unwrap();
    folder.replace().unwrap();
    drop(folder);
    assert_eq!((names(&path), names(dir.path())), (vec!["new".to_owned()], vec!["model".to_owned()]));
}

#[test]
fn a_place_that_cannot_be_written_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (path, said) in [
        (dir.path().to_owned(), "a folder of that name is in the way"),
        (dir.path().join("file/in/it"), "name a place that you may write"),
        (dir.path().join("no/file"), "make the folder first"),
    ] {
        let message = AtomicFile::create(&path).unwrap_err().to_string();
        assert!(message.contains(said) && message.contains("stays as it was"), "{message}");
    }
    assert!(AtomicFolder::create(&dir.path().join("file/in/it")).is_err());
    let full = WriteError { path: "x".into(), source: io::Error::from(io::ErrorKind::StorageFull) };
    assert!(full.to_string().contains("free some space"), "{full}");
}

/// Makes everything that is no plain file in a folder, as far as this system lets: names, and what is said of them.
#[cfg(unix)]
fn special(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    let path = |name: &str| folder.join(name);
    let mut all = vec![(path("folder"), "a directory"), (path("socket"), "a socket"), (path("zero"), "a device")];
    fs::create_dir(path("folder")).unwrap();
    UnixListener::bind(path("socket")).unwrap();
    symlink("/dev/zero", path("zero")).unwrap();
    if std::process::Command::new("mkfifo").arg(path("pipe")).status().is_ok_and(|status| status.success()) {
        all.push((path("pipe"), "a pipe"));
    } else {
        println!("There is no mkfifo here, so a pipe was not tried.");
    }
    all
}

#[cfg(unix)]
#[test]
fn only_plain_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for (path, kind) in special(dir.path()) {
        // Nobody writes into the pipe: whoever opened it as a file would wait for ever.
        let said = format!("it is {kind}, not a plain file");
        assert_eq!(read(&path, 9).unwrap_err().to_string(), said);
        assert_eq!(map(&path).unwrap_err().to_string(), said);
        assert_eq!(open_to_append(&path).unwrap_err().to_string(), said);
        assert_eq!(open_to_change(&path).unwrap_err().to_string(), said);
        let input = read_input(&path, 9).unwrap_err().to_string();
        assert_eq!(input, if kind == "a pipe" { "it is a pipe that nobody writes to" } else { &said });
    }
    assert!(matches!(read(&dir.path().join("no"), 9), Err(ReadError::Absent)));
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    assert!(matches!(read(&dir.path().join("dangling"), 9), Err(ReadError::Absent)));
}

#[test]
fn no_more_is_read_than_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "ä\nbc").unwrap();
    assert_eq!(read(&path, 5).unwrap(), "ä\nbc".as_bytes());
    assert_eq!(read_text(&path, 5).unwrap(), "ä\nbc");
    assert!(matches!(read(&path, 4), Err(ReadError::TooLarge { most: 4 })));
    fs::write(&path, b"a\nb\xff").unwrap();
    assert!(matches!(read_text(&path, 9), Err(ReadError::NotText { line: 2, column: 2 })));
    if cfg!(target_os = "linux") {
        // It has a size of 0, and more in it.
        assert!(!read("/proc/self/status".as_ref(), 1 << 20).unwrap().is_empty());
        assert!(matches!(read("/proc/self/status".as_ref(), 9), Err(ReadError::TooLarge { .. })));
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_that_a_person_names_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        println!("There is no mkfifo here, so a pipe was not tried.");
        return;
    }
    let written = vec![7; 300_000];
    for (most, whole) in [(300_000, true), (299_999, false)] {
        let (to, bytes) = (pipe.clone(), written.clone());
        // Who reads no further has the writer fail.
        let writer = std::thread::spawn(move || drop(fs::write(to, bytes)));
        match read_input(&pipe, most) {
            Ok(read) => assert!(whole && read == written),
            Err(error) => assert!(!whole && matches!(error, ReadError::TooLarge { .. }), "{error}"),
        }
        writer.join().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_not_replaced() {
    use std::os::unix::fs::FileTypeExt;

    let dir = tempfile::tempdir().unwrap();
    for (path, kind) in special(dir.path()) {
        let before = fs::symlink_metadata(&path).unwrap();
        let message = write_file(&path, b"new").unwrap_err().to_string();
        assert!(message.contains(&format!("it is {kind}, not a plain file")), "{message}");
        let folder = AtomicFolder::create(&path).map(drop);
        assert_eq!(folder.is_err(), kind != "a directory");
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.file_type(), before.modified().unwrap()), (after.file_type(), after.modified().unwrap()));
    }
    // One that comes while the new file is being written.
    let path = dir.path().join("file");
    let file = AtomicFile::create(&path).unwrap();
    std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(file.commit().unwrap_err().to_string().contains("it is a socket"));
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("inner")).unwrap();
    symlink("second", path("first")).unwrap();
    symlink(path("inner/file"), path("second")).unwrap();
    symlink("round", path("about")).unwrap();
    symlink("about", path("round")).unwrap();
    for text in ["new", "newer"] {
        // At first it leads to nothing.
        write_file(&path("first"), text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(path("inner/file")).unwrap(), text);
        for link in ["first", "second"] {
            assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink(), "{link}");
        }
        // Whoever may not read the former state may not read the new one.
        let mode = |mode| fs::Permissions::from_mode(mode);
        if text == "new" {
            fs::set_permissions(path("inner/file"), mode(0o600)).unwrap();
        }
        assert!(text == "new" || fs::metadata(path("inner/file")).unwrap().permissions().mode() & 0o777 == 0o600);
    }
    assert!(write_file(&path("round"), b"x").unwrap_err().to_string().contains("in a circle"));
    assert_eq!(lock_file_of(&path("first")), path("inner/file.lock"));
    assert_eq!(names(&path("inner")), ["file"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_is_not_replaced_nor_what_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("somebodys")).unwrap();
    fs::write(path("somebodys/thesis"), "years").unwrap();
    std::os::unix::fs::symlink("somebodys", path("model")).unwrap();
    let message = AtomicFolder::create(&path("model")).unwrap_err().to_string();
    assert!(message.contains("a symbolic link of that name is in the way"), "{message}");
    // One that comes while the folder is being filled.
    let folder = AtomicFolder::create(&path("other")).unwrap();
    std::os::unix::fs::symlink("somebodys", path("other")).unwrap();
    assert!(folder.commit().is_err());
    assert_eq!(names(dir.path()), ["model", "other", "somebodys"]);
    assert_eq!(fs::read_to_string(path("other/thesis")).unwrap(), "years");
}

/// Whoever may not read the former state may not read the new one, and its owner still owns it.
#[cfg(unix)]
#[test]
fn what_is_replaced_keeps_its_owner_and_permissions() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    fs::write(&file, "former").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o710)).unwrap();
    // Only the administrator may give them away.
    let is_given = [&file, &folder].map(|path| chown(path, Some(65534), Some(65534)).is_ok());
    let seen = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let before = [seen(&file), seen(&folder)];
    write_file(&file, b"new").unwrap();
    AtomicFolder::create(&folder).unwrap().commit().unwrap();
    assert_eq!([seen(&file), seen(&folder)], before, "{is_given:?}");
}

#[test]
fn a_folder_is_filled_that_is_ours_or_has_none_of_the_names() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("deep/new");
    own_folder(&made, Fills::All).unwrap();
    fs::write(made.join("report.html"), "").unwrap();
    own_folder(&made, Fills::All).unwrap();
    own_folder(&made, Fills::Names(&["report.html"])).unwrap();

    let somebodys = dir.path().join("somebodys");
    fs::create_dir(&somebodys).unwrap();
    fs::write(somebodys.join("report.html"), "").unwrap();
    fs::write(somebodys.join(".hidden"), "").unwrap();
    for fills in [Fills::All, Fills::Names(&["rows.csv", "report.html"])] {
        let message = own_folder(&somebodys, fills).unwrap_err().to_string();
        assert!(message.contains("somebodys holds report.html") && message.contains("--out"), "{message}");
    }
    assert_eq!(names(&somebodys), [".hidden", "report.html"]);
    own_folder(&somebodys, Fills::Names(&["rows.csv"])).unwrap();
    assert!(names(&somebodys).contains(&MARK.to_owned()));
    assert!(own_folder(&somebodys.join("report.html"), Fills::All).unwrap_err().to_string().contains("cannot be used"));
}

#[test]
fn a_folder_that_somebody_keeps_locked_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let (held, other) = (fs::File::open(dir.path()).unwrap(), fs::File::open(dir.path()).unwrap());
    held.lock().unwrap();
    assert!(matches!(lock::wait(other, LockKind::Alone, Duration::ZERO), Err(LockError::Held)));
}

/// A lock needs no permission to write: users who share a folder wait for each other.
#[cfg(unix)]
#[test]
fn a_lock_that_cannot_be_written_is_taken_nevertheless() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let held = lock(&path, LockKind::Alone, Duration::ZERO).unwrap();
    assert!(matches!(lock(&path, LockKind::Alone, Duration::ZERO), Err(LockError::Held)));
    drop(held);
}

#[test]
fn writers_do_not_meddle_with_each_others_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut first = AtomicFile::create(&path).unwrap();
    let mut second = AtomicFile::create(&path).unwrap();
    first.write_all(b"first").unwrap();
    second.write_all(b"second").unwrap();
    assert_eq!(names(dir.path()).len(), 2);
    first.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    second.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");

    // Parts of writers that are gone are removed, and nothing that only looks a little like them.
    let kept = ["file.part", "file.1-.part", "file.1-2.part.txt", "file2.1-2.part", "file.x-2.part"];
    kept.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
    fs::write(dir.path().join("file.4000000-7.part"), "half").unwrap();
    fs::create_dir(dir.path().join("file.4000000-8.part")).unwrap();
    let living = AtomicFile::create(&path).unwrap();
    drop(AtomicFile::create(&path).unwrap());
    assert_eq!(names(dir.path()).len(), 1 + kept.len() + 1);
    living.commit().unwrap();
    let mut expected: Vec<String> = kept.iter().map(|name| (*name).to_owned()).chain(["file".to_owned()]).collect();
    expected.sort();
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn a_lock_is_had_by_one_or_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let take = |kind| lock(&path, kind, std::time::Duration::ZERO);
    let shared = [take(LockKind::Shared).unwrap(), take(LockKind::Shared).unwrap()];
    assert!(matches!(take(LockKind::Alone), Err(LockError::Held)));
    drop(shared);
    let alone = take(LockKind::Alone).unwrap();
    assert!(matches!(take(LockKind::Shared), Err(LockError::Held)));
    drop(alone);
    take(LockKind::Alone).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    let folder = lock(&dir.path().join("folder"), LockKind::Alone, std::time::Duration::ZERO);
    assert!(matches!(folder, Err(LockError::Impossible(_))));
}

/// Says to the writers that are killed where to write, and what.
const KILLED: &str = "PACELINE_TEST_KILLED_WRITER";

/// Replaces a file or a folder again and again, and says each time that it did so.
#[test]
#[ignore = "started by another test"]
fn a_writer_that_is_killed() {
    let Some(what) = std::env::var_os(KILLED) else { return };
    let what = PathBuf::from(what);
    for number in 0_u64.. {
        let text = format!("{number:020}").repeat(5000);
        if what.ends_with("file") {
            write_file(&what, text.as_bytes()).unwrap();
        } else {
            let folder = AtomicFolder::create(&what).unwrap();
            ["one", "two"].iter().for_each(|name| fs::write(folder.part().join(name), &text).unwrap());
            folder.commit().unwrap();
        }
        println!("written {number}");
    }
}

/// Kills a writer at some moment; the last number that it said was written.
#[cfg(unix)]
fn kill(what: &Path, microseconds: u64) -> Option<u64> {
    use std::io::BufRead;

    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::tests::a_writer_that_is_killed", "--ignored", "--nocapture"])
        .env(KILLED, what)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("written ").and_then(|number| number.parse().ok());
    // From its first write on.
    let first: Option<u64> = lines.by_ref().find_map(number);
    std::thread::sleep(std::time::Duration::from_micros(microseconds));
    child.kill().unwrap();
    child.wait().unwrap();
    lines.filter_map(number).last().or(first)
}

/// `PACELINE_TEST_KILLS` kills of each writer; some without it.
#[cfg(unix)]
#[test]
fn a_writer_that_is_killed_leaves_the_former_state_or_the_new_one() {
    let kills = std::env::var("PACELINE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let dir = tempfile::tempdir().unwrap();
    for what in ["file", "folder"].map(|name| dir.path().join(name)) {
        for number in 0..kills {
            let said = kill(&what, number * 7919 % 3000).unwrap();
            AtomicFolder::recover(&what).unwrap();
            let files = if what.is_dir() { vec![what.join("one"), what.join("two")] } else { vec![what.clone()] };
            let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
            let found: u64 = texts[0][..20].parse().unwrap();
            // Whatever was said to be written is there, or the one after it.
            assert!(found == said || found == said + 1, "{found} {said}");
            assert!(texts.iter().all(|text| *text == texts[0][..20].repeat(5000)));
        }
        // What was left is gone with the next one.
        if what.is_dir() {
            drop(AtomicFolder::create(&what).unwrap());
        } else {
            drop(AtomicFile::create(&what).unwrap());
        }
    }
    assert_eq!(names(dir.path()), ["file", "folder"]);
}
