//! The chat templates of a GGUF file.

use std::collections::BTreeMap;

use super::TextError;
use crate::checkpoint::Metadata;
use crate::checkpoint::vocabulary::{Form, SpecialIds, Vocabulary};
use crate::text::NamedTemplate;
use crate::text::chat::{ChatTemplate, Found};

const TEMPLATE: &str = "tokenizer.chat_template";
/// Names of further templates, each under `tokenizer.chat_template.NAME`.
const NAMES: &str = "tokenizer.chat_templates";

/// The template of a file and another for tools, with the special tokens that they write; `None` if there is none.
///
/// # Errors
/// When a template is not one, or the vocabulary cannot be read.
pub(in crate::text) fn template(metadata: &Metadata) -> Result<Option<ChatTemplate>, TextError> {
    let mut templates = Vec::new();
    let listed = metadata.texts(NAMES)?.unwrap_or_default();
    // Others are not rendered. Each is copied once, however often it is listed.
    for name in ["tool_use", "default"] {
        if !listed.iter().any(|listed| listed == name) {
            continue;
        }
        let key = format!("{TEMPLATE}.{name}");
        let Some(template) = metadata.text(&key)? else {
            return Err(metadata.error(&key, format!("is missing, although {NAMES} lists it")).into());
        };
        templates.push(NamedTemplate { template: template.to_owned(), name: name.to_owned() });
    }
    if let Some(template) = metadata.text(TEMPLATE)? {
        templates.push(NamedTemplate { name: "default".to_owned(), template: template.to_owned() });
    }
    if templates.is_empty() {
        return Ok(None);
    }
    let found = Found::named(metadata.path().to_owned(), &templates)?;
    ChatTemplate::of(found, special_tokens(metadata)?).map(Some)
}

/// The special tokens that a file has, by the names that templates use.
fn special_tokens(metadata: &Metadata) -> Result<BTreeMap<&'static str, String>, TextError> {
    let form = Form::of(metadata)?;
    let vocabulary = Vocabulary::read(metadata, form)?;
    let ids = SpecialIds::read(metadata, form, vocabulary.len())?;
    let tokens = [
        ("bos_token", ids.bos),
        ("eos_token", ids.eos),
        ("unk_token", ids.unknown),
        ("pad_token", ids.padding),
        ("sep_token", ids.separator),
        ("cls_token", ids.class),
        ("mask_token", ids.mask),
    ];
    let named = tokens.into_iter().filter_map(|(name, id)| Some((name, vocabulary.token(id?)?.to_owned())));
    Ok(named.collect())
}
