//! Base64 with the usual alphabet and padding (RFC 4648, section 4), read strictly: one text for
//! each sequence of bytes.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | group.get(at).map_or(0, |byte| usize::from(*byte))
        });
        for digit in 0..4 {
            let used = digit <= group.len();
            let digit = ALPHABET.get(bits >> (18 - 6 * digit) & 0x3f);
            text.push(match digit {
                Some(digit) if used => char::from(*digit),
                _ => '=',
            });
        }
    }
    text
}

/// The bytes; `None` if the text is not what [`encode`] writes for any.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut ended = false;
    for group in text.as_bytes().chunks(4) {
        if ended || group.len() < 4 {
            return None;
        }
        let digits = group.iter().position(|byte| *byte == b'=').unwrap_or(4);
        let padding = group.iter().skip(digits);
        if digits < 2 || padding.clone().any(|byte| *byte != b'=') {
            return None;
        }
        ended = digits < 4;
        let mut bits = 0_u32;
        for byte in group.iter().take(digits) {
            bits = bits << 6 | value_of(*byte)?;
        }
        bits <<= 6 * padding.count();
        let [_, group @ ..] = bits.to_be_bytes();
        let (used, unused) = group.split_at_checked(digits - 1)?;
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(used);
    }
    Some(bytes)
}

fn value_of(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}
