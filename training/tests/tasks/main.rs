//! Task sets: the committed files are what the generator makes, splits share nothing, and every answer is found again by
//! solvers that know the prompt alone.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod arithmetic;
mod code;
mod dialogue;
mod extraction;
mod facts;
mod notation;
mod question;
mod summary;
mod transforms;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use paceline_training::tasks::{Category, Generator, Level, Split, Table, Task, held_out_rows, is_right, write_rows};

use self::facts::World;
use self::question::{Question, questions};

const HELD_OUT: [(Split, usize); 3] = [(Split::Validation, 600), (Split::Calibration, 3024), (Split::Test, 3024)];

fn committed(split: Split) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../datasets/tasks/{split}.jsonl"))
}

fn rows(split: Split) -> Vec<Task> {
    let text = fs::read_to_string(committed(split)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All committed rows and as many for training.
fn sample() -> Vec<(Split, Task)> {
    let held_out = HELD_OUT.into_iter().flat_map(|(split, _)| rows(split).into_iter().map(move |row| (split, row)));
    held_out.chain(Generator::new(Split::Train, 0).take(12_000).map(|task| (Split::Train, task))).collect()
}

#[test]
fn committed_files_are_what_the_generator_makes() {
    let folder = tempfile::tempdir().unwrap();
    for (split, count) in HELD_OUT {
        let file = folder.path().join("rows.jsonl");
        let rows = held_out_rows(split, 0, &Category::ALL, &Level::ALL, count).unwrap();
        write_rows(&file, rows.into_iter()).unwrap();
        let same = fs::read(&file).unwrap() == fs::read(committed(split)).unwrap();
        assert!(same, "{split}.jsonl is another one: run `paceline-train tasks` in the repository's root");
    }
}

#[test]
fn splits_share_no_prompt() {
    let mut prompts: [BTreeSet<String>; 4] = Default::default();
    for (split, task) in sample() {
        let new = prompts[split as usize].insert(task.prompt());
        assert!(new || split == Split::Train, "{} comes twice", task.id);
    }
    for (index, some) in prompts.iter().enumerate() {
        for others in &prompts[index + 1..] {
            assert_eq!(some.intersection(others).next(), None);
        }
    }
}

#[test]
fn every_category_and_level_has_its_rows() {
    for (split, count) in HELD_OUT {
        let rows = rows(split);
        for category in Category::ALL {
            for level in Level::ALL {
                let found = rows.iter().filter(|row| (row.category, row.level) == (category, level)).count();
                assert_eq!(found, count / 24, "{split} {category} {level}");
            }
        }
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(rows.iter().all(|row| row.messages.last().is_some_and(|last| last.role() == "user")));
    }
}

/// The answer that a prompt asks for, found without the generator; `None` where the question is not understood.
fn solve(task: &Task, question: &Question, world: &World) -> Option<String> {
    let Question { ask, data, form, .. } = question;
    match task.category {
        Category::Facts => facts::solve(ask, *form, world),
        Category::Extraction => extraction::solve(ask, data, *form),
        Category::Summary => summary::solve(ask, data, *form),
        Category::Notation => notation::solve(ask, data, *form),
        Category::Arithmetic => arithmetic::solve(ask, data, *form, &task.answer),
        Category::Transforms => transforms::solve(ask, data, *form),
        Category::Code => code::solve(ask, data, *form, &task.answer),
        Category::Dialogue => dialogue::solve(&task.messages, ask, *form),
    }
}

/// Whatever phrasing a prompt may be read with, only one answer comes out, and it is the row's.
#[test]
fn every_answer_is_found_from_the_prompt_alone() {
    let sample = sample();
    let world = World::learn(sample.iter().map(|(_, task)| task).filter(|task| task.category == Category::Facts));
    let mut test_only = [0; 8];
    for (split, task) in &sample {
        let readings: Vec<(bool, String)> = questions(task)
            .into_iter()
            .filter_map(|question| Some((question.test_only, solve(task, &question, &world)?)))
            .collect();
        let answers: BTreeSet<&str> = readings.iter().map(|reading| reading.1.as_str()).collect();
        assert_eq!(Vec::from_iter(answers), [task.answer.as_str()], "{}: {}", task.id, task.prompt());
        if readings.iter().all(|reading| reading.0) {
            assert_eq!(*split, Split::Test, "{} has a phrasing of the test split", task.id);
            test_only[task.category as usize] += 1;
        }
    }
    // A quarter of 378 rows each.
    assert!(test_only.iter().all(|count| (55..140).contains(count)), "{test_only:?}");
}

#[test]
fn phrasings_are_twenty_and_differ() {
    for category in Category::ALL {
        let phrasings = category.phrasings();
        let all = [&phrasings.common[..], &phrasings.test_only[..]].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 20, "{category}");
    }
}

#[test]
fn an_answer_is_right_and_a_changed_one_is_not() {
    for (_, Task { category, answer, .. }) in sample() {
        assert!(is_right(category, &answer, &answer));
        assert!(is_right(category, &answer, &format!("{}  \n", answer.replace('\n', " \n"))));
        for place in [0, answer.len() / 3, answer.len() - 1] {
            let mut changed = answer.clone().into_bytes();
            changed[place] = if changed[place] == b'#' { b'*' } else { b'#' };
            assert!(!is_right(category, &answer, &String::from_utf8(changed).unwrap()));
        }
        assert!(!is_right(category, &answer, &format!("{answer} {answer}")));
        let shorter = answer.rsplit_once([' ', '\n']).unwrap().0;
        assert!(!is_right(category, &answer, shorter));
    }
    assert!(!is_right(Category::Code, "if a:\n    b", "if a:\nb"));
    assert!(is_right(Category::Facts, "a b\nc", " a  b c\n"));
}

#[test]
fn answers_are_long_enough_and_differ_enough() {
    for (split, _) in HELD_OUT {
        let mut table = Table::default();
        rows(split).iter().for_each(|row| table.add(row));
        // 24 tokens at four characters each, on the safe side.
        assert!(table.median(None, None) >= 96);
        for category in Category::ALL {
            for n in 2..=4 {
                let shared = table.shared(category, n);
                assert!(shared.share <= 0.3, "{split} {category} {shared:?}");
            }
        }
    }
}

#[test]
fn the_card_shows_the_table_of_the_test_split() {
    let card = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../datasets/tasks/README.md");
    let mut table = Table::default();
    rows(Split::Test).iter().for_each(|row| table.add(row));
    assert!(fs::read_to_string(card).unwrap().contains(&table.to_string()), "the card shows another table:\n{table}");
}

/// A task depends on its own number alone.
#[test]
fn a_task_is_the_same_wherever_it_is_taken_from() {
    let tasks: Vec<Task> = Generator::new(Split::Train, 5).take(100).collect();
    assert_eq!(Vec::from_iter(Generator::new(Split::Train, 5).starting_at(40).take(60)), tasks[40..]);
    let code: Vec<Task> = Generator::new(Split::Train, 5).only(&[Category::Code], &[Level::Complex]).take(4).collect();
    let among: Vec<&Task> =
        tasks.iter().filter(|task| (task.category, task.level) == (Category::Code, Level::Complex)).collect();
    assert_eq!(Vec::from_iter(&code), among);
    assert_ne!(Generator::new(Split::Train, 6).task(0).prompt(), tasks[0].prompt());
}
