//! Chat templates: from messages to the text that a model was tuned on, rendered as transformers renders them
//! with Jinja2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::jinja::{Failure, Inputs, Rendered, Template, Trouble};
use super::message::Message;
use super::{NamedTemplate, Settings, StoredTemplate, TextError, gguf};
use crate::checkpoint::{Metadata, metadata_of};
use crate::files::of_model::{FileError, read_text};

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The file that holds it, for messages.
    path: PathBuf,
    template: Template,
    /// Another that is taken where there are tools.
    tool_use: Option<Template>,
    /// `bos_token` and the like, as far as the tokenizer has them.
    special_tokens: BTreeMap<&'static str, String>,
}

/// A conversation as a template rendered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedChat {
    /// The text, with its special tokens: encode it without adding others.
    pub text: String,
    /// Sentences about what was given and the template never looked at.
    pub warnings: Vec<String>,
}

/// Arguments that are ours and not the template's alone.
const ADD_PROMPT: &str = "add_generation_prompt";
const CONTINUE: &str = "continue_final_message";
/// Names under which the reasoning of a message is known; templates read the first, or for gpt-oss the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Marker of the end of a message that is to be continued, as in transformers.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

impl ChatTemplate {
    /// The template of the model at `path`, a directory or a GGUF file; `None` if it has none.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir) or [`from_gguf`](Self::from_gguf).
    pub fn of_model(path: &Path) -> Result<Option<Self>, TextError> {
        Self::with_metadata(path, metadata_of(path)?.as_ref())
    }

    /// As [`of_model`](Self::of_model), given the metadata of the model's GGUF file, if it lies in one:
    /// [`Checkpoint::metadata`](crate::checkpoint::Checkpoint::metadata) of a model that is open already.
    ///
    /// # Errors
    /// As [`of_model`](Self::of_model).
    pub fn with_metadata(path: &Path, metadata: Option<&Metadata>) -> Result<Option<Self>, TextError> {
        match metadata {
            Some(metadata) => Self::from_gguf(metadata),
            None => Self::from_dir(path),
        }
    }

