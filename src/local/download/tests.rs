//! Downloads from a small server on this machine, which breaks in the ways that hubs and networks do.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::{Folders, LocateError, obtain_from};
use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server behaves.
#[derive(Clone, Default)]
struct Manners {
    /// Bytes of a body after which a connection is dropped.
    drops_after: Option<usize>,
    /// The first requests are answered with 503.
    busy: usize,
    /// Parts are not known: every answer is the whole file.
    ignores_ranges: bool,
    /// Large files come from another address, of this server or of one that is named.
    redirects: bool,
    elsewhere: Option<String>,
    /// A token without which there is nothing.
    token: Option<&'static str>,
    /// The tags are those of other bytes.
    lies: bool,
    /// Bodies are never sent whole.
    never_ends: bool,
}

struct Server {
    hub: Hub,
    requests: Arc<Mutex<Vec<String>>>,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a file, which tell its name.
fn content(file: &str, size: usize) -> Vec<u8> {
    file.bytes().cycle().enumerate().map(|(index, byte)| byte ^ (index / 7) as u8).take(size).collect()
}

fn serve(files: &'static [(&'static str, usize)], manners: Manners) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, count) = (Arc::clone(&requests), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let number = count.fetch_add(1, Ordering::Relaxed);
            answer(&stream, files, &manners, number, &seen);
        }
    });
    Server { hub: Hub { endpoint, token: None, pause: Duration::from_millis(1) }, requests }
}

fn answer(stream: &TcpStream, files: &[(&str, usize)], manners: &Manners, number: usize, seen: &Mutex<Vec<String>>) {
    let lines: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let of = |line: &String| Some(line.to_ascii_lowercase().strip_prefix(name)?.trim().to_owned());
        lines.iter().find_map(of)
    };
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned) else { return };
    let has_token = if header("authorization:").is_some() { " with a token" } else { "" };
    seen.lock().unwrap().push(format!("{path} {}{has_token}", header("range:").unwrap_or_default()));
    let is_head = lines[0].starts_with("HEAD ");
    let say = |head: &str, body: &[u8]| {
        let mut out = stream;
        let _ = out.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes());
        let _ = out.write_all(if is_head { b"" } else { body });
    };
    if number < manners.busy {
        return say("503 Busy\r\ncontent-length: 0", b"");
    }
    let is_elsewhere = path.starts_with("/far/");
    if !is_elsewhere && manners.token.is_some_and(|token| header("authorization:") != Some(format!("bearer {token}"))) {
        return say("401 No\r\ncontent-length: 0", b"");
    }
    if path == "/api/models/org/name/revision/main" {
        let listed: Vec<String> = files.iter().map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
        let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, listed.join(", "));
        return say(&format!("200 OK\r\ncontent-length: {}", body.len()), body.as_bytes());
    }
    let below = |prefix: &str| path.strip_prefix(prefix).map(|file| file.replace("%20", " "));
    let named = below(&format!("/org/name/resolve/{COMMIT}/")).or_else(|| below("/far/"));
    let Some((file, size)) = named.and_then(|named| files.iter().find(|(name, _)| *name == named)) else {
        return say("404 No\r\ncontent-length: 0", b"");
    };
    let bytes = content(file, *size);
    let tag = if manners.lies { sha256(b"other") } else { sha256(&bytes) };
    let is_large = file.ends_with(".gguf") || file.ends_with(".safetensors");
    // Of small files the tag is no checksum of this kind.
    let tag = if is_large { tag } else { tag[..40].to_owned() };
    if manners.redirects && is_large && !path.starts_with("/far/") {
        let head = format!(
            "302 Found\r\nx-linked-etag: \"{tag}\"\r\nx-linked-size: {size}\r\nlocation: {}/far/{file}",
            manners.elsewhere.as_deref().unwrap_or("")
        );
        return say(&format!("{head}\r\ncontent-length: 0"), b"");
    }
    let range = header("range:").filter(|_| !manners.ignores_ranges);
    let (status, part, place) = match range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'))
    {
        Some(first) => {
            let first: usize = first.parse().unwrap();
            if first >= *size {
                return say("416 No\r\ncontent-length: 0", b"");
            }
            let place = format!("content-range: bytes {first}-{}/{size}\r\n", size - 1);
            ("206 Part", &bytes[first..], place)
        }
        None => ("200 OK", &bytes[..], String::new()),
    };
    let sent = manners.drops_after.map_or(part.len(), |most| most.min(part.len()));
    let sent = if manners.never_ends && part.len() > 1 { 0 } else { sent };
    say(&format!("{status}\r\netag: \"{tag}\"\r\n{place}content-length: {}", part.len()), &part[..sent]);
}

const DIRECTORY: [(&str, usize); 7] = [
    ("config.json", 300),
    ("generation_config.json", 0),
    ("sub/c.gguf", 90_000),
    ("tokenizer.json", 9_000),
    ("model.safetensors", 400_000),
    ("README.md", 50),
    ("a b.gguf", 200_000),
];

