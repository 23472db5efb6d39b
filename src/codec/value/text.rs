//! JSON as text (RFC 8259), read strictly and written on one line.
//!
//! Integers stay integers up to 128 bits, and floats are the nearest double, which is more than
//! readers of JSON usually promise; that is why this one is here.

use super::json::{Json, MAX_JSON_DEPTH};
use crate::codec::error::{CodecError, CodecErrorKind};
use std::fmt::Write as _;

pub(super) fn write(json: &Json) -> String {
    let mut text = String::new();
    value_into(&mut text, json);
    text
}

// Writing to a String cannot fail, so the results of `write!` say nothing.
fn value_into(out: &mut String, json: &Json) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Json::Huge(value) => {
            let _ = write!(out, "{value}");
        }
        // The fewest digits that are read back as the same double, and `.0` or an exponent at least.
        Json::Float(value) => {
            let _ = write!(out, "{value:?}");
        }
        Json::Text(value) => text_into(out, value),
        Json::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                value_into(out, item);
            }
            out.push(']');
        }
        Json::Object(fields) => {
            out.push('{');
            for (position, (name, value)) in fields.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                text_into(out, name);
                out.push(':');
                value_into(out, value);
            }
            out.push('}');
        }
    }
}

fn text_into(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Below 0x20 JSON wants it; the rest would act on the terminal that it is shown on.
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

pub(super) fn read(text: &str) -> Result<Json, CodecError> {
    let mut reader = Reader { text, at: 0 };
    let json = reader.value(MAX_JSON_DEPTH)?;
    reader.space();
    match reader.peek() {
        None => Ok(json),
        Some(_) => Err(reader.error("nothing more is expected")),
    }
}

struct Reader<'t> {
    text: &'t str,
    /// Where in the text, always between two characters.
    at: usize,
}

impl<'t> Reader<'t> {
    fn error(&self, message: &str) -> CodecError {
        CodecError::new(
            CodecErrorKind::Json,
            format!("at byte {} of the text: {message}", self.at),
        )
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over this text, if it is next.
    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn eat_while(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let count = self.rest().bytes().take_while(|byte| wanted(*byte)).count();
        self.at += count;
        count
    }

    fn space(&mut self) {
        self.eat_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn value(&mut self, depth: usize) -> Result<Json, CodecError> {
        self.space();
        match self.peek() {
            Some(b'n') if self.eat("null") => Ok(Json::Null),
            Some(b't') if self.eat("true") => Ok(Json::Bool(true)),
            Some(b'f') if self.eat("false") => Ok(Json::Bool(false)),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[') => self.array(self.deeper(depth)?),
            Some(b'{') => self.object(self.deeper(depth)?),
            _ => Err(self.error("a value is expected")),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, CodecError> {
        let too_deep = || {
            self.error("nested too deeply")
                .with_kind(CodecErrorKind::TooDeep)
        };
        depth.checked_sub(1).ok_or_else(too_deep)
    }

    fn array(&mut self, depth: usize) -> Result<Json, CodecError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.eat("]") {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            if self.eat("]") {
                return Ok(Json::Array(items));
            }
            if !self.eat(",") {
                return Err(self.error("`,` or `]` is expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, CodecError> {
        self.at += 1;
        let mut fields = Vec::new();
        self.space();
        if self.eat("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotes is expected"));
            }
            let name = self.string()?;
            self.space();
            if !self.eat(":") {
                return Err(self.error("`:` is expected"));
            }
            fields.push((name, self.value(depth)?));
            self.space();
            if self.eat("}") {
                return Ok(Json::Object(fields));
            }
            if !self.eat(",") {
                return Err(self.error("`,` or `}` is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, CodecError> {
        let start = self.at;
        self.eat("-");
        let digit = |byte: u8| byte.is_ascii_digit();
        let sound = self.eat("0") || self.eat_while(digit) > 0;
        let integer = self.at;
        let sound = sound && (!self.eat(".") || self.eat_while(digit) > 0);
        let exponent = self.eat("e") || self.eat("E");
        let _ = exponent && (self.eat("+") || self.eat("-"));
        let sound = sound && (!exponent || self.eat_while(digit) > 0);
        let text = self.text.get(start..self.at).unwrap_or_default();
        if !sound || self.peek().is_some_and(digit) {
            return Err(self.error("this is no number of JSON"));
        }
        if self.at == integer {
            let value = text.parse().map(Json::Int);
            let value = value.or_else(|_| text.parse().map(Json::Huge));
            return value.map_err(|_| self.error("an integer has 128 bits at most"));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Json::Float(value)),
            _ => Err(self.error("the number is too large for an f64")),
        }
    }

    fn string(&mut self) -> Result<String, CodecError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let plain = self.rest();
            self.eat_while(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20);
            let length = plain.len() - self.rest().len();
            text.push_str(plain.get(..length).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, CodecError> {
        const ESCAPES: [(&str, char); 8] = [
            ("\\\"", '"'),
            ("\\\\", '\\'),
            ("\\/", '/'),
            ("\\b", '\u{8}'),
            ("\\f", '\u{c}'),
            ("\\n", '\n'),
            ("\\r", '\r'),
            ("\\t", '\t'),
        ];
        for (escape, character) in ESCAPES {
            if self.eat(escape) {
                return Ok(character);
            }
        }
        let mut units = vec![self.unit()?];
        if matches!(units.as_slice(), [0xd800..=0xdbff]) {
            units.push(self.unit()?);
        }
        let mut characters = char::decode_utf16(units);
        match (characters.next(), characters.next()) {
            (Some(Ok(character)), None) => Ok(character),
            _ => Err(self.error("half of a character")),
        }
    }

    /// One `\u` escape.
    fn unit(&mut self) -> Result<u16, CodecError> {
        if !self.eat("\\u") {
            return Err(self.error("an escape of JSON is expected"));
        }
        let digits = self.rest().get(..4).unwrap_or_default();
        if digits.len() < 4 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(self.error("four hexadecimal digits are expected"));
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| self.error("no hexadecimal number"))
    }
}
