//! The journal held to what it promises: lines, periods, what they come to, and what happens to it.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::thread;

use super::*;

const DAY: u64 = 86_400_000;

/// An answer of ten tokens in 60 ms, 40 of them for decoding, where plain steps would have taken 80.
fn entry(at: u64) -> Entry {
    Entry {
        at,
        prompt_tokens: 5,
        tokens: 10,
        latency_ms: 60.0,
        decode_ms: 40.0,
        plain_step_ms: Some(8.0),
        energy_wh: None,
        energy_source: "unavailable".into(),
        energy_doubt: None,
        drafter: "lookup".into(),
        difficulty: None,
        adapted: vec![Adaptation::Drafted],
        steps: 4,
        evaluated: 8,
        accepted: 6,
        exact: true,
        quality: Some(1.0),
    }
}

/// An answer of plain decoding.
fn plain(at: u64) -> Entry {
    let nothing = Entry { drafter: "none".into(), adapted: vec![], steps: 10, evaluated: 0, accepted: 0, ..entry(at) };
    Entry { decode_ms: 80.0, latency_ms: 100.0, ..nothing }
}

/// A journal in a new folder, with these answers.
fn journal(entries: &[Entry]) -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::new(folder.path().join("some/where/journal.jsonl"));
    entries.iter().for_each(|entry| journal.append(entry).unwrap());
    (folder, journal)
}