/// The model that comes from a server, and how often progress went backwards.
fn fetch(server: &Server, root: &Path, name: &str) -> (Result<PathBuf, LocateError>, usize) {
    let folders = Folders { hugging_face: Some(root.join("hub")), ollama: Vec::new() };
    let (mut last, mut backwards) = (0, 0);
    let found = obtain_from(Some(&server.hub), &folders, Path::new(name), &mut |stage| {
        assert!(stage.done <= stage.total && stage.total > 0);
        backwards += usize::from(stage.done < last);
        last = stage.done;
    });
    (found, backwards)
}

fn check(snapshot: &Path, files: &[&str]) {
    for file in files {
        let (_, size) = DIRECTORY.iter().find(|(name, _)| name == file).unwrap();
        assert_eq!(fs::read(snapshot.join(file)).unwrap(), content(file, *size), "{file}");
    }
    let blobs = snapshot.join("../../blobs");
    let left: Vec<_> = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("incomplete")), "{left:?}");
}

const MODEL: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];

#[test]
fn a_model_comes_whole_however_the_server_behaves() {
    for manners in [
        Manners::default(),
        Manners { drops_after: Some(70_000), ..Manners::default() },
        Manners { drops_after: Some(1_000), redirects: true, ..Manners::default() },
        Manners { ignores_ranges: true, ..Manners::default() },
        Manners { busy: 3, redirects: true, ..Manners::default() },
    ] {
        let (server, root) = (serve(&DIRECTORY, manners), tempfile::tempdir().unwrap());
        let (found, backwards) = fetch(&server, root.path(), "org/name");
        let snapshot = found.unwrap();
        assert!(snapshot.ends_with(format!("models--org--name/snapshots/{COMMIT}")));
        check(&snapshot, &MODEL);
        assert!(!snapshot.join("README.md").exists() && backwards == 0, "{backwards}");
        // It is there now: nothing is asked.
        let before = server.requests.lock().unwrap().len();
        assert_eq!(fetch(&server, root.path(), "org/name").0.unwrap(), snapshot);
        assert_eq!(server.requests.lock().unwrap().len(), before);
    }
}

#[test]
fn a_file_is_fetched_by_its_name_beside_what_is_there() {
    let (server, root) = (serve(&DIRECTORY, Manners::default()), tempfile::tempdir().unwrap());
    let folders = Folders { hugging_face: Some(root.path().join("hub")), ollama: Vec::new() };
    let get = |name: &str| obtain_from(Some(&server.hub), &folders, Path::new(name), &mut |_| ());
    let file = get("org/name:sub/c.gguf").unwrap();
    assert_eq!(fs::read(&file).unwrap(), content("sub/c.gguf", 90_000));
    // The snapshot has a GGUF model alone so far; with its configuration it is the model of the name.
    assert_eq!(get("org/name").unwrap().join("sub/c.gguf"), file);
    let absent = get("org/name:b.gguf").unwrap_err().to_string();
    assert!(absent.contains("has no file \"b.gguf\"; it has sub/c.gguf, a b.gguf"), "{absent}");
    let unknown = get("org/other").unwrap_err().to_string();
    assert!(unknown.contains("has no model \"org/other\", or keeps it private") && unknown.ends_with('.'), "{unknown}");
    // Offline, and for names that are none of the hub's.
    let message = |hub, name: &str| obtain_from(hub, &folders, Path::new(name), &mut |_| ()).unwrap_err().to_string();
    assert!(message(None, "org/other").contains("There is no model \"org/other\""));
    assert!(message(Some(&server.hub), "llama3").contains("There is no model \"llama3\""));
    // An older snapshot still has its files.
    fs::write(root.path().join("hub/models--org--name/refs/main"), "other").unwrap();
    fs::create_dir_all(root.path().join("hub/models--org--name/snapshots/other")).unwrap();
    assert_eq!(obtain_from(None, &folders, Path::new("org/name:sub/c.gguf"), &mut |_| ()).unwrap(), file);
}

#[test]
fn what_others_brought_in_part_is_completed() {
    let server = serve(&DIRECTORY, Manners::default());
    for brought in ["config.json", "tokenizer.json"] {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("hub/models--org--name");
        let snapshot = model.join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(model.join("refs")).unwrap();
        fs::write(model.join("refs/main"), COMMIT).unwrap();
        let (_, size) = DIRECTORY.iter().find(|(name, _)| *name == brought).unwrap();
        fs::write(snapshot.join(brought), content(brought, *size)).unwrap();
        std::fs::create_dir_all(model.join("blobs")).unwrap();
        check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
    }
}

#[test]
fn tokens_stay_with_the_hub() {
    let far = serve(&DIRECTORY, Manners::default());
    let manners = Manners {
        token: Some("secret"),
        redirects: true,
        elsewhere: Some(far.hub.endpoint.replace("127.0.0.1", "localhost")),
        ..Manners::default()
    };
    let mut server = serve(&DIRECTORY, manners);
    server.hub.token = Some("secret".to_owned());
    let root = tempfile::tempdir().unwrap();
    check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
    let seen = far.requests.lock().unwrap();
    assert!(!seen.is_empty() && !seen.iter().any(|request| request.contains("token")), "{seen:?}");
}

