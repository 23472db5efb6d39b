//! JSON objects, one on each line.

use abide::codec::Value;
use std::fmt::Display;

/// An object under construction. Fields stand in the order in which they are added.
#[derive(Debug, Clone)]
pub(crate) struct Object(String);

impl Object {
    /// An object that says in its first field what it is.
    pub(crate) fn of(what: &str) -> Self {
        Self::new().text("type", what)
    }

    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// A field whose value is JSON already.
    pub(crate) fn raw(mut self, name: &str, json: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&string(name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &string(value))
    }

    /// A number or a boolean.
    pub(crate) fn plain(self, name: &str, value: impl Display) -> Self {
        self.raw(name, &value.to_string())
    }

    /// Text, or null.
    pub(crate) fn maybe_text(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.text(name, &value.to_string()),
            None => self.raw(name, "null"),
        }
    }

    /// A number, or null.
    pub(crate) fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.plain(name, value),
            None => self.raw(name, "null"),
        }
    }

    pub(crate) fn object(self, name: &str, value: Option<Self>) -> Self {
        match value {
            Some(value) => self.raw(name, &value.end()),
            None => self.raw(name, "null"),
        }
    }

    pub(crate) fn list(self, name: &str, items: impl IntoIterator<Item = String>) -> Self {
        let items: Vec<String> = items.into_iter().collect();
        self.raw(name, &format!("[{}]", items.join(",")))
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A text in JSON.
pub(crate) fn string(text: &str) -> String {
    // A text is always encodable.
    Value::Text(text.to_owned())
        .to_json()
        .unwrap_or_else(|_| "\"\"".to_owned())
}
