//! Ways to damage a file: its bytes, its text, the JSON or the safetensors header in it.

use serde_json::{Map, Value};

/// Random numbers that are the same everywhere (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    /// Whether something happens that does once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How the inside of a file is made, so that damage gets past its first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON, one document.
    Json,
    /// JSON, a document a line.
    JsonLines,
    /// Text: TOML, templates.
    Text,
    /// safetensors: eight bytes of length, a header of JSON, data. Texts in its metadata are JSON again.
    Safetensors,
    /// GGUF: numbers and texts, then data.
    Gguf,
}

/// Texts that mean something to one reader or another.
const WORDS: &[&str] = &[
    "",
    "F32",
    "F64",
    "U8",
    "BF16",
    "F8_E4M3",
    "llama",
    "qwen3",
    "mistral",
    "../x",
    "/dev/zero",
    "a\nb",
    "\u{1b}[2J",
    "\u{0}",
    "yarn",
    "llama3",
    "dynamic",
    "Sequence",
    "Precompiled",
    "Replace",
    "NFKD",
    "ByteLevel",
    "(a+)+$",
    "(?:x{999}){999}",
    "model.norm.weight",
    "1e400",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'a' * 1000000000 }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x = messages %}{% for i in range(40) %}{% set x = x + x %}{% endfor %}{{ x }}",
    "{{",
    "{% if",
    "{% include 'x' %}",
    "{{ messages[0].content.replace('', 'aaaaaaaaaaaaaaaa') }}",
    "{{ range(1000000000) | list }}",
    "{{ '%99999999d' % 1 }}",
];

/// Numbers at the borders of types and of sense.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "64",
    "127",
    "128",
    "255",
    "65535",
    "65536",
    "16777217",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e-320",
    "1e-30",
    "0.5",
    "1e30",
    "3.5e38",
    "1e300",
    "1e400",
    "-0.0",
    "1e-400",
    "99999999999999999999999999999999999999",
];

/// How often something huge is repeated.
const MANY: &[usize] = &[2, 3, 17, 130, 1_000, 20_000];

/// The most bytes of an input: a file of this size is read in a moment.
const LARGEST: usize = 1 << 19;

/// A damaged copy of one of the seeds.
pub(crate) fn damaged(seeds: &[Vec<u8>], form: Form, random: &mut Random) -> Vec<u8> {
    let mut bytes = random.choose(seeds).clone();
    for _ in 0..1 + random.below(3) {
        bytes = match (form, random.below(8)) {
            (_, 0 | 1) | (Form::Text, 2) => damage_bytes(bytes, seeds, random),
            (Form::Text, _) | (Form::Json | Form::JsonLines | Form::Safetensors, 2) => damage_text(bytes, random),
            (Form::Gguf, _) => damage_a_field(bytes, random),
            (Form::Safetensors, _) => damage_header(bytes, random),
            (Form::Json, _) => damage_json(&bytes, random).unwrap_or(bytes),
            (Form::JsonLines, _) => damage_a_line(&bytes, random),
        };
    }
    bytes.truncate(LARGEST);
    bytes
}

/// A range of `length` bytes at most within so many.
fn range(all: usize, length: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(all + 1);
    start..(start + random.below(length + 1)).min(all)
}

