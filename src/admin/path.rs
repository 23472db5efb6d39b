//! Paths as people write them.

use super::error::AdminError;
use crate::codec::{Path, Value};

/// The path that a text names: `.orders["a b"][7].price`, in the form in which
/// [`Path`] is shown, with or without the `state` at its beginning. The empty text
/// is the state itself.
///
/// ```
/// use abide::admin::parse_path;
/// use abide::codec::Path;
///
/// let price = Path::root().child("orders").child("a b").child(7_u64).child("price");
/// assert_eq!(parse_path(r#"state.orders["a b"][7].price"#)?, price);
/// assert_eq!(parse_path(r#"orders["a b"][7].price"#)?, price);
/// assert_eq!(parse_path(&price.to_string())?, price);
/// # Ok::<(), abide::admin::AdminError>(())
/// ```
///
/// # Errors
///
/// [`Invalid`](super::AdminErrorKind::Invalid) if the text names no path.
pub fn parse_path(text: &str) -> Result<Path, AdminError> {
    let whole = text;
    let invalid = || AdminError::invalid(format!("`{whole}` is no path within a state"));
    let mut rest = match text.strip_prefix("state") {
        Some(rest) if rest.is_empty() || rest.starts_with(['.', '[']) => rest,
        _ => text,
    };
    let mut path = Path::root();
    let mut first = true;
    while !rest.is_empty() {
        if let Some(bracketed) = rest.strip_prefix('[') {
            let (element, tail) = bracket(bracketed).ok_or_else(invalid)?;
            path = match element {
                Element::Name(name) => path.child(name.as_str()),
                Element::Signed(number) => path.child(number),
                Element::Unsigned(number) => path.child(number),
            };
            rest = tail;
        } else {
            let name = match rest.strip_prefix('.') {
                Some(name) => name,
                None if first => rest,
                None => return Err(invalid()),
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, tail) = name.split_at_checked(end).ok_or_else(invalid)?;
            if name.is_empty() {
                return Err(invalid());
            }
            path = path.child(name);
            rest = tail;
        }
        first = false;
    }
    Ok(path)
}

enum Element {
    Name(String),
    Signed(i64),
    Unsigned(u64),
}

/// What stands in brackets, and what follows them.
fn bracket(text: &str) -> Option<(Element, &str)> {
    if !text.starts_with('"') {
        let (number, tail) = text.split_once(']')?;
        let element = number
            .parse()
            .map(Element::Signed)
            .or_else(|_| number.parse().map(Element::Unsigned));
        return Some((element.ok()?, tail));
    }
    // To the quote that no backslash stands before.
    let mut escaped = true;
    let end = text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end.then_some(at + 1)
    })?;
    let (quoted, tail) = text.split_at_checked(end)?;
    Some((Element::Name(unquoted(quoted)?), tail.strip_prefix(']')?))
}

/// A text in quotes: as JSON writes it, and with the escapes that Rust has instead.
fn unquoted(quoted: &str) -> Option<String> {
    if let Ok(Value::Text(text)) = Value::from_json(quoted) {
        return Some(text);
    }
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            'u' => {
                let (digits, tail) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                chars = tail.chars();
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            other => other,
        });
    }
    Some(text)
}