    /// Reads the template of a model directory, `None` if it has none. As in transformers,
    /// `chat_template.jinja` goes before `tokenizer_config.json`, and that before `chat_template.json`; of
    /// several templates the one named `default` is taken, and `tool_use` where there are tools.
    ///
    /// # Errors
    /// When a file cannot be read or understood, or the template has a syntax error.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TextError> {
        let settings = Settings::read(dir)?;
        let special_tokens = settings.special_tokens().map(|(name, token)| (name, token.to_owned())).collect();
        let Some(found) = find(dir, settings.chat_template)? else { return Ok(None) };
        Self::of(found, special_tokens).map(Some)
    }

    /// Takes the template from the metadata of a GGUF file, `None` if it has none: `tokenizer.chat_template`, and for tools the one
    /// that `tokenizer.chat_templates` names `tool_use`.
    ///
    /// # Errors
    /// When the metadata cannot be used, or the template has a syntax error.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>, TextError> {
        gguf::template(metadata)
    }

    /// Parses templates that were found.
    pub(super) fn of(found: Found, special_tokens: BTreeMap<&'static str, String>) -> Result<Self, TextError> {
        let Found { path, source, tool_use } = found;
        let template = parse(&path, &source)?;
        let tool_use = tool_use.map(|source| parse(&path, &source)).transpose()?;
        Ok(Self { path, template, tool_use, special_tokens })
    }

    /// The text of a conversation, with the beginning of an answer at its end if `add_generation_prompt`. It
    /// holds its special tokens: encode it without adding others.
    ///
    /// # Errors
    /// When the template refuses the messages, or fails on them.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let arguments = Map::from_iter([(ADD_PROMPT.to_owned(), Value::from(add_generation_prompt))]);
        Ok(self.render_with(messages, &arguments)?.text)
    }

    /// The text of a conversation with arguments for the template, as `apply_chat_template` of transformers takes them:
    /// `tools` and `documents` (lists of objects), `add_generation_prompt` (on if nothing is said), `continue_final_message`
    /// (true, or the field of the last message that the answer continues), and any other variable of the template, such as
    /// `enable_thinking`.
    ///
    /// # Errors
    /// When an argument is not what it must be, or the template refuses the messages or fails on them.
    pub fn render_with(&self, messages: &[Message], arguments: &Map<String, Value>) -> Result<RenderedChat, TextError> {
        let wrong = |reason: String| TextError::TemplateArguments { reason };
        check(arguments).map_err(wrong)?;
        for (index, message) in messages.iter().enumerate() {
            message.check_parts().map_err(|reason| wrong(format!("of message {}, {reason}", index + 1)))?;
        }
        let has_tools = arguments.get("tools").is_some_and(|tools| !tools.is_null());
        let template = self.tool_use.as_ref().filter(|_| has_tools).unwrap_or(&self.template);
        let mut seen: Vec<Value> = messages.iter().map(|message| Value::Object(as_templates_see(message))).collect();
        let continued = match arguments.get(CONTINUE) {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(field) => {
                let field = field.as_str().unwrap_or("content");
                Some(mark_end(seen.last_mut(), field).map_err(wrong)?)
            }
        };
        let rendered = template.render(&self.inputs(&seen, arguments, continued.is_some()));
        let rendered = rendered.map_err(|trouble| self.trouble(trouble))?;
        let warnings = self.warnings(&rendered, messages, arguments);
        let text = match continued {
            None => rendered.text,
            Some(end) => cut_at_mark(rendered.text, &end).map_err(wrong)?,
        };
        Ok(RenderedChat { text, warnings })
    }

    fn inputs<'a>(&'a self, messages: &'a [Value], arguments: &'a Map<String, Value>, continued: bool) -> Inputs<'a> {
        let mut variables: Vec<(&str, Value)> =
            vec![("tools", Value::Null), ("documents", Value::Null), (ADD_PROMPT, Value::from(!continued))];
        let tokens = self.special_tokens.iter().map(|(name, token)| (*name, Value::from(token.as_str())));
        let given = arguments.iter().filter(|(name, _)| *name != CONTINUE);
        for (name, value) in tokens.chain(given.map(|(name, value)| (name.as_str(), value.clone()))) {
            match variables.iter_mut().find(|(known, _)| *known == name) {
                Some((_, held)) => *held = value,
                None => variables.push((name, value)),
            }
        }
        Inputs { messages, variables }
    }

    fn trouble(&self, trouble: Trouble) -> TextError {
        let path = self.path.clone();
        match trouble {
            Trouble::NoThread(stack, source) => TextError::NoThread { path, stack, source },
            Trouble::Failed(Failure { reason, raised: true, .. }) => TextError::Refused { path, reason },
            Trouble::Failed(Failure { reason, .. }) => TextError::Render { path, reason },
        }
    }

    /// Warnings about inputs that the template did not read, a sentence each.
    fn warnings(&self, rendered: &Rendered, messages: &[Message], arguments: &Map<String, Value>) -> Vec<String> {
        let says_something = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        };
        let given =
            arguments.iter().filter(|(name, value)| rendered.unread_variables.contains(name) && says_something(value));
        let mut ignored: Vec<String> = given.map(|(name, _)| format!("`{name}`")).collect();
        let mut fields: Vec<(&str, Vec<usize>)> = Vec::new();
        for (index, name) in &rendered.unread_fields {
            let Some(message) = messages.get(*index) else { continue };
            let is_unread = |name: &str| rendered.unread_fields.iter().any(|(at, other)| at == index && other == name);
            // One of its names is enough.
            let read_elsewhere =
                REASONING.contains(&name.as_str()) && !REASONING[..2].iter().all(|name| is_unread(name));
            let is_given = message.fields().get(name).is_some_and(says_something);
            if !is_given || read_elsewhere || name == "role" {
                continue;
            }
            let Some((name, _)) = message.fields().get_key_value(name) else { continue };
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, places)) => places.push(index + 1),
                None => fields.push((name, vec![index + 1])),
            }
        }
        ignored.extend(fields.iter().map(|(name, places)| format!("`{name}` of {}", messages_at(places))));
        if ignored.is_empty() {
            return Vec::new();
        }
        let path = crate::visible::shown_path(&self.path);
        vec![format!(
            "The chat template of {path} does not look at {}, so the model sees nothing of it.",
            ignored.join(", ")
        )]
    }
}