fn damage_bytes(mut bytes: Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let all = bytes.len();
    match random.below(8) {
        0 if all > 0 => bytes[random.below(all)] ^= 1 << random.below(8),
        1 if all > 0 => {
            bytes[random.below(all)] = *random.choose(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\n', b'0']);
        }
        // The first bytes are lengths in some formats.
        2 if all > 8 => bytes[random.below(8)] = random.below(256) as u8,
        3 => bytes.truncate(random.below(all + 1)),
        4 => drop(bytes.drain(range(all, 64, random))),
        5 => {
            let copied = bytes[range(all, 4096, random)].to_vec();
            let at = random.below(all + 1);
            bytes.splice(at..at, copied);
        }
        6 => {
            let other = random.choose(seeds);
            let copied = other[range(other.len(), 4096, random)].to_vec();
            let place = range(all, 256, random);
            bytes.splice(place, copied);
        }
        _ => {
            let copied = bytes[range(all, 32, random)].to_vec();
            let times = (*random.choose(MANY)).min(LARGEST / copied.len().max(1));
            let at = random.below(all + 1);
            bytes.splice(at..at, copied.repeat(times));
        }
    }
    bytes
}

/// Numbers that are at the end of something: of a type, of what is allowed, of kinds of values and tensors.
const FIELDS: &[u64] = &[
    0,
    1,
    2,
    3,
    5,
    7,
    8,
    9,
    12,
    13,
    30,
    31,
    32,
    33,
    64,
    255,
    256,
    257,
    65_535,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 53,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Writes a number where a field may be: behind a name in the header, mostly, as names tell where fields begin.
fn damage_a_field(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    const NAMES: &[&[u8]] =
        &[b"llama.", b"qwen2.", b"tokenizer.", b"general.", b"blk.", b"token_", b"output", b"split."];
    let name = *random.choose(NAMES);
    let places: Vec<usize> =
        bytes.windows(name.len()).enumerate().filter(|(_, found)| *found == name).map(|(at, _)| at).collect();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._".contains(byte);
    let at = match places.is_empty() || random.once_in(4) {
        // The version and the counts.
        true => random.below(24),
        false => {
            let start = *random.choose(&places);
            let end = start + bytes[start..].iter().take_while(|byte| is_name(byte)).count();
            // Before the name its length, behind it a kind, or a tensor's dimensions, sizes, type and offset.
            *random.choose(&[
                start.saturating_sub(8),
                end,
                end + 4,
                end + 8,
                end + 12,
                end + 16,
                end + 20,
                end + 24,
                end + 28,
            ])
        }
    };
    let number = *random.choose(FIELDS);
    let number = if random.once_in(4) { number.wrapping_add(random.next() % 64) } else { number };
    let width = if random.once_in(2) { 4 } else { 8 };
    for (to, from) in bytes.iter_mut().skip(at).zip(number.to_le_bytes()).take(width) {
        *to = from;
    }
    bytes
}

fn damage_text(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let Ok(text) = String::from_utf8(bytes.clone()) else { return damage_bytes(bytes, &[Vec::new()], random) };
    let mut lines: Vec<&str> = text.split('\n').collect();
    match random.below(6) {
        // A number becomes another.
        0 | 1 => {
            let starts: Vec<usize> = text
                .char_indices()
                .filter(|&(at, c)| c.is_ascii_digit() && !text[..at].ends_with(|before: char| before.is_ascii_digit()))
                .map(|(at, _)| at)
                .collect();
            if starts.is_empty() {
                return text.into_bytes();
            }
            let start = *random.choose(&starts);
            let end =
                text[start..].find(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(text.len(), |end| start + end);
            return format!("{}{}{}", &text[..start], random.choose(NUMBERS), &text[end..]).into_bytes();
        }
        2 => drop(lines.remove(random.below(lines.len()))),
        3 => {
            let line = lines[random.below(lines.len())];
            let at = random.below(lines.len());
            let times = (*random.choose(MANY)).min(LARGEST / (line.len() + 1));
            lines.splice(at..at, std::iter::repeat_n(line, times));
        }
        4 => {
            let (a, b) = (random.below(lines.len()), random.below(lines.len()));
            lines.swap(a, b);
        }
        _ => {
            let at = (0..=text.len()).filter(|&at| text.is_char_boundary(at));
            let places: Vec<usize> = at.collect();
            let at = *random.choose(&places);
            let word = if random.once_in(4) { nested(random) } else { (*random.choose(WORDS)).to_owned() };
            return format!("{}{word}{}", &text[..at], &text[at..]).into_bytes();
        }
    }
    lines.join("\n").into_bytes()
}

/// Something that opens brackets without end.
fn nested(random: &mut Random) -> String {
    let (open, close) = *random.choose(&[
        ("[", "]"),
        ("{\"a\":", "}"),
        ("(", ")"),
        ("{% if x %}", "{% endif %}"),
        ("{{ (", ") }}"),
        ("-", ""),
        ("not ", ""),
    ]);
    let depth = *random.choose(&[100, 127, 129, 1_000, 20_000]);
    let inner = if open == "{\"a\":" { "1" } else { "" };
    format!("{}{inner}{}", open.repeat(depth), if random.once_in(3) { String::new() } else { close.repeat(depth) })
}

/// Stands for what a tree of values cannot hold, until the tree is text.
const PLACEHOLDER: &str = "a-place-to-be-replaced";

/// JSON of which one value was changed; `None` if it is none.
fn damage_json(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let all = count(&document);
    let copied = nth(&mut document, &mut random.below(all))?.clone();
    let value = nth(&mut document, &mut random.below(all))?;
    let mut text = None;
    match random.below(12) {
        0 | 1 => text = Some((*random.choose(NUMBERS)).to_owned()),
        2 => *value = Value::from(*random.choose(WORDS)),
        3 => {
            *value = random
                .choose(&[Value::Null, true.into(), false.into(), Value::Array(Vec::new()), Value::Object(Map::new())])
                .clone();
        }
        4 => *value = copied,
        5 => text = Some(nested(random)),
        6 => {
            let times = (*random.choose(MANY)).min(LARGEST / (1 + copied.to_string().len()));
            *value = Value::Array(vec![copied; times]);
        }
        7 => *value = Value::String("x".repeat(*random.choose(MANY))),
        8 => change_a_key(value, random),
        9 => remove_a_part(value, random),
        10 => {
            let times = *random.choose(MANY);
            if let Value::Object(fields) = value {
                fields.extend((0..times).map(|n| (format!("field {n}"), Value::from(n))));
            }
        }
        _ => {
            if let Value::Array(parts) = value {
                parts.push(copied);
            }
        }
    }
    if text.is_some() {
        *value = Value::from(PLACEHOLDER);
    }
    let written = document.to_string();
    Some(match text {
        Some(text) => written.replacen(&format!("\"{PLACEHOLDER}\""), &text, 1).into_bytes(),
        None => written.into_bytes(),
    })
}

fn change_a_key(value: &mut Value, random: &mut Random) {
    let Value::Object(fields) = value else { return };
    let keys: Vec<String> = fields.keys().cloned().collect();
    if keys.is_empty() {
        return;
    }
    let old = random.choose(&keys);
    let new = if random.once_in(2) { random.choose(&keys).clone() } else { (*random.choose(WORDS)).to_owned() };
    if let Some(part) = fields.remove(old) {
        fields.insert(new, part);
    }
}

fn remove_a_part(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).cloned();
            key.and_then(|key| fields.remove(&key));
        }
        Value::Array(parts) if !parts.is_empty() => drop(parts.remove(random.below(parts.len()))),
        _ => {}
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(parts) => parts.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value of this number, depth first.
fn nth<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(parts) => parts.iter_mut().find_map(|part| nth(part, number)),
        Value::Object(fields) => fields.values_mut().find_map(|part| nth(part, number)),
        _ => None,
    }
}