fn stats(entries: &[Entry]) -> AdaptationStats {
    journal(entries).1.stats(Period::All, DAY).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_is_appended_is_read_back() {
    let all = [entry(1), plain(2), Entry { plain_step_ms: None, quality: None, exact: false, ..entry(3) }];
    let (_folder, journal) = journal(&all);
    let contents = journal.read().unwrap();
    assert_eq!((contents.entries.as_slice(), contents.damaged, contents.dropped), (&all[..], 0, None));
    let text = fs::read_to_string(journal.path()).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(BEGINNINGS.iter().any(|known| text.as_bytes().starts_with(known)), "{text}");
}

#[test]
fn a_period_ends_now_and_has_what_is_not_older() {
    let now = 10 * DAY;
    let (_folder, journal) = journal(&[entry(now - DAY - 1), entry(now - DAY), entry(now - 1), entry(now + 5)]);
    let answers = |period: &str| journal.stats(period.parse().unwrap(), now).unwrap().all.answers;
    assert_eq!([answers("all"), answers("24h"), answers("2d"), answers("1s")], [4, 3, 4, 2]);
    let stats = journal.stats(Period::All, now).unwrap();
    assert_eq!((stats.first_at, stats.last_at), (Some(now - DAY - 1), Some(now + 5)));
}

#[test]
fn totals_are_those_of_the_answers() {
    let unjudged = Entry { adapted: vec![Adaptation::EarlyExit], exact: false, quality: None, ..plain(3) };
    let judged = Entry {
        adapted: vec![Adaptation::Drafted, Adaptation::LowerPrecision],
        exact: false,
        quality: Some(0.7),
        difficulty: Some("hard".into()),
        ..entry(4)
    };
    let skipped = Entry { adapted: vec![Adaptation::LayersSkipped], plain_step_ms: None, ..judged.clone() };
    let stats = stats(&[entry(1), plain(2), unjudged, judged, skipped]);
    let all = &stats.all;
    assert_eq!((all.answers, all.tokens, stats.prompt_tokens, all.adapted), (5, 50, 25, 4));
    assert_eq!((all.adapted_share, stats.latency_ms), (Some(0.8), 380.0));
    let Adapted { drafted, early_exit, layers_skipped, lower_precision } = stats.adaptations;
    assert_eq!([drafted, early_exit, layers_skipped, lower_precision], [2, 1, 1, 1]);
    // The answer without a measured plain step is in neither sum.
    let time = &all.time;
    assert_eq!((time.answers, time.decode_ms, time.plain_ms, time.saved_share), (4, 240.0, 320.0, Some(0.25)));
    let quality = &all.quality;
    assert_eq!((quality.exact, quality.judged, quality.unknown), (2, 2, 1));
    assert!((quality.mean.unwrap() - 3.4 / 4.0).abs() < 1e-12);
    assert_eq!((all.tokens_per_step, all.acceptance), (Some(50.0 / 32.0), Some(0.75)));
    assert_eq!(stats.by_drafter.keys().collect::<Vec<_>>(), ["lookup", "none"]);
    assert_eq!(stats.by_drafter["lookup"].time.saved_share, Some(0.5));
    assert_eq!((stats.by_drafter["none"].acceptance, stats.by_drafter["none"].answers), (None, 2));
    assert_eq!(stats.by_difficulty.keys().collect::<Vec<_>>(), ["hard", "unjudged"]);
    assert_eq!((stats.without_energy, stats.energy.len()), (5, 0));
}

#[test]
fn energy_is_summed_by_its_source_alone() {
    let of = |source: &str, wh, entry| Entry { energy_wh: Some(wh), energy_source: source.into(), ..entry };
    let doubtful = Entry { energy_doubt: Some("The meter is coarse.".into()), ..of("estimate", 5.0, plain(3)) };
    let unknown = Entry { plain_step_ms: None, ..of("rapl", 4.0, entry(5)) };
    let stats =
        stats(&[of("rapl", 3.0, entry(1)), of("rapl", 2.0, plain(2)), doubtful.clone(), doubtful, unknown, entry(6)]);
    let [estimate, rapl] = &stats.energy[..] else { panic!("{:?}", stats.energy) };
    assert_eq!((estimate.source.as_str(), estimate.answers, estimate.wh), ("estimate", 2, 10.0));
    assert_eq!(
        (estimate.saved_share, estimate.doubts.as_slice()),
        (Some(0.0), &["The meter is coarse.".to_owned()][..])
    );
    assert_eq!((rapl.source.as_str(), rapl.answers, rapl.wh), ("rapl", 3, 9.0));
    // The first took 60 ms, of which plain decoding would have made 100: 3 Wh would have been 5.
    assert_eq!((rapl.compared, rapl.compared_wh), (2, 5.0));
    assert!((rapl.plain_wh - 7.0).abs() < 1e-9 && (rapl.saved_share.unwrap() - 2.0 / 7.0).abs() < 1e-9, "{rapl:?}");
    assert!(rapl.assumption.contains("power") && rapl.doubts.is_empty());
    assert_eq!(stats.without_energy, 1);
}

#[test]
fn of_no_answers_nothing_is_said() {
    let (_folder, journal) = journal(&[entry(1)]);
    let stats = journal.stats(Period::Last(Duration::from_secs(1)), DAY).unwrap();
    assert_eq!((stats.all.answers, stats.all.adapted_share, stats.all.quality.mean), (0, None, None));
    assert_eq!((stats.all.time.saved_share, stats.first_at), (None, None));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(
        (&json["answers"], &json["adapted_share"], &json["time"]["saved_share"]),
        (&0.into(), &().into(), &().into())
    );
}

#[test]
fn damaged_lines_are_left_out_and_counted() {
    let (_folder, journal) = journal(&[entry(1)]);
    let mut text = fs::read(journal.path()).unwrap();
    let whole = text.clone();
    text.extend_from_slice(b"\n  \n{\"at\":12,\n\xff\xfe\n[]\nnull\n{}\n");
    text.extend_from_slice(
        &whole.iter().copied().map(|byte| if byte == b'6' { b'-' } else { byte }).collect::<Vec<u8>>(),
    );
    for (number, wrong) in [("60.0", "-1"), ("60.0", "1e300"), ("60.0", "null"), ("\"quality\":1.0", "\"quality\":2")] {
        let line = String::from_utf8(whole.clone()).unwrap();
        assert!(line.contains(number), "{line}");
        text.extend_from_slice(line.replace(number, wrong).as_bytes());
    }
    // The last one ends in the middle, as when the power went.
    text.extend_from_slice(&whole[..40]);
    fs::write(journal.path(), &text).unwrap();
    journal.append(&entry(2)).unwrap();
    let stats = journal.stats(Period::All, DAY).unwrap();
    assert_eq!(stats.all.answers, 2);
    let [warning] = &stats.warnings[..] else { panic!("{:?}", stats.warnings) };
    assert!(warning.starts_with("11 lines are damaged in the journal ") && warning.ends_with("left out."), "{warning}");
}

#[test]
fn a_file_of_something_else_is_no_journal() {
    let (_folder, journal) = journal(&[entry(1)]);
    for other in ["{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n", "text", "[1]\n"] {
        fs::write(journal.path(), other).unwrap();
        let message = journal.stats(Period::All, DAY).unwrap_err().to_string();
        assert!(message.contains("journal.jsonl is not a journal") && message.contains("--journal"), "{message}");
    }
    // One that was begun, and ended before its first line did.
    for begun in ["", "{\"a", "{\"at\":17900"] {
        fs::write(journal.path(), begun).unwrap();
        assert_eq!(journal.stats(Period::All, DAY).unwrap().all.answers, 0);
    }
}

#[test]
fn what_is_too_large_loses_its_older_half_and_says_so() {
    let (_folder, mut journal) = journal(&[]);
    journal.largest = 20_000;
    let size = |journal: &Journal| fs::metadata(journal.path()).unwrap().len();
    let mut before = 0;
    let mut shortened = 0;
    for at in 1..=300 {
        journal.append(&entry(at)).unwrap();
        assert!(size(&journal) <= 20_000, "{at}");
        if size(&journal) < before {
            shortened += 1;
            assert!(size(&journal) > 9_000, "more than half went at {at}");
        }
        before = size(&journal);
    }
    assert!(shortened >= 3, "{shortened}");
    let contents = journal.read().unwrap();
    let (dropped, until) = contents.dropped.unwrap();
    let kept: Vec<u64> = contents.entries.iter().map(|entry| entry.at).collect();
    // What is kept is the newest, without a gap, and what is not is counted.
    assert_eq!(kept, (until + 1..=300).collect::<Vec<u64>>());
    assert_eq!((dropped, contents.damaged), (until, 0));

    let warned = |from: u64| {
        let period = Period::Last(Duration::from_millis(1000 - from));
        let stats = journal.stats(period, 1000).unwrap();
        stats.warnings.iter().any(|warning| warning.contains(&format!("its {dropped} oldest answers")))
    };
    assert!(warned(until) && !warned(until + 1));
    let left: Vec<_> =
        fs::read_dir(journal.path().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the journal and its lock: {left:?}");
}

/// Writers that are many and a journal that shrinks all the time: every answer is there or counted, once.
#[test]
fn writers_at_once_lose_nothing() {
    const WRITERS: u64 = 6;
    const EACH: u64 = 200;
    let (_folder, mut journal) = journal(&[]);
    // A disk that is slow is no loss.
    journal.patience = Duration::from_secs(60);
    for largest in [u64::MAX, 30_000] {
        let _ = fs::remove_file(journal.path());
        journal.largest = largest;
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let journal = journal.clone();
                let answers = (0..EACH).map(move |number| entry(1 + writer * EACH + number));
                scope.spawn(move || answers.for_each(|answer| journal.append(&answer).unwrap()));
            }
        });
        let contents = journal.read().unwrap();
        let mut kept: Vec<u64> = contents.entries.iter().map(|entry| entry.at).collect();
        let (dropped, _) = contents.dropped.unwrap_or_default();
        assert_eq!((kept.len() as u64 + dropped, contents.damaged), (WRITERS * EACH, 0));
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept.len(), contents.entries.len());
        assert_eq!(dropped == 0, largest == u64::MAX);
    }
}

