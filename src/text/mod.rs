//! From text to tokens and back: the tokenizer of a model directory or a GGUF file and its chat template, both with the
//! results that transformers has for the same model.

mod calendar;
mod chat;
mod fallback;
mod gguf;
mod growth;
mod guard;
mod jinja;
mod message;
pub mod stream;
mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

pub use self::calendar::strftime_utc;
pub use self::chat::{ChatTemplate, RenderedChat};
pub(crate) use self::fallback::template_for;
pub use self::guard::panic_is_caught;
pub use self::message::Message;
pub use self::tokenizer::Tokenizer;
use crate::checkpoint::CheckpointError;
use crate::files::Object;
use crate::files::of_model::{FileError, read_json_if_there};
use crate::visible::{shown, shown_path};

/// Real files have kilobytes, those with thousands of added tokens a few megabytes.
const LARGEST_SETTINGS: u64 = 16 << 20;

/// Why a tokenizer or chat template cannot be read, or a text cannot be processed.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file could not be read, or is not the JSON it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key of a GGUF file's metadata has a value that cannot be used.
    #[error(transparent)]
    Metadata(#[from] CheckpointError),
    /// The directory has no `tokenizer.json`.
    #[error(
        "{} has no tokenizer.json; save the model's tokenizer in that format, with transformers' save_pretrained for example.",
        shown_path(.dir)
    )]
    NoTokenizer {
        /// The model directory.
        dir: PathBuf,
    },
    /// `tokenizer.json` does not describe a tokenizer.
    #[error("The tokenizer {} cannot be used: {}; download it again.", shown_path(.path), shown(.reason))]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Error message of the tokenizer's reader.
        reason: String,
    },
    /// The tokenizer failed on a text.
    #[error("The tokenizer {} cannot encode the text: {}.", shown_path(.path), shown(.reason))]
    Encode {
        /// The tokenizer's file.
        path: PathBuf,
        /// The tokenizer's error message.
        reason: String,
    },
    /// The tokenizer failed on tokens.
    #[error("The tokenizer {} cannot decode the tokens: {}.", shown_path(.path), shown(.reason))]
    Decode {
        /// The tokenizer's file.
        path: PathBuf,
        /// The tokenizer's error message.
        reason: String,
    },
    /// The chat template is not a template.
    #[error("The chat template of {} cannot be understood: {}; repair it or prompt without it.", shown_path(.path), shown(.reason))]
    Template {
        /// The file that holds it.
        path: PathBuf,
        /// The template engine's error message.
        reason: String,
    },
    /// The system starts no thread to read the chat template on.
    #[error(
        "The chat template of {} cannot be read, as the system starts no thread with a stack of {stack} MiB: {}; allow \
         more memory or threads (`ulimit -v`, `ulimit -u`), or prompt without it.",
        shown_path(.path),
        shown(&.source.to_string())
    )]
    NoThread {
        /// The file that holds it.
        path: PathBuf,
        /// The stack's size.
        stack: usize,
        /// The system's error.
        source: std::io::Error,
    },
    /// The chat template failed on the messages.
    #[error("The chat template of {} failed on these messages: {}; change them or prompt without it.", shown_path(.path), shown(.reason))]
    Render {
        /// The file that holds it.
        path: PathBuf,
        /// The template engine's error message.
        reason: String,
    },
    /// The chat template's arguments cannot be used.
    #[error("What the chat template is given cannot be used: {}.", shown(.reason))]
    TemplateArguments {
        /// Description of the problem.
        reason: String,
    },
    /// The chat template itself says that the messages are not as it wants them.
    #[error("The chat template of {} refuses these messages: {}", shown_path(.path), sentence(.reason))]
    Refused {
        /// The file that holds it.
        path: PathBuf,
        /// The template's own message.
        reason: String,
    },
}

/// `text` on one line and with a full stop.
fn sentence(text: &str) -> String {
    let text = shown(text.trim());
    if text.ends_with(['.', '!', '?', '…']) { text } else { format!("{text}.") }
}

/// Fields of `tokenizer_config.json` that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    tokenizer_class: Option<String>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
    unk_token: Option<TokenText>,
    pad_token: Option<TokenText>,
    sep_token: Option<TokenText>,
    cls_token: Option<TokenText>,
    mask_token: Option<TokenText>,
    chat_template: Option<StoredTemplate>,
}

