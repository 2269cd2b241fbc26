//! A mapped file that is cut short while it is read ends a program with a sentence, and nothing else does.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use paceline_kernels::{MappedFile, before_exit, explain_bus_errors};

/// Says to the tests that are started by others which file is theirs.
const FILE: &str = "PACELINE_TEST_BUS_ERROR";

/// Starts an ignored test of this program in a process of its own, with a file of some pages.
fn run(test: &str) -> (Output, PathBuf) {
    let path = std::env::temp_dir().join(format!("paceline-kernels-{}-\u{7}{test}", std::process::id()));
    fs::write(&path, vec![7; 1 << 16]).expect("the temporary folder can be written");
    let program = std::env::current_exe().expect("this program has a place");
    let mut child = Command::new(program);
    let child = child.args(["--exact", test, "--ignored", "--nocapture"]).env(FILE, &path);
    let output = child.output().expect("this program can be started");
    fs::remove_file(&path).expect("it was made");
    (output, path)
}

/// Puts back what a program would leave behind.
fn put_back() {
    let _ = std::io::stderr().write_all(b"put back\n");
}

/// The last byte of a file that is cut before it is read.
fn cut_and_read(bytes: &[u8], path: &Path) -> u8 {
    File::options().write(true).open(path).and_then(|file| file.set_len(10)).expect("it can be cut");
    std::hint::black_box(bytes)[(1 << 16) - 1]
}

fn open() -> Option<(File, PathBuf)> {
    let path = PathBuf::from(std::env::var_os(FILE)?);
    Some((File::open(&path).expect("it was made"), path))
}

#[test]
fn a_file_that_is_cut_short_is_named() {
    let (output, path) = run("reads_what_was_cut");
    let said = String::from_utf8_lossy(&output.stderr);
    let name = path.to_str().expect("it is text").replace('\u{7}', "\\u{7}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("put back\ntest: The file {name} can no longer be read")), "{said}");
}

#[test]
fn other_bus_errors_are_left_to_who_handled_them_before() {
    let (output, _) = run("reads_another_mapping");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{said}");
    assert!(!said.contains("can no longer be read"), "{said}");
}

#[test]
#[ignore = "started by another test"]
fn reads_what_was_cut() {
    let Some((file, path)) = open() else { return };
    explain_bus_errors("test");
    // Called by two parts of a program, it is the same.
    explain_bus_errors("other");
    before_exit(Some(put_back));
    let file = MappedFile::new(file, &path).expect("it can be mapped");
    // From another thread than the one that called.
    let read = std::thread::scope(|scope| scope.spawn(|| cut_and_read(&file, &path)).join());
    panic!("{read:?} was read from where nothing is");
}

#[test]
#[ignore = "started by another test"]
fn reads_another_mapping() {
    let Some((file, path)) = open() else { return };
    explain_bus_errors("test");
    // One that is gone is not explained either.
    drop(MappedFile::new(File::open(&path).expect("it was made"), &path));
    // SAFETY: it is read-only, and that it is cut is what this process is for.
    let map = unsafe { memmap2::Mmap::map(&file) }.expect("it can be mapped");
    panic!("{} was read from where nothing is", cut_and_read(&map, &path));
}
