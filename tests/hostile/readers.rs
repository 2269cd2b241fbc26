//! Every reader of bytes from outside, as a function of those bytes: the bodies of the fuzz targets in `fuzz/` and of the driver
//! that needs no fuzzer.
//!
//! Bytes are written to the place where a program would find them, beside sound files, and opened by the public function that
//! programs use. An input may be accepted or refused; whatever is accepted is used for a moment.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline::Certificate;
use paceline::checkpoint::Checkpoint;
use paceline::command::fields;
use paceline::journal::{Period, adaptation_stats};
use paceline::model::{Compute, Decoder, DeviceName, Sequence};
use paceline::routing::{open_router, read_state};
use paceline::text::{ChatTemplate, Message, Tokenizer};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What became of an input: a sentence where it was refused.
pub(crate) type Outcome = Result<(), String>;

/// The predictions that the learned state among the seeds belongs to.
pub(crate) const LEARNED_WITH: &str = "0123456789abcdef";

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A model directory whose files are sound but for one, and a processor.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    compute: Compute,
    /// The file that is damaged, and what it was.
    damaged: Option<(PathBuf, Option<Vec<u8>>)>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the inputs");
        let fixture = Path::new(crate::ROOT).join("tests/fixtures/micro");
        for name in
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            fs::copy(fixture.join(name), folder.path().join(name)).expect("the fixture is there");
        }
        let compute = Compute::open(DeviceName::Cpu, 1).expect("a processor");
        Self { path: folder.path().to_owned(), _folder: folder, compute, damaged: None }
    }
}

/// Runs `read` in a model directory where the file `name` holds `bytes`. All other files are sound.
fn with(name: &str, bytes: &[u8], read: impl FnOnce(&Path, &Compute) -> Outcome) -> Outcome {
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(Place::new);
        let file = place.path.join(name);
        match place.damaged.take() {
            Some((damaged, sound)) if damaged != file => {
                match sound {
                    Some(sound) => fs::write(&damaged, sound).expect("room for an input"),
                    None => fs::remove_file(&damaged).expect("it was written"),
                }
                place.damaged = Some((file.clone(), fs::read(&file).ok()));
            }
            Some(same) => place.damaged = Some(same),
            None => place.damaged = Some((file.clone(), fs::read(&file).ok())),
        }
        fs::write(&file, bytes).expect("room for an input");
        read(&place.path, &place.compute)
    })
}

/// `result` as an outcome.
fn outcome<T>(result: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Opens a model and runs two steps of it.
fn model(dir: &Path, compute: &Compute) -> Outcome {
    let checkpoint = outcome(Checkpoint::open(dir))?;
    checkpoint.fingerprint();
    let config = checkpoint.config();
    (0..config.layers).for_each(|layer| _ = config.window(layer));
    let decoder = outcome(Decoder::load(&checkpoint, None, compute, &mut |_, _| {}))?;
    let decoder = match outcome(checkpoint.exits())? {
        Some(exits) => outcome(decoder.with_exits(&checkpoint, &exits))?,
        None => decoder,
    };
    let room = decoder.config().context.min(8);
    let mut sequence = Sequence::try_new(Arc::new(decoder), room).map_err(|bytes| format!("{bytes} bytes."))?;
    if room >= 3 {
        sequence.verify(&[0, 1]);
        sequence.verify(&[0]);
    }
    Ok(())
}

/// `config.json`.
pub(crate) fn config(bytes: &[u8]) -> Outcome {
    with("config.json", bytes, model)
}

/// `generation_config.json`.
pub(crate) fn generation_config(bytes: &[u8]) -> Outcome {
    with("generation_config.json", bytes, model)
}

/// `model.safetensors`: header and weights.
pub(crate) fn weights(bytes: &[u8]) -> Outcome {
    with("model.safetensors", bytes, model)
}

/// A GGUF file: header, weights, tokenizer and chat template.
pub(crate) fn gguf(bytes: &[u8]) -> Outcome {
    with("model.gguf", bytes, |dir, compute| {
        let file = &dir.join("model.gguf");
        model(file, compute)?;
        tokens(file, compute)?;
        chat(file, compute)
    })
}

/// `model.safetensors.index.json`, which names the one file of weights as a shard.
pub(crate) fn index(bytes: &[u8]) -> Outcome {
    /// Gives the weights their usual name back.
    struct Renamed<'a>(&'a Path);
    impl Drop for Renamed<'_> {
        fn drop(&mut self) {
            let _ = fs::rename(self.0.join(SHARD), self.0.join("model.safetensors"));
        }
    }
    with("model.safetensors.index.json", bytes, |dir, compute| {
        fs::rename(dir.join("model.safetensors"), dir.join(SHARD)).expect("the weights are there");
        let _renamed = Renamed(dir);
        model(dir, compute)
    })
}

/// What an index calls the weights.
pub(crate) const SHARD: &str = "0.safetensors";

