//! A template's text cut into tokens, by the rules of Jinja's lexer with `trim_blocks` and `lstrip_blocks`.

use std::sync::Arc;

use super::pystr::is_space;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags.
    Data(Arc<str>),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(Arc<str>),
    Text(Arc<str>),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longer ones first.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";", "!",
];

/// The tokens of a template with their lines.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, usize)>, String> {
    let normalized = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = normalized.strip_suffix('\n').unwrap_or(&normalized);
    let mut lexer = Lexer { source, position: 0, line: 1, at_line_start: true, tokens: Vec::new() };
    lexer.run().map_err(|reason| format!("{reason} (line {})", lexer.line))?;
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    position: usize,
    line: usize,
    /// True if what was read last ended a line.
    at_line_start: bool,
    tokens: Vec<(Token, usize)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.position..).unwrap_or_default()
    }

    /// Moves on by `length` bytes.
    fn advance(&mut self, length: usize) {
        let passed = self.rest().get(..length).unwrap_or_default();
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count();
        if !passed.is_empty() {
            self.at_line_start = passed.ends_with('\n');
        }
        self.position += length;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.rest().is_empty() {
            let rest = self.rest();
            let begins_tag = |brace: &usize| matches!(rest.as_bytes().get(brace + 1), Some(b'%' | b'{' | b'#'));
            let Some(start) = rest.match_indices('{').map(|(brace, _)| brace).find(begins_tag) else {
                self.push(Token::Data(rest.into()));
                self.advance(rest.len());
                break;
            };
            let (text, tag) = rest.split_at(start);
            let kind = tag.as_bytes().get(1).copied().unwrap_or_default();
            let sign = tag.chars().nth(2).filter(|sign| matches!(sign, '-' | '+'));
            let text = self.before_tag(text, sign, kind != b'{');
            if !text.is_empty() {
                self.push(Token::Data(text.into()));
            }
            self.advance(start);
            let begin = 2 + sign.map_or(0, char::len_utf8);
            match kind {
                b'{' => {
                    self.push(Token::PrintBegin);
                    self.advance(begin);
                    self.inside("}}", false)?;
                    self.push(Token::PrintEnd);
                }
                b'#' => self.comment(begin)?,
                _ => match raw_begin(tag, begin, "raw") {
                    Some(length) => self.raw(length)?,
                    None => {
                        self.push(Token::BlockBegin);
                        self.advance(begin);
                        self.inside("%}", true)?;
                        self.push(Token::BlockEnd);
                    }
                },
            }
        }
        Ok(())
    }

    /// Text before a tag, after whitespace control.
    fn before_tag<'t>(&self, text: &'t str, sign: Option<char>, is_block: bool) -> &'t str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if is_block => {
                let line = text.rfind('\n').map_or(0, |end| end + 1);
                let blank = text[line..].chars().all(is_space);
                if blank && (line > 0 || self.at_line_start) { &text[..line] } else { text }
            }
            _ => text,
        }
    }

    /// A comment that begins here.
    fn comment(&mut self, begin: usize) -> Result<(), String> {
        let text = self.rest().get(begin..).unwrap_or_default();
        let end = text.find("#}").ok_or("a comment has no end")?;
        let trimmed = text[..end].ends_with('-');
        self.advance(begin + end + 2);
        self.after_tag(trimmed, !text[..end].ends_with('+'));
        Ok(())
    }

    /// Passes over what the end of a tag takes with it.
    fn after_tag(&mut self, trimmed: bool, line_end: bool) {
        let rest = self.rest();
        if trimmed {
            self.advance(rest.len() - rest.trim_start_matches(is_space).len());
        } else if line_end && rest.starts_with('\n') {
            self.advance(1);
        }
    }

    /// Text between `raw` and `endraw`; its first tag has `length` bytes.
    fn raw(&mut self, length: usize) -> Result<(), String> {
        let trimmed = self.rest()[..length].ends_with("-%}");
        self.advance(length);
        self.after_tag(trimmed, false);
        let text = self.rest();
        let mut from = 0;
        while let Some(found) = text[from..].find("{%") {
            let start = from + found;
            let sign = text[start + 2..].chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let begin = 2 + sign.map_or(0, char::len_utf8);
            if let Some(length) = raw_begin(&text[start..], begin, "endraw") {
                let data = self.before_tag(&text[..start], sign, true);
                if !data.is_empty() {
                    self.push(Token::Data(data.into()));
                }
                let tag = &text[start..start + length];
                self.advance(start + length);
                self.after_tag(tag.ends_with("-%}"), !tag.ends_with("+%}"));
                return Ok(());
            }
            from = start + 2;
        }
        Err("raw has no endraw".to_owned())
    }

    /// The tokens inside of a tag up to its end.
    fn inside(&mut self, end: &str, is_block: bool) -> Result<(), String> {
        let mut open = Vec::new();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Err("a tag has no end".to_owned()) };
            if is_space(first) {
                self.advance(first.len_utf8());
                continue;
            }
            if open.is_empty() {
                let sign = if rest.starts_with('-') || is_block && rest.starts_with('+') { 1 } else { 0 };
                if rest[sign..].starts_with(end) {
                    self.advance(sign + end.len());
                    self.after_tag(sign == 1 && first == '-', is_block && sign == 0);
                    return Ok(());
                }
            }
            if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.push(Token::Name(rest[..length].into()));
                self.advance(length);
            } else if first == '\'' || first == '"' {
                self.text(first)?;
            } else {
                self.operator(&mut open)?;
            }
        }
    }

    fn operator(&mut self, open: &mut Vec<char>) -> Result<(), String> {
        let rest = self.rest();
        let found = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
        let found = found.filter(|operator| !matches!(**operator, "!" | ";"));
        let Some(operator) = found else {
            return Err(format!("the character {:?} is unexpected", rest.chars().next().unwrap_or_default()));
        };
        match *operator {
            "{" => open.push('}'),
            "(" => open.push(')'),
            "[" => open.push(']'),
            "}" | ")" | "]" if open.pop() != operator.chars().next() => {
                return Err(format!("{operator:?} closes nothing"));
            }
            _ => {}
        }
        self.push(Token::Operator(operator));
        self.advance(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let after_dot = self.source[..self.position].ends_with('.');
        let digits = |text: &str, from: usize| {
            let tail = text.get(from..).unwrap_or_default();
            let length = tail.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(tail.len());
            from + tail[..length].trim_end_matches('_').len()
        };
        let prefix = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
        if let Some(radix) = [("0x", 16), ("0o", 8), ("0b", 2)].iter().find(|(begin, _)| prefix == *begin) {
            let tail = &rest[2..];
            let length = tail.find(|c: char| !c.is_digit(radix.1) && c != '_').unwrap_or(tail.len());
            let number = i128::from_str_radix(&tail[..length].replace('_', ""), radix.1);
            self.push(Token::Int(number.map_err(|_| "a number is not one, or has more than 127 bits")?));
            self.advance(2 + length);
            return Ok(());
        }
        let whole = digits(rest, 0);
        let mut length = whole;
        if !after_dot {
            let has_digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
            if rest[length..].starts_with('.') && has_digit(length + 1) {
                length = digits(rest, length + 1);
            }
            if rest[length..].starts_with(['e', 'E']) {
                let signed = rest[length + 1..].starts_with(['+', '-']);
                let from = length + 1 + usize::from(signed);
                if has_digit(from) {
                    length = digits(rest, from);
                }
            }
        }
        let text = rest[..length].replace('_', "");
        let token = if length > whole {
            Token::Float(text.parse().map_err(|_| format!("{text:?} is not a number"))?)
        } else {
            Token::Int(text.parse().map_err(|_| format!("the number {text} has more than 127 bits"))?)
        };
        self.push(token);
        self.advance(length);
        Ok(())
    }

    fn text(&mut self, quote: char) -> Result<(), String> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|&(_, letter)| {
            let ends = letter == quote && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let (end, _) = end.ok_or("a text in quotes has no end")?;
        let text = unescape(&rest[1..end])?;
        self.push(Token::Text(text.into()));
        self.advance(end + 1);
        Ok(())
    }
}