#[test]
fn what_cannot_be_written_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    fs::write(&notes, "Dear diary,\n").unwrap();
    for (path, words) in [
        (notes.clone(), "begins like none and was left alone"),
        (notes.join("journal.jsonl"), "cannot be written"),
        (folder.path().to_owned(), "it is not a file"),
    ] {
        let message = Journal::new(&path).append(&entry(1)).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("--journal") && message.ends_with('.'), "{message}");
    }
    assert_eq!(fs::read_to_string(&notes).unwrap(), "Dear diary,\n");
    if cfg!(target_os = "linux") {
        let message = Journal::new("/dev/full").append(&entry(1)).unwrap_err().to_string();
        assert!(
            message.contains("/dev/full cannot be written (No space left") && message.contains("make room"),
            "{message}"
        );
        assert!(!Path::new("/dev/full.lock").exists());
    }
    // Somebody keeps it locked, and the answer goes on without it.
    let (_folder, journal) = journal(&[entry(1)]);
    let held = files::lock(&lock_file_of(journal.path()), LockKind::Alone, Duration::ZERO).unwrap();
    let message = journal.append(&entry(2)).unwrap_err().to_string();
    assert!(message.contains("another process keeps") && message.contains("journal.jsonl locked; end it"), "{message}");
    assert_eq!(journal.read().unwrap().entries.len(), 1);
    // Answers after the first do not wait for it: with this patience the test would not end.
    let journal = Journal { patience: Duration::from_secs(100_000), ..journal };
    (3..40).for_each(|at| drop(journal.append(&entry(at)).unwrap_err()));
    drop(held);
    journal.append(&entry(40)).unwrap();
    assert!(!journal.waited_in_vain[0].load(Ordering::Relaxed));
    assert_eq!(journal.read().unwrap().entries.len(), 2);
}

#[test]
fn what_cannot_be_read_is_told() {
    let (folder, journal) = journal(&[entry(1)]);
    let error = |path: &Path| adaptation_stats(path, Period::All).unwrap_err().to_string();
    assert!(error(&folder.path().join("no")).starts_with("There is no journal at "));
    assert!(error(folder.path()).contains("it is not a file"));
    assert!(error(&journal.path().join("in/it")).contains("cannot be read"));
    File::options().append(true).open(journal.path()).unwrap().set_len(MOST_READ + 1).unwrap();
    assert!(error(journal.path()).contains("more than 16777216 bytes"));
}