#[test]
fn what_was_begun_is_resumed() {
    let (server, root) = (serve(&DIRECTORY, Manners::default()), tempfile::tempdir().unwrap());
    let bytes = content("model.safetensors", 400_000);
    let blobs = root.path().join("hub/models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let begun = blobs.join(format!("{}.paceline-incomplete", sha256(&bytes)));
    fs::write(&begun, &bytes[..123_456]).unwrap();
    check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
    assert!(server.requests.lock().unwrap().iter().any(|request| request.contains("model.safetensors bytes=123456-")));
    // Longer than the file is, it is none of it.
    let root = tempfile::tempdir().unwrap();
    let blobs = root.path().join("hub/models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(begun.file_name().unwrap()), vec![1; 500_000]).unwrap();
    check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
    // What was begun wrongly is found out by the checksum, and removed.
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("hub/models--org--name/blobs")).unwrap();
    let begun = root.path().join("hub/models--org--name/blobs").join(begun.file_name().unwrap());
    fs::write(&begun, [7; 1000]).unwrap();
    let error = fetch(&server, root.path(), "org/name").0.unwrap_err().to_string();
    assert!(error.contains("\"model.safetensors\" came damaged and was removed") && !begun.exists(), "{error}");
    check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
}

#[test]
fn what_cannot_come_is_said_and_leaves_no_model() {
    let root = tempfile::tempdir().unwrap();
    let message = |server: &Server| fetch(server, root.path(), "org/name").0.unwrap_err().to_string();
    let closed = Hub { endpoint: "http://127.0.0.1:1".to_owned(), token: None, pause: Duration::from_millis(1) };
    let none = Server { hub: closed, requests: Arc::default() };
    for (server, said) in [
        (none, "cannot be read"),
        (serve(&DIRECTORY, Manners { never_ends: true, ..Manners::default() }), "cannot be read"),
        (serve(&DIRECTORY, Manners { busy: 1000, ..Manners::default() }), "it answers 503"),
        (serve(&DIRECTORY, Manners { token: Some("secret"), ..Manners::default() }), "set HF_TOKEN"),
        (serve(&DIRECTORY, Manners { lies: true, ..Manners::default() }), "came damaged"),
        (serve(&[("README.md", 5)], Manners::default()), "has no file that is read"),
    ] {
        let message = message(&server);
        assert!(message.contains(said) && message.ends_with('.') && !message.contains('\n'), "{message}");
        let folders = Folders { hugging_face: Some(root.path().join("hub")), ollama: Vec::new() };
        assert!(super::super::locate_in(&folders, Path::new("org/name")).is_err(), "{said}");
    }
    let mut allowed = serve(&DIRECTORY, Manners { token: Some("secret"), redirects: true, ..Manners::default() });
    allowed.hub.token = Some("secret".to_owned());
    check(&fetch(&allowed, root.path(), "org/name").0.unwrap(), &MODEL);
}

#[test]
fn two_do_not_download_one_model_at_once() {
    let (server, root) = (serve(&DIRECTORY, Manners::default()), tempfile::tempdir().unwrap());
    let model = root.path().join("hub/models--org--name");
    fs::create_dir_all(&model).unwrap();
    let held = lock(&model.join(".paceline.lock"), LockKind::Alone, Duration::ZERO).unwrap();
    let error = fetch(&server, root.path(), "org/name").0.unwrap_err().to_string();
    assert!(error.contains("another process downloads \"org/name\""), "{error}");
    drop(held);
    fetch(&server, root.path(), "org/name").0.unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let (server, root) = (serve(&DIRECTORY, Manners::default()), tempfile::tempdir().unwrap());
    fs::write(root.path().join("hub"), "a file").unwrap();
    let error = fetch(&server, root.path(), "org/name").0.unwrap_err().to_string();
    assert!(error.contains("hub/models--org--name/blobs cannot be written") && error.ends_with('.'), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_what_came_is_kept() {
    let (server, root) = (serve(&DIRECTORY, Manners::default()), tempfile::tempdir().unwrap());
    let bytes = content("model.safetensors", 400_000);
    let blobs = root.path().join("hub/models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    // A device that is always full stands where the file would come.
    let begun = blobs.join(format!("{}.paceline-incomplete", sha256(&bytes)));
    std::os::unix::fs::symlink("/dev/full", &begun).unwrap();
    let error = fetch(&server, root.path(), "org/name").0.unwrap_err().to_string();
    assert!(error.contains("No space left on device") && error.contains("make room"), "{error}");
    assert!(!root.path().join("hub/models--org--name/refs/main").exists());
    fs::remove_file(&begun).unwrap();
    check(&fetch(&server, root.path(), "org/name").0.unwrap(), &MODEL);
}
