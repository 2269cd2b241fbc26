//! Messages of a conversation: JSON objects, of which nothing is lost on the way to a chat template.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One turn of a conversation: an object with a `role` and whatever else it has, in its order. Chat templates see all of
/// it: `content` (a text, or a list of parts `{"type": "text", "text": ".."}`), `tool_calls`, `reasoning_content`, `name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Message {
    fields: Map<String, Value>,
}

impl Message {
    /// A message with a text. The role is `system`, `user` or `assistant` in most templates.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", content.into())];
        Self { fields: fields.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect() }
    }

    /// A message of an object's fields.
    ///
    /// # Errors
    /// The rest of a sentence, if it has no `role` that is a text.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, String> {
        match fields.get("role") {
            Some(Value::String(_)) => Ok(Self { fields }),
            Some(other) => Err(format!("the `role` of a message is {}, not a text", kind(other))),
            None => Err("a message has no `role`".to_owned()),
        }
    }

    /// The same with another field, in the place of one that has this name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// Content of the message, where that is one text; empty otherwise.
    pub fn content(&self) -> &str {
        self.fields.get("content").and_then(Value::as_str).unwrap_or_default()
    }

    /// All fields, in their order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Checks that it holds text alone.
    ///
    /// # Errors
    /// The rest of a sentence that names the part that is something else.
    pub(super) fn check_parts(&self) -> Result<(), String> {
        let Some(Value::Array(parts)) = self.fields.get("content") else { return Ok(()) };
        for part in parts {
            let named = match part {
                Value::Object(part) => {
                    part.get("type").map_or(part.contains_key("text").then_some("text"), Value::as_str)
                }
                Value::String(_) => Some("text"),
                _ => None,
            };
            match named {
                Some("text") => {}
                Some(other) => {
                    return Err(format!(
                        "a part of its `content` is of the type {other:?}, and models here read text alone"
                    ));
                }
                None => return Err("a part of its `content` is neither a text nor an object with a `type`".to_owned()),
            }
        }
        Ok(())
    }
}

/// Kind of a JSON value, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

// Written out, as a derived reader takes a list for an object, its fields in their order.
impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MessageVisitor;
        impl<'de> Visitor<'de> for MessageVisitor {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message as an object with `role`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    fields.insert(name, value);
                }
                Message::from_fields(fields).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(MessageVisitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_an_object_whose_fields_keep_their_order() {
        let text = r#"{"content":null,"x":{"b":1,"a":[2]},"role":"assistant","tool_calls":[]}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!((message.role(), message.content()), ("assistant", ""));
        assert_eq!(serde_json::to_string(&Message::new("user", "a")).unwrap(), r#"{"role":"user","content":"a"}"#);
        assert_eq!(Message::new("user", "a").with("name", "n").fields()["name"], json!("n"));
        for (wrong, said) in [
            (json!(["user", "a"]), "a message as an object"),
            (json!("user"), "a message as an object"),
            (json!({"content": "a"}), "no `role`"),
            (json!({"role": 3, "content": "a"}), "is a number"),
        ] {
            let error = serde_json::from_value::<Message>(wrong.clone()).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn parts_that_are_not_text_are_named() {
        let parts = |parts: Value| Message::new("user", "").with("content", parts).check_parts();
        assert_eq!(parts(json!([{"type": "text", "text": "a"}, {"text": "b"}, "c"])), Ok(()));
        assert!(parts(json!([{"type": "image_url", "image_url": {}}])).unwrap_err().contains("image_url"));
        assert!(parts(json!([3])).unwrap_err().contains("neither"));
    }
}