fn damage_a_line(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = random.below(lines.len());
    if let Some(damaged) = damage_json(&lines[line], random) {
        lines[line] = damaged;
    }
    lines.join(&b'\n')
}

/// A safetensors file whose header was changed, with the length that belongs to it or another.
fn damage_header(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let split = |bytes: &[u8]| {
        let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
        Some((bytes.get(8..length.checked_add(8)?)?.to_vec(), bytes.get(8 + length..)?.to_vec()))
    };
    let Some((header, data)) = split(&bytes) else { return bytes };
    let inside = if random.once_in(2) { damage_metadata(&header, random) } else { None };
    let Some(header) = inside.or_else(|| damage_json(&header, random)) else { return bytes };
    let length = if random.once_in(20) { random.next() >> random.below(64) } else { header.len() as u64 };
    [&length.to_le_bytes()[..], &header, &data].concat()
}

/// The header with a change inside the JSON that its metadata holds as text.
fn damage_metadata(header: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(header).ok()?;
    let metadata = document.get_mut("__metadata__")?.as_object_mut()?;
    let text = metadata.values_mut().find(|text| text.as_str().is_some_and(|text| text.starts_with('{')))?;
    let damaged = damage_json(text.as_str()?.as_bytes(), random)?;
    *text = Value::String(String::from_utf8(damaged).ok()?);
    Some(document.to_string().into_bytes())
}