/// `exits.safetensors`.
pub(crate) fn exits(bytes: &[u8]) -> Outcome {
    with("exits.safetensors", bytes, model)
}

/// Reads the tokenizer and uses it both ways.
fn tokens(dir: &Path, _: &Compute) -> Outcome {
    let tokenizer = outcome(Tokenizer::of_model(dir))?;
    tokenizer.fingerprint();
    let ids = outcome(tokenizer.encode("abcab <s> c\u{301} \u{1f600}\n  x"))?;
    outcome(tokenizer.encode_chat("<s>abc"))?;
    outcome(tokenizer.decode(&ids, true))?;
    outcome(tokenizer.decode(&[0, 5, 3, 77, u32::MAX], false)).map(drop)
}

/// `tokenizer.json`.
pub(crate) fn tokenizer(bytes: &[u8]) -> Outcome {
    with("tokenizer.json", bytes, tokens)
}

/// Reads the chat template and renders a short conversation.
fn chat(dir: &Path, _: &Compute) -> Outcome {
    let Some(template) = outcome(ChatTemplate::of_model(dir))? else { return Ok(()) };
    let spoken = r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi\n"},
        {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "{{ x }}"}]"#;
    let messages: Vec<Message> = outcome(serde_json::from_str(spoken))?;
    outcome(template.render(&messages, true))?;
    outcome(template.render(&messages[1..2], false)).map(drop)
}

/// `chat_template.jinja`.
pub(crate) fn chat_template(bytes: &[u8]) -> Outcome {
    with("chat_template.jinja", bytes, chat)
}

/// `draft_vocabulary.json`.
pub(crate) fn draft_vocabulary(bytes: &[u8]) -> Outcome {
    with("draft_vocabulary.json", bytes, |dir, _| {
        let checkpoint = outcome(Checkpoint::open(dir))?;
        outcome(checkpoint.draft_vocabulary()).map(drop)
    })
}

/// `special_tokens_map.json`.
pub(crate) fn special_tokens(bytes: &[u8]) -> Outcome {
    with("special_tokens_map.json", bytes, |dir, compute| tokens(dir, compute).and(chat(dir, compute)))
}

/// A line of a file of prompts.
pub(crate) fn prompt(bytes: &[u8]) -> Outcome {
    let text = outcome(std::str::from_utf8(bytes))?;
    let mut fields = outcome(fields::read(text))?;
    let messages = fields.value::<Vec<Message>>("messages").map_err(|error| format!("{error:#}."))?;
    fields.value::<Value>("tools").map_err(|error| format!("{error:#}."))?;
    fields.remove(&["messages"]);
    let answer = fields.object_with(&Map::new());
    outcome(serde_json::from_str::<IgnoredAny>(&answer))?;
    let messages = messages.unwrap_or_default();
    with("chat_template.jinja", PLAIN_TEMPLATE, |dir, _| {
        let template = outcome(ChatTemplate::of_model(dir))?.ok_or("There is no template.")?;
        outcome(template.render(&messages, true)).map(drop)
    })
}

/// A template that looks at all of a message.
const PLAIN_TEMPLATE: &[u8] = b"{% for m in messages %}{{ m|tojson }}{{ m.content }}{% endfor %}";

/// `tokenizer_config.json`, which may hold a chat template too.
pub(crate) fn tokenizer_config(bytes: &[u8]) -> Outcome {
    with("tokenizer_config.json", bytes, |dir, compute| tokens(dir, compute).and(chat(dir, compute)))
}

/// `router.safetensors`.
pub(crate) fn router(bytes: &[u8]) -> Outcome {
    with("router.safetensors", bytes, |dir, _| outcome(open_router(dir)).map(drop))
}

/// A certificate.
pub(crate) fn certificate(bytes: &[u8]) -> Outcome {
    with("certificate.json", bytes, |dir, _| outcome(Certificate::read(&dir.join("certificate.json"))).map(drop))
}

/// What was learned while serving.
pub(crate) fn online_state(bytes: &[u8]) -> Outcome {
    with("learned.json", bytes, |dir, _| {
        let Some(state) = outcome(read_state(&dir.join("learned.json"), LEARNED_WITH))? else { return Ok(()) };
        let shift = state.shift("lookup", &[0.2, 0.3, 0.5]);
        if shift.is_nan() { Err("It shifts predictions by NaN.".to_owned()) } else { Ok(()) }
    })
}

/// A journal.
pub(crate) fn journal(bytes: &[u8]) -> Outcome {
    with("journal.jsonl", bytes, |dir, _| {
        let period: Period = outcome("24h".parse())?;
        let stats = outcome(adaptation_stats(&dir.join("journal.jsonl"), period))?;
        // Lines that are damaged are left out with a warning.
        stats.warnings.into_iter().next().map_or(Ok(()), Err)
    })
}
