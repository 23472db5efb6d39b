//! What single arguments mean.

use abide::InstanceId;
use abide::admin::parse_path;
use abide::codec::{Path, Value};
use abide::store::Stamp;
use std::time::Duration;

/// A number and its unit: 500ms, 10s, 5m, 2h, 7d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a number with ms, s, m, h or d is wanted".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "there is no number".to_owned())?;
    let time = number.checked_mul(milliseconds).ok_or("that is too long")?;
    Ok(Duration::from_millis(time))
}

/// A duration that is long enough for a store to rest in.
pub(super) fn pace(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    match duration(text)? {
        short if short < SHORTEST => Err("at least 100ms".to_owned()),
        time => Ok(time),
    }
}

pub(super) fn stamp(text: &str) -> Result<Stamp, String> {
    let wrong = || format!("a stamp is {} hexadecimal digits", 2 * Stamp::LEN);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let bytes = bytes.filter(|_| rest.is_empty()).ok_or_else(wrong)?;
    Ok(Stamp::from_bytes(bytes.try_into().map_err(|_| wrong())?))
}

pub(super) fn path(text: &str) -> Result<Path, String> {
    parse_path(text).map_err(|_| "a path looks like orders[\"a b\"][7].price".to_owned())
}

/// The kind of some instance.
pub(super) fn kind(text: &str) -> Result<String, String> {
    let of_any = InstanceId::new(text, "any").map_err(|error| error.to_string());
    of_any.map(|of| of.kind().to_owned())
}

/// The id of an instance of some kind.
pub(super) fn id(text: &str) -> Result<String, String> {
    let of_any = InstanceId::new("any", text).map_err(|error| error.to_string());
    of_any.map(|of| of.id().to_owned())
}

pub(super) fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a message has a name".to_owned()),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn json(text: &str) -> Result<Value, String> {
    Value::from_json(text).map_err(|error| error.to_string())
}