fn messages_at(places: &[usize]) -> String {
    match places {
        [place] => format!("message {place}"),
        _ => {
            let shown: Vec<String> = places.iter().take(5).map(ToString::to_string).collect();
            format!("messages {}{}", shown.join(", "), if places.len() > 5 { " and more" } else { "" })
        }
    }
}

/// Checks arguments by their names; the error is the middle of a sentence.
fn check(arguments: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in arguments {
        let fits = match (name.as_str(), value) {
            ("messages", _) => return Err("`messages` cannot be given twice".to_owned()),
            ("tools" | "documents", Value::Array(items)) => items.iter().all(Value::is_object),
            ("tools" | "documents", other) => other.is_null(),
            (ADD_PROMPT, other) => other.is_boolean(),
            (CONTINUE, other) => other.is_boolean() || other.is_string() || other.is_null(),
            _ => true,
        };
        let wanted = match name.as_str() {
            "tools" | "documents" => "a list of objects",
            ADD_PROMPT => "true or false",
            _ => "true, false or the name of a field",
        };
        if !fits {
            return Err(format!("`{name}` is not {wanted}"));
        }
    }
    let is_on = |name: &str| arguments.get(name).is_some_and(|value| value.is_string() || *value == Value::Bool(true));
    if is_on(ADD_PROMPT) && is_on(CONTINUE) {
        return Err(format!(
            "`{ADD_PROMPT}` begins a new message and `{CONTINUE}` continues the last; keep one of them"
        ));
    }
    Ok(())
}

/// A message as transformers gives it to templates: without fields that are null, and with its reasoning under the names that
/// templates know.
fn as_templates_see(message: &Message) -> Map<String, Value> {
    let fields: Map<String, Value> = message
        .fields()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() else { return fields };
    let thinking = fields.get("thinking").unwrap_or(&reasoning).clone();
    let mut named = Map::from_iter([("thinking".to_owned(), thinking)]);
    named.extend(
        fields.iter().filter(|(name, _)| *name != "thinking").map(|(name, value)| (name.clone(), value.clone())),
    );
    named.insert("reasoning_content".to_owned(), reasoning);
    named
}

/// Marks the end of a field of the last message; returns what it was.
fn mark_end(message: Option<&mut Value>, field: &str) -> Result<String, String> {
    let message =
        message.and_then(Value::as_object_mut).ok_or_else(|| format!("`{CONTINUE}` has no message to continue"))?;
    let absent = || format!("`{CONTINUE}` is set, and the last message has no text in `{field}`");
    let text = match message.get_mut(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let mut texts = parts.iter_mut().rev().filter_map(|part| part.get_mut("text"));
            let Some(Value::String(text)) = texts.next() else { return Err(absent()) };
            let end = text.clone();
            text.push_str(CONTINUE_TAG);
            return Ok(end);
        }
        _ => return Err(absent()),
    };
    let copies: &[&str] = if REASONING.contains(&field) { &REASONING } else { &[] };
    for name in copies.iter().copied().chain([field]) {
        match message.get_mut(name) {
            Some(Value::String(known)) if *known == text => known.push_str(CONTINUE_TAG),
            _ => {}
        }
    }
    Ok(text)
}

/// Cuts a rendered conversation where its last message ends.
fn cut_at_mark(mut text: String, end: &str) -> Result<String, String> {
    let bare = CONTINUE_TAG.trim_end();
    match text.rfind(bare) {
        Some(at) if text.contains(end.trim()) => {
            let keeps_spacing = text[at..].starts_with(CONTINUE_TAG);
            text.truncate(at);
            if !keeps_spacing {
                text.truncate(text.trim_end().len());
            }
            Ok(text)
        }
        _ => Err(format!("`{CONTINUE}` is set, and the template does not show the last message as it is")),
    }
}

