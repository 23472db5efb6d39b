//! Printing: lines of JSON, or text for people.

use crate::json::Object;
use crate::views;
use abide::admin::Damage;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// The longest cell of a table, in characters; `--json` prints everything.
const MAX_CELL: usize = 160;

/// Where the command prints.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stdout = io::stdout();
        Self {
            json,
            colour: stdout.is_terminal() && !plain,
            out: BufWriter::new(stdout),
        }
    }

    /// Whether colours are wanted, and can be shown.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn object(&mut self, object: Object) -> io::Result<()> {
        writeln!(self.out, "{}", object.end())
    }

    /// A line for people. What comes from the store was [cleaned](clean).
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A record: text for people, or its object.
    pub(crate) fn either(&mut self, line: &str, object: Object) -> io::Result<()> {
        match self.json {
            true => self.object(object),
            false => self.line(line),
        }
    }

    /// Reports what cannot be read: among the records in JSON, else beside the text.
    pub(crate) fn damaged(&mut self, damaged: &[Damage]) -> io::Result<()> {
        for damage in damaged {
            match self.json {
                true => {
                    let object = Object::of("damage")
                        .text("key", &views::key(&damage.key))
                        .text("what", &damage.what);
                    self.object(object)?;
                }
                false => {
                    self.flush()?;
                    writeln!(io::stderr(), "{}", damage_line(damage))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A table that is printed page by page: columns are as wide as the page needs.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    head: Option<[&'static str; N]>,
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self {
            widths: head.map(str::len),
            head: Some(head),
        }
    }

    /// Prints rows. The head comes with the first of them; columns never become narrower.
    pub(crate) fn page(&mut self, out: &mut Output, rows: &[[String; N]]) -> io::Result<()> {
        let rows: Vec<[String; N]> = rows
            .iter()
            .map(|row| row.each_ref().map(|cell| shortened(cell)))
            .collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !rows.is_empty()
            && let Some(head) = self.head.take()
        {
            let line = self.aligned(&head.map(str::to_owned));
            match out.colour {
                true => out.line(&format!("\x1b[1m{line}\x1b[0m"))?,
                false => out.line(&line)?,
            }
        }
        for row in &rows {
            out.line(&self.aligned(row))?;
        }
        out.flush()
    }

    fn aligned(&self, row: &[String; N]) -> String {
        let cells = row.iter().zip(self.widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    }
}

fn shortened(cell: &str) -> String {
    let mut cell = clean(cell);
    if let Some((end, _)) = cell.char_indices().nth(MAX_CELL) {
        cell.truncate(end);
        cell.push('…');
    }
    cell
}

/// What cannot be read, as a line for people.
pub(crate) fn damage_line(damage: &Damage) -> String {
    clean(&format!("damaged: {damage}"))
}

/// Text without what would steer a terminal: stores hold whatever users send.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => cleaned.extend(c.escape_default()),
            false => cleaned.push(c),
        }
    }
    cleaned
}

/// A time as people say it: the largest unit that fits.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
