//! The fields of a line of JSON, as they are written: what is not ours goes back as it came, whatever numbers, escapes or
//! repeated names it has.

use anyhow::{anyhow, bail};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::{Map, Value};

use super::wording::in_words;

/// An object's fields in their order, names and values as they are written.
#[derive(Debug, Default)]
pub struct Fields {
    fields: Vec<(String, String)>,
}

impl Fields {
    /// One field, a text.
    pub fn of(name: &str, value: &str) -> Self {
        Self { fields: vec![(Value::from(name).to_string(), Value::from(value).to_string())] }
    }

    /// The names of the fields, without those that are not text (half of a surrogate pair).
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.fields.iter().filter_map(|(name, _)| serde_json::from_str(name).ok())
    }

    /// Leaves fields out.
    pub fn remove(&mut self, names: &[&str]) {
        let is_named =
            |name: &str| serde_json::from_str::<String>(name).is_ok_and(|name| names.contains(&name.as_str()));
        self.fields.retain(|(name, _)| !is_named(name));
    }

    /// The text of a field of ours, as it is written; `null` is how some programs write that there is none.
    ///
    /// # Errors
    /// If it is there twice.
    pub fn text(&self, name: &str) -> Result<Option<&str>, anyhow::Error> {
        let is_it = |known: &str| serde_json::from_str::<String>(known).is_ok_and(|known| known == name);
        let mut found = self.fields.iter().filter(|(known, _)| is_it(known));
        let value = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() {
            bail!("`{name}` is there twice: keep one of them.");
        }
        Ok(value.filter(|value| *value != "null"))
    }

    /// A field of ours as a value of which nothing is lost.
    ///
    /// # Errors
    /// If it is there twice, cannot be read, or has a number that would be another.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, anyhow::Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        numbers_stay(name, text)?;
        serde_json::from_str(text).map(Some).map_err(|error| {
            let (column, message) = (error.column(), error.to_string());
            let reason = message.strip_suffix(&format!(" at line 1 column {column}")).unwrap_or(&message);
            anyhow!("`{name}` cannot be used ({})", in_words(reason))
        })
    }

    /// The object with further fields behind these.
    pub fn object_with(self, more: &Map<String, Value>) -> String {
        let own = self.fields.into_iter().map(|(name, value)| format!("{name}:{value}"));
        let more = more.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())));
        let fields: Vec<String> = own.chain(more).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// Reads the object on a line; what the names and values say is not looked at.
///
/// # Errors
/// A reason with its column, if the line is not an object.
pub fn read(line: &str) -> Result<Fields, serde_json::Error> {
    let mut fields = Vec::new();
    let mut rest = Rest { line, at: 0 };
    if rest.sign() != Some('{') {
        return Err(rest.wrong("an object"));
    }
    rest.at += 1;
    if rest.sign() == Some('}') {
        rest.at += 1;
        return rest.end(fields);
    }
    loop {
        if rest.sign() != Some('"') {
            return Err(rest.wrong("a name in quotes"));
        }
        let name = rest.value()?;
        if rest.sign() != Some(':') {
            return Err(rest.wrong("`:`"));
        }
        rest.at += 1;
        fields.push((name.to_owned(), rest.value()?.to_owned()));
        let sign = rest.sign();
        rest.at += 1;
        match sign {
            Some(',') => {}
            Some('}') => return rest.end(fields),
            _ => {
                rest.at -= 1;
                return Err(rest.wrong("`,` or `}`"));
            }
        }
    }
}

/// Rest of a line.
struct Rest<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    /// The next character that is not whitespace.
    fn sign(&mut self) -> Option<char> {
        let rest = &self.line[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.line[self.at..].chars().next()
    }

    /// The text of the next value.
    fn value(&mut self) -> Result<&'a str, serde_json::Error> {
        self.sign();
        let rest = &self.line[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                self.at += error.column().saturating_sub(1);
                let (column, message) = (error.column(), error.to_string());
                return Err(
                    self.error(message.strip_suffix(&format!(" at line 1 column {column}")).unwrap_or(&message))
                );
            }
            None => return Err(self.wrong("a value")),
        }
        let length = values.byte_offset();
        self.at += length;
        Ok(&rest[..length])
    }

    fn end(mut self, fields: Vec<(String, String)>) -> Result<Fields, serde_json::Error> {
        if self.sign().is_some() { Err(self.error("trailing characters")) } else { Ok(Fields { fields }) }
    }

    fn wrong(&self, wanted: &str) -> serde_json::Error {
        self.error(&format!("expected {wanted}"))
    }

    fn error(&self, reason: &str) -> serde_json::Error {
        serde_json::Error::custom(format!("{reason}, column {}", self.at + 1))
    }
}