/// The largest template that is read, in bytes; real ones have under 30 kB.
const LARGEST_TEMPLATE: usize = 64 << 10;

/// The template of `path`.
fn parse(path: &Path, source: &str) -> Result<Template, TextError> {
    let path = path.to_owned();
    if source.len() > LARGEST_TEMPLATE {
        let length = source.len();
        let reason = format!("it has {length} bytes, and {LARGEST_TEMPLATE} is the most that is read");
        return Err(TextError::Template { path, reason });
    }
    Template::parse(source).map_err(|trouble| match trouble {
        Trouble::NoThread(stack, source) => TextError::NoThread { path, stack, source },
        Trouble::Failed(Failure { reason, .. }) => TextError::Template { path, reason },
    })
}

/// Templates with the file that holds them.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) source: String,
    pub(super) tool_use: Option<String>,
}

impl Found {
    /// Of several templates with names: `default`, and `tool_use` for tools.
    pub(super) fn named(path: PathBuf, templates: &[NamedTemplate]) -> Result<Self, TextError> {
        let named = |name: &str| templates.iter().rfind(|template| template.name == name);
        match named("default") {
            Some(template) => {
                let tool_use = named("tool_use").map(|template| template.template.clone());
                Ok(Self { path, source: template.template.clone(), tool_use })
            }
            None => {
                let names: Vec<&str> = templates.iter().map(|template| template.name.as_str()).collect();
                Err(TextError::Template { path, reason: format!("none of {names:?} is named default") })
            }
        }
    }
}