/// The length of the tag `{% word %}` at the beginning of `tag`, whose word begins after `begin` bytes at the earliest.
fn raw_begin(tag: &str, begin: usize, word: &str) -> Option<usize> {
    let rest = tag.get(begin..)?.trim_start_matches(is_space).strip_prefix(word)?.trim_start_matches(is_space);
    let end = match word {
        "endraw" if rest.starts_with("+%}") => 3,
        _ if rest.starts_with("-%}") => 3,
        _ if rest.starts_with("%}") => 2,
        _ => return None,
    };
    Some(tag.len() - rest.len() + end)
}

/// A text in quotes with its escapes resolved as in Python.
fn unescape(text: &str) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            result.push(letter);
            continue;
        }
        let Some(escape) = letters.next() else { break };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => {
                let mut code = escape.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    letters.next();
                }
                result.extend(char::from_u32(code));
                continue;
            }
            'N' => return Err("characters by name (\\N{..}) are not supported".to_owned()),
            _ => 0,
        };
        if digits > 0 {
            let code: String = letters.by_ref().take(digits).collect();
            let known = u32::from_str_radix(&code, 16).ok().filter(|_| code.len() == digits).and_then(char::from_u32);
            result.push(known.ok_or_else(|| format!("\\{escape}{code} is not a character"))?);
            continue;
        }
        match escape {
            'n' => result.push('\n'),
            't' => result.push('\t'),
            'r' => result.push('\r'),
            'a' => result.push('\x07'),
            'b' => result.push('\x08'),
            'f' => result.push('\x0c'),
            'v' => result.push('\x0b'),
            '\\' | '\'' | '"' => result.push(escape),
            '\n' => {}
            other => result.extend(['\\', other]),
        }
    }
    Ok(result)
}
