//! Chat templates: from messages to the text that a model was tuned on, rendered as transformers renders them
//! with Jinja2.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

use super::{Settings, StoredTemplate, TextError};
use crate::checkpoint::{FileError, read_text};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The file that holds it, for messages.
    path: PathBuf,
    environment: Environment<'static>,
    /// `bos_token` and the like, as far as the tokenizer has them.
    special_tokens: BTreeMap<&'static str, String>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Reads the template of a model directory, `None` if it has none. As in transformers,
    /// `chat_template.jinja` goes before `tokenizer_config.json`, and that before `chat_template.json`; of
    /// several templates the one named `default` is taken.
    ///
    /// # Errors
    /// When a file cannot be read or understood, or the template has a syntax error.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TextError> {
        let settings = Settings::read(dir)?;
        let special_tokens = settings.special_tokens().map(|(name, token)| (name, token.to_owned())).collect();
        let Some((path, source)) = find(dir, settings.chat_template)? else { return Ok(None) };
        let environment = parse(&path, &source)?;
        Ok(Some(Self { path, environment, special_tokens }))
    }

    /// The text of a conversation, with the beginning of an answer at its end if `add_generation_prompt`. It
    /// holds its special tokens: encode it without adding others.
    ///
    /// # Errors
    /// When the template refuses the messages, or fails on them.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let messages: Vec<Value> = messages.iter().cloned().map(Value::from_object).collect();
        let fixed = [
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let tokens = self.special_tokens.iter().map(|(name, token)| (*name, Value::from(token.as_str())));
        let context: Kwargs = fixed.into_iter().chain(tokens).collect();
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(Value::from(context)));
        rendered.map_err(|error| match refusal(&error) {
            Some(reason) => TextError::Refused { path: self.path.clone(), reason },
            None => TextError::Render { path: self.path.clone(), reason: error.to_string() },
        })
    }
}

/// The largest template that is read, in bytes; real ones have under 30 kB.
const LARGEST_TEMPLATE: usize = 64 << 10;

/// The stack to parse a template on. The engine limits how deep parentheses, lists and blocks are nested, but not
/// chains of operators, on which its parser, its compiler and the drop of its syntax tree recurse, up to once a
/// byte. Of fifty such templates of 64 KiB each, `{{---...1}}` took the most in a release build, 28 MiB, and
/// `{%set (((...` in a debug build, 180 MiB (minijinja 3.0.5 on x86-64). What is not used is never committed.
const PARSER_STACK: usize = 256 << 20;

/// The engine with the template of `path` in it.
fn parse(path: &Path, source: &str) -> Result<Environment<'static>, TextError> {
    let failed = |reason: String| TextError::Template { path: path.to_owned(), reason };
    if source.len() > LARGEST_TEMPLATE {
        let length = source.len();
        return Err(failed(format!("it has {length} bytes, and {LARGEST_TEMPLATE} is the most that is read")));
    }
    let parsed = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, || environment(source))?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    match parsed {
        Ok(environment) => environment.map_err(|error| failed(error.to_string())),
        Err(source) => Err(TextError::NoThread { path: path.to_owned(), stack: PARSER_STACK >> 20, source }),
    }
}

/// The template of a directory with the file that holds it.
fn find(dir: &Path, stored: Option<StoredTemplate>) -> Result<Option<(PathBuf, String)>, TextError> {
    let path = dir.join("chat_template.jinja");
    match read_text(&path, LARGEST_TEMPLATE as u64) {
        Ok(source) => return Ok(Some((path, source))),
        Err(FileError::Absent { .. }) => {}
        Err(error) => return Err(error.into()),
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
        Some(StoredTemplate::One(source)) => Ok(Some((path, source))),
        Some(StoredTemplate::Named(templates)) => {
            let names: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
            match templates.into_iter().find(|template| template.name == "default") {
                Some(template) => Ok(Some((path, template.template))),
                None => Err(TextError::Template { path, reason: format!("none of {names:?} is named default") }),
            }
        }
    }
}

/// Steps a template may take: thousands of messages' worth, and an end to one that would loop for ever.
const FUEL: u64 = 10_000_000;

/// The engine, set up as transformers sets up Jinja2, with the template in it.
fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
        Err(error.with_source(Refusal(reason)))
    });
    environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        strftime(&format, now).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment.add_template_owned(NAME, without_generation_marks(source))?;
    Ok(environment)
}