/// The templates of a directory.
fn find(dir: &Path, stored: Option<StoredTemplate>) -> Result<Option<Found>, TextError> {
    // Longer ones are told with their length where they are parsed.
    let optional = |path: &Path| match read_text(path, 16 * LARGEST_TEMPLATE as u64) {
        Ok(source) => Ok(Some(source)),
        Err(FileError::Absent { .. }) => Ok(None),
        Err(error) => Err(TextError::from(error)),
    };
    let path = dir.join("chat_template.jinja");
    if let Some(source) = optional(&path)? {
        let tool_use = optional(&dir.join("additional_chat_templates").join("tool_use.jinja"))?;
        return Ok(Some(Found { path, source, tool_use }));
    }
    let (path, stored) = match stored {
        Some(stored) => (dir.join("tokenizer_config.json"), Some(stored)),
        None => {
            let path = dir.join("chat_template.json");
            let settings = Settings::read_file(&path)?;
            (path, settings.and_then(|settings| settings.chat_template))
        }
    };
    match stored {
        None => Ok(None),
        Some(StoredTemplate::One(source)) => Ok(Some(Found { path, source, tool_use: None })),
        Some(StoredTemplate::Named(templates)) => Found::named(path, &templates).map(Some),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn read(files: &[(&str, String)]) -> Result<Option<ChatTemplate>, TextError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        ChatTemplate::from_dir(dir.path())
    }

    fn template(source: &str) -> Result<Option<ChatTemplate>, TextError> {
        let settings = json!({"chat_template": source, "bos_token": "<s>", "eos_token": {"content": "</s>"}});
        read(&[("tokenizer_config.json", settings.to_string())])
    }

    fn render(source: &str, messages: &[(&str, &str)], prompt: bool) -> Result<String, TextError> {
        let messages: Vec<Message> = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
        template(source)?.unwrap().render(&messages, prompt)
    }

    const TALK: [(&str, &str); 3] = [("system", "Be brief. "), ("user", " Hi <b>"), ("assistant", "Hello")];

    #[test]
    fn a_template_that_would_not_end_is_ended() {
        let source = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(matches!(render(source, &[("user", "Hi")], true), Err(TextError::Render { .. })));
    }

    #[test]
    fn chatml_style() {
        let source = "{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
";
        let expected =
            "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(render(source, &[("user", "Hi")], true).unwrap(), expected);
        let expected = "<|im_start|>system\nBe brief. <|im_end|>\n<|im_start|>user\n Hi <b><|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n";
        assert_eq!(render(source, &TALK, false).unwrap(), expected);
    }

    #[test]
    fn header_style_with_slices_and_dates() {
        let source = "{{- bos_token }}{% if not date is defined %}{% set date = strftime_now('%Y') %}{% endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'].strip() %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{%- if tools is not none %}never{% endif %}
{{- '<|h|>system<|/h|>\\n\\n' ~ (date | length) ~ ' ' ~ system ~ '<|eot|>' }}
{%- for m in messages %}
    {%- if not (m.role == 'ipython' or 'tool_calls' in m) %}
        {{- '<|h|>' + m['role'] + '<|/h|>\\n\\n' + m.get('content', '') | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}";
        let expected = "<s><|h|>system<|/h|>\n\n4 Be brief.<|eot|><|h|>user<|/h|>\n\nHi <b><|eot|><|h|>assistant<|/h|>\n\nHello<|eot|>";
        assert_eq!(render(source, &TALK, false).unwrap(), expected);
    }

    #[test]
    fn instruction_style_refuses_roles_out_of_turn() {
        let source =
            "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate') }}{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{ ' ' + message['content'].split('##')[-1].lstrip() + eos_token }}{% endif %}{% endfor %}";
        let talk = [("user", "Hi"), ("assistant", "a##  Hello")];
        assert_eq!(render(source, &talk, false).unwrap(), "<s>[INST] Hi [/INST] Hello</s>");
        let error = render(source, &TALK, false).unwrap_err();
        assert!(matches!(error, TextError::Refused { .. }));
        assert!(error.to_string().ends_with("refuses these messages: Roles must alternate."), "{error}");
    }

    #[test]
    fn qwen_style_namespaces_json_and_generation_marks() {
        let source = "{%- set ns = namespace(last=-1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if message.role.startswith('user') and not ns.found %}{% set ns.last = loop.revindex0 %}{% set ns.found = true %}{% break %}{% endif %}
{%- endfor %}
{{- ns.last }} {{ messages[1] | tojson }} {{ {'a': [1, 2.5, none, true]} | tojson(indent=1) }}
{% for key, value in messages[2].items() %}{% generation %}{{ key }}={{ value }}{% endgeneration %};{% endfor %}{{ none }}{{ missing }}";
        let expected = "1 {\"role\": \"user\", \"content\": \" Hi <b>\"} {\n \"a\": [\n  1,\n  2.5,\n  null,\n  true\n ]\n}\nrole=assistant;content=Hello;None";
        assert_eq!(render(source, &TALK, false).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_a_sentence() {
        let message = template("{% if %}").unwrap_err().to_string();
        assert!(message.contains("tokenizer_config.json cannot be understood") && message.ends_with('.'), "{message}");
        for source in
            ["{{ messages[0].content.nothing.more }}", "{{ x.y }}", "{{ 'a'.frob() }}", "{{ strftime_now('%Q') }}"]
        {
            let message = render(source, &TALK, true).unwrap_err().to_string();
            assert!(message.contains("failed on these messages") && !message.contains('\n'), "{message}");
        }
    }

    /// `head`, then `open` and `close` around `inside` as often as a template may be long, then `tail`.
    fn nested(head: &str, open: &str, inside: &str, close: &str, tail: &str) -> String {
        let left = LARGEST_TEMPLATE - head.len() - inside.len() - tail.len();
        let times = left / (open.len() + close.len());
        let source = [head, &open.repeat(times), inside, &close.repeat(times), tail].concat();
        assert!(source.len() <= LARGEST_TEMPLATE && source.len() > LARGEST_TEMPLATE - 64);
        source
    }

    #[test]
    fn no_template_overflows_the_stack() {
        for (head, open, inside, close, tail) in [
            ("{{", "-", "1", "", "}}"),
            ("{{", "not ", "1", "", "}}"),
            ("{{1", "~1", "", "", "}}"),
            ("{{1", "**1", "", "", "}}"),
            ("{{1", "+1", "", "", "}}"),
            ("{{0", " or 0", "", "", "}}"),
            ("{{a", ".b", "", "", "}}"),
            ("{{a", "[0]", "", "", "}}"),
            ("{{a", "()", "", "", "}}"),
            ("{{a", "|e", "", "", "}}"),
            ("{{a", " is e", "", "", "}}"),
            ("{{a", "<a", "", "", "}}"),
            ("{{", "''if''else ", "a", "", "}}"),
            ("{{1", " if 1", "", "", "}}"),
            ("{%set ", "(", "a", ")", "=1%}"),
            ("{%set a", ".b", "", "", "=1%}"),
            ("{%if a%}", "{%elif a%}", "", "", "{%endif%}"),
            ("{{", "(", "a", ")", "}}"),
            ("{{", "[", "a", "]", "}}"),
            ("{{", "{1:", "a", "}", "}}"),
            ("{{", "a(", "a", ")", "}}"),
            ("{{", "a[", "a", "]", "}}"),
            ("{{", "a|e(", "a", ")", "}}"),
            ("{{", "a is e(", "a", ")", "}}"),
            ("", "{%if a%}", "x", "{%endif%}", ""),
            ("", "{%for a in b%}", "x", "{%endfor%}", ""),
            ("", "{%macro a()%}", "x", "{%endmacro%}", ""),
            ("", "{%call a()%}", "x", "{%endcall%}", ""),
            ("", "{%filter e%}", "x", "{%endfilter%}", ""),
            ("", "{%set a%}", "x", "{%endset%}", ""),
            ("{%set ", "(", "", "", ""),
            ("", "{{", "", "", ""),
            ("", "{#", "", "", ""),
            ("", "{%raw%}", "", "", ""),
            ("{{'", "\\", "", "", "'}}"),
        ] {
            let source = nested(head, open, inside, close, tail);
            // It is read and fails or not: what counts is that it comes back, with a sentence where it fails.
            let result = render(&source, &TALK, true);
            if let Err(error) = result {
                let message = error.to_string();
                assert!(message.ends_with('.') && message.len() < 500, "{head}{open}{open}: {message}");
            }
        }
    }

    #[test]
    fn templates_of_no_sensible_size_are_refused() {
        let (fits, larger) = ("x".repeat(LARGEST_TEMPLATE), "x".repeat(LARGEST_TEMPLATE + 1));
        let config = |source: &String| ("tokenizer_config.json", json!({"chat_template": source}).to_string());
        let jinja = |source: &String| ("chat_template.jinja", source.clone());
        for (fits, larger) in [(config(&fits), config(&larger)), (jinja(&fits), jinja(&larger))] {
            assert_eq!(read(&[fits]).unwrap().unwrap().render(&[], false).unwrap().len(), LARGEST_TEMPLATE);
            let message = read(&[larger]).unwrap_err().to_string();
            assert!(message.contains("65536") && message.ends_with('.'), "{message}");
        }
    }

    #[test]
    fn templates_are_found_where_transformers_finds_them() {
        let named = |name: &str| json!({"chat_template": [{"name": "tool_use", "template": "no"}, {"name": name, "template": "list"}]});
        let jinja = ("chat_template.jinja", "file".to_owned());
        let json = ("chat_template.json", json!({"chat_template": "json"}).to_string());
        let config = ("tokenizer_config.json", named("default").to_string());
        for (files, expected) in [
            (vec![jinja, config.clone(), json.clone()], "file"),
            (vec![config, json.clone()], "list"),
            (vec![json], "json"),
        ] {
            assert_eq!(read(&files).unwrap().unwrap().render(&[], false).unwrap(), expected);
        }
        assert!(read(&[]).unwrap().is_none());
        let message = read(&[("tokenizer_config.json", named("rag").to_string())]).unwrap_err().to_string();
        assert!(message.contains("none of [\"tool_use\", \"rag\"] is named default"), "{message}");
    }
}
