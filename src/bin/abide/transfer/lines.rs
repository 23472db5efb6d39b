//! The lines of a stream, none longer than a record's.

use abide::admin::MAX_LINE_BYTES;
use std::io::{self, BufRead, BufReader, Read};

/// Reads lines.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

/// A line.
pub(super) struct Line<'a> {
    /// How many bytes it takes, its end included.
    pub(super) bytes: u64,
    /// Its text; none if that is no UTF-8.
    pub(super) text: Option<&'a str>,
    /// Its text, if it has an end.
    pub(super) ended: Option<&'a str>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            line: Vec::new(),
        }
    }

    /// The next line; none at the end. Of a line that is too long the beginning, which is no record.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 2;
        let read = (&mut self.input)
            .take(most)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.line).ok();
        Ok(Some(Line {
            bytes: u64::try_from(read).unwrap_or(u64::MAX),
            text,
            ended: text.and_then(|text| text.strip_suffix('\n')),
        }))
    }
}