impl Settings {
    /// Of a model directory; empty if it has no such file. Special tokens may be in a file of their own.
    fn read(dir: &Path) -> Result<Self, TextError> {
        let read = |name: &str| Self::read_file(&dir.join(name));
        let mut settings = read("tokenizer_config.json")?.unwrap_or_default();
        let tokens = read("special_tokens_map.json")?.unwrap_or_default();
        settings.bos_token = settings.bos_token.or(tokens.bos_token);
        settings.eos_token = settings.eos_token.or(tokens.eos_token);
        settings.unk_token = settings.unk_token.or(tokens.unk_token);
        settings.pad_token = settings.pad_token.or(tokens.pad_token);
        settings.sep_token = settings.sep_token.or(tokens.sep_token);
        settings.cls_token = settings.cls_token.or(tokens.cls_token);
        settings.mask_token = settings.mask_token.or(tokens.mask_token);
        Ok(settings)
    }

    /// One file, `None` if it is not there.
    fn read_file(path: &Path) -> Result<Option<Self>, TextError> {
        let read: Option<Object<Self>> = read_json_if_there(path, LARGEST_SETTINGS)?;
        Ok(read.map(|Object(settings)| settings))
    }

    /// The special tokens that are set, by the names that templates use.
    fn special_tokens(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let tokens = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
            ("sep_token", &self.sep_token),
            ("cls_token", &self.cls_token),
            ("mask_token", &self.mask_token),
        ];
        tokens.into_iter().filter_map(|(name, token)| Some((name, token.as_ref()?.0.as_str())))
    }
}

/// A special token, written as a string or as an object with `content`.
#[derive(Debug)]
struct TokenText(String);

// The visitors here are written out because serde's untagged enums first copy a value into a tree many times its size.
impl<'de> Deserialize<'de> for TokenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenVisitor;
        impl<'de> Visitor<'de> for TokenVisitor {
            type Value = TokenText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token as a string or as an object with \"content\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TokenText, E> {
                Ok(TokenText(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenText, A::Error> {
                let mut content = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "content" {
                        content = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                content.map(TokenText).ok_or_else(|| serde::de::Error::missing_field("content"))
            }
        }
        deserializer.deserialize_any(TokenVisitor)
    }
}

/// A chat template as `tokenizer_config.json` holds it: the template, or several with names.
#[derive(Debug)]
enum StoredTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl<'de> Deserialize<'de> for StoredTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TemplateVisitor;
        impl<'de> Visitor<'de> for TemplateVisitor {
            type Value = StoredTemplate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a chat template as a string or a list of objects with \"name\" and \"template\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StoredTemplate, E> {
                Ok(StoredTemplate::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StoredTemplate, A::Error> {
                let mut templates = Vec::new();
                while let Some(template) = seq.next_element()? {
                    templates.push(template);
                }
                Ok(StoredTemplate::Named(templates))
            }
        }
        deserializer.deserialize_any(TemplateVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_strings_or_objects() {
        let text = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": [1, {}]}, "pad_token": null, "x": [[]]}"#;
        let settings: Settings = serde_json::from_str(text).expect("valid settings");
        let tokens: Vec<_> = settings.special_tokens().collect();
        assert_eq!(tokens, [("bos_token", "<s>"), ("eos_token", "</s>")]);
        for wrong in [r#"{"bos_token": 3}"#, r#"{"bos_token": {}}"#, r#"{"chat_template": [3]}"#] {
            assert!(serde_json::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_are_an_object() {
        let dir = tempfile::tempdir().expect("the temporary folder can be written");
        for name in ["tokenizer_config.json", "special_tokens_map.json", "chat_template.json"] {
            for (text, said) in [("[]", "sequence"), (r#"["Tokenizer", true]"#, "sequence"), ("null", "null")] {
                std::fs::write(dir.path().join(name), text).expect("it can be written");
                let message = ChatTemplate::from_dir(dir.path()).expect_err("it is no object").to_string();
                let expected = format!("{name} cannot be understood at line 1, column");
                assert!(message.contains(&expected) && message.contains(said), "{message}");
                assert!(message.contains("expected an object"), "{message}");
            }
            std::fs::write(dir.path().join(name), "{}").expect("it can be written");
            assert!(ChatTemplate::from_dir(dir.path()).expect("an empty object is fine").is_none());
        }
    }

    #[test]
    fn a_refusal_ends_like_a_sentence() {
        assert_eq!(sentence("Roles must alternate!"), "Roles must alternate!");
        assert_eq!(sentence("a\nb "), "a\\nb.");
    }
}