/// What a template says when it raises an exception.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn refusal(error: &Error) -> Option<String> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(Refusal(reason)) = error.downcast_ref() {
            return Some(reason.clone());
        }
        source = error.source();
    }
    None
}

/// A message as templates see it: a map with its keys in the order of Python's, which `tojson` and `items()` show.
impl Object for Message {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "role" => Some(Value::from(self.role.as_str())),
            "content" => Some(Value::from(self.content.as_str())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}

/// `tojson` as transformers defines it: Python's `json.dumps`, nothing escaped for HTML.
#[allow(clippy::needless_pass_by_value)] // The engine calls it with values.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, PythonFormatter)),
        Some(width) => {
            let spaces = " ".repeat(width.min(64));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        }
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    String::from_utf8(json).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// A space after every comma and colon.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// transformers marks an assistant's words by `{% generation %}` blocks, which change nothing in the text.
/// They become `{% if true %}` with the same whitespace control.
fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, block)) = rest.split_once("{%") {
        let Some((inner, after)) = block.split_once("%}") else { break };
        let word = inner.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        let replacement = match word {
            "generation" => inner.replace("generation", "if true"),
            "endgeneration" => inner.replace("endgeneration", "endif"),
            _ => inner.to_owned(),
        };
        for part in [before, "{%", &replacement, "%}"] {
            result.push_str(part);
        }
        rest = after;
    }
    result + rest
}

/// `format` filled in as by C's strftime in the English locale, for a time in seconds since 1970 (UTC).
///
/// # Errors
/// The rest of a sentence, if a directive is not known.
pub fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    // Howard Hinnant's civil_from_days, for days from 1970 on: years begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let in_year = if month <= 2 { day_of_year - 306 } else { day_of_year + 59 + u64::from(leap) } + 1;
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
    };
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, days % 7));
    let short = |name: &'static str| name.get(..3).unwrap_or(name).to_owned();
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        text += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => {
                if padded {
                    format!("{day:2}")
                } else {
                    day.to_string()
                }
            }
            Some('j') => {
                if padded {
                    format!("{in_year:03}")
                } else {
                    in_year.to_string()
                }
            }
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => short(month_name),
            Some('A') => day_name.to_owned(),
            Some('a') => short(day_name),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_owned(),
            Some(other) => return Err(format!("strftime_now does not know %{other}")),
            None => return Err("the format of strftime_now ends in a single %".to_owned()),
        };
    }
    Ok(text)
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
        let message = |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
        let messages: Vec<Message> = messages.iter().map(message).collect();
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
            ("{{1", "if 1", "", "", "}}"),
            ("{%set ", "(", "a", ")", "=1%}"),
            ("{%set a", ".b", "", "", "=1%}"),
            ("{%do a", "()", "", "", "%}"),
            ("{%if a%}", "{%elif a%}", "", "", "{%endif%}"),
        ] {
            let source = nested(head, open, inside, close, tail);
            assert!(parse(Path::new("it"), &source).is_ok(), "{head}{open}{open}..");
        }
        for (head, open, inside, close, tail) in [
            ("{{", "(", "a", ")", "}}"),
            ("{{", "[", "a", "]", "}}"),
            ("{{", "{1:", "a", "}", "}}"),
            ("{{", "a(", "a", ")", "}}"),
            ("", "{%if a%}", "x", "{%endif%}", ""),
            ("", "{%for a in b%}", "x", "{%endfor%}", ""),
            ("{%set ", "(", "", "", ""),
        ] {
            let source = nested(head, open, inside, close, tail);
            let message = parse(Path::new("it"), &source).unwrap_err().to_string();
            assert!(message.contains("recursion") || message.contains("end of input"), "{head}{open}{open}: {message}");
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

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %H:%M:%S %j %A %b %-d %e %I%p %%";
        assert_eq!(strftime(format, 0).unwrap(), "1970-01-01 00:00:00 001 Thursday Jan 1  1 12AM %");
        assert_eq!(strftime(format, 951_782_399).unwrap(), "2000-02-28 23:59:59 059 Monday Feb 28 28 11PM %");
        assert_eq!(strftime("%F %j %a", 951_782_400).unwrap(), "2000-02-29 060 Tue");
        assert_eq!(strftime("%F %j %d %B %y", 1_767_225_599).unwrap(), "2025-12-31 365 31 December 25");
        assert_eq!(strftime("%F %j", 1_709_251_200).unwrap(), "2024-03-01 061");
        assert!(strftime("%", 0).is_err());
    }
}
