//! Formats of chats for models whose own template does not parse: those that a vocabulary gives away by its marks.

use std::collections::BTreeMap;
use std::path::Path;

use super::chat::{ChatTemplate, Found};
use super::tokenizer::Tokenizer;

/// A format that many models share.
struct Format {
    /// Its name.
    name: &'static str,
    /// Tokens that a vocabulary has all of where models were tuned on it.
    marks: &'static [&'static str],
    template: &'static str,
}

const FORMATS: [Format; 3] = [
    Format {
        name: "ChatML",
        marks: &["<|im_start|>", "<|im_end|>"],
        template: "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}\
                   {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    },
    Format {
        name: "Llama 3",
        marks: &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        template: "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + \
                   '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
                   {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    },
    Format {
        name: "Gemma",
        marks: &["<bos>", "<start_of_turn>", "<end_of_turn>"],
        template: "{{ '<bos>' }}{% for message in messages %}{% if message['role'] == 'system' %}\
                   {{ raise_exception('System role not supported') }}{% endif %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' \
                   else 'user') + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
                   {% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    },
];

/// The format whose marks a vocabulary has, with its name; `None` where it has those of none.
pub(crate) fn template_for(path: &Path, tokenizer: &Tokenizer) -> Option<(&'static str, ChatTemplate)> {
    let has = |mark: &&str| tokenizer.id_of(mark).is_some();
    // Phi 4 has ChatML's marks, and another between role and text.
    let is_other = has(&"<|im_sep|>");
    let format = FORMATS.iter().find(|format| !is_other && format.marks.iter().all(has))?;
    let found = Found { path: path.to_owned(), source: format.template.to_owned(), tool_use: None };
    Some((format.name, ChatTemplate::of(found, BTreeMap::new()).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::Message;

    /// What the formats' own models make of this conversation.
    #[test]
    fn formats_are_those_of_their_models() {
        let messages: Vec<Message> = [("user", "Hello"), ("assistant", "Hi."), ("user", "Bye")]
            .map(|(role, content)| serde_json::from_value(json!({"role": role, "content": content})).unwrap())
            .into();
        let expected = [
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ];
        for (format, expected) in FORMATS.iter().zip(expected) {
            let found = Found { path: "x".into(), source: format.template.to_owned(), tool_use: None };
            let template = ChatTemplate::of(found, BTreeMap::new()).unwrap();
            assert_eq!(template.render(&messages, true).unwrap(), expected, "{}", format.name);
        }
    }
}