/// Checks that the numbers of a JSON text are read as they are written; `name` is what has it, for the message.
///
/// # Errors
/// A sentence, if one would be another.
pub fn numbers_stay(name: &str, json: &str) -> Result<(), anyhow::Error> {
    match changed_number(json) {
        None => Ok(()),
        Some("-0") => bail!("the number -0 in `{name}` would be read as a fraction: write 0."),
        Some(number) => {
            bail!("the number {number} in `{name}` is beyond 64 bits and would be changed: write it in quotes.")
        }
    }
}

/// The first number of a JSON text that would be read as another: a whole one of more than 64 bits, or minus zero.
fn changed_number(json: &str) -> Option<&str> {
    let mut rest = json;
    loop {
        let start = rest.find(|letter: char| letter == '"' || letter == '-' || letter.is_ascii_digit())?;
        rest = &rest[start..];
        if let Some(text) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = text.find(|letter: char| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            })?;
            rest = &text[end + 1..];
            continue;
        }
        let is_part = |letter: char| letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.' | 'e' | 'E');
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let whole = !number.contains(['.', 'e', 'E']);
        if whole && (number == "-0" || number.parse::<i64>().is_err() && number.parse::<u64>().is_err()) {
            return Some(number);
        }
        rest = after;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_not_ours_go_back_as_they_came() {
        let line = r#"{"id":12345678901234567890123,"n":9007199254740993.0,"w":1e400,"a\u0062":"\ud800","x":1,"x":{"k": [1.0, -0]},"\ud800":null,"é":"\u00e9"}"#;
        let fields = read(line).unwrap();
        let more = Map::from_iter([("text".to_owned(), Value::from("a"))]);
        let expected = format!("{},\"text\":\"a\"}}", &line[..line.len() - 1]);
        assert_eq!(fields.object_with(&more), expected);
    }

    #[test]
    fn fields_of_ours_are_read_by_name_and_nothing_in_them_is_changed() {
        let line = r#"{"pr\u006fmpt":"a","seed":null,"twice":1,"twice":2,"tools":[{"a":"\"12345678901234567890123","b":18446744073709551615}],"large":[-12345678901234567890123],"zero":-0}"#;
        let mut fields = read(line).unwrap();
        assert_eq!(fields.value::<String>("prompt").unwrap().unwrap(), "a");
        assert_eq!(fields.value::<u64>("seed").unwrap(), None);
        assert!(fields.value::<Value>("twice").unwrap_err().to_string().contains("twice"));
        assert_eq!(fields.value::<Value>("tools").unwrap().unwrap()[0]["b"], u64::MAX);
        assert!(fields.value::<Value>("large").unwrap_err().to_string().contains("-12345678901234567890123"));
        assert!(fields.value::<Value>("zero").is_err());
        fields.remove(&["prompt", "tools"]);
        assert!(fields.text("prompt").unwrap().is_none());
        assert_eq!(fields.names().collect::<Vec<_>>(), ["seed", "twice", "twice", "large", "zero"]);
        for wrong in [
            "[1]",
            "",
            "{",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1 2}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\":[1}",
            "{\"a\":nul}",
            "{\"a\":\"x}",
            "{'a':1}",
            "{\"a\":01}",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("column"), "{wrong}: {error}");
            assert!(serde_json::from_str::<Map<String, Value>>(wrong).is_err(), "{wrong}");
        }
        for right in ["{}", " { } ", "{ \"a\" : 1 , \"b\":[{}, true] }\r"] {
            assert!(read(right).is_ok(), "{right}");
        }
    }
}
