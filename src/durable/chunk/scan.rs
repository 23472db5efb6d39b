//! Reading many records of one range, whole, within limits.

use super::{Assembler, MAX_CHUNKS};
use crate::store::{KeyRange, KeyValue, StoreError, Tx, after};
use bytes::Bytes;
use std::fmt::Debug;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The rows of the first read: most ranges hold fewer, and were every row of the largest size, it
/// would still be less than one transaction may write.
const FIRST_PAGE: usize = 64;

/// The most rows of a later read: the largest record, and one row more.
const MAX_PAGE: usize = MAX_CHUNKS as usize + 1;

/// How the keys of a range name its records.
pub(crate) trait Layout: Send + 'static {
    /// What tells records apart.
    type Id: PartialEq + Debug + Send + 'static;

    /// Which record, and which chunk of it, a key is.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::store::StoreErrorKind::Corrupt), naming the key, if it is none.
    fn locate(&self, key: &[u8]) -> Result<(Self::Id, u32), StoreError>;

    /// The keys that only chunks of this record can have.
    fn span(&self, id: &Self::Id) -> KeyRange;
}

/// Where a scan stops. The first record is returned however large it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most rows.
    pub(crate) rows: usize,
    /// The most bytes, keys and values together.
    pub(crate) bytes: usize,
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Record<I> {
    /// Which one it is.
    pub(crate) id: I,
    /// Every key that it has.
    pub(crate) span: KeyRange,
    /// How many bytes of it were read, keys included.
    pub(crate) bytes: usize,
    /// The value, or why it is none.
    pub(crate) value: Result<Bytes, StoreError>,
}

/// The records at the beginning of a range.
#[derive(Debug)]
pub(crate) struct Scanned<I> {
    /// The records, in the order of their keys.
    pub(crate) records: Vec<Record<I>>,
    /// Whether the range goes on behind them.
    pub(crate) more: bool,
}

/// Reads the first records of `range`, in snapshot reads, the first of which is issued at once.
///
/// A record that is damaged is returned as such, with its span, and does not hide those behind it.
///
/// # Errors
///
/// Those of the store; and [`Corrupt`](crate::store::StoreErrorKind::Corrupt) if the first key of
/// the range belongs to no record. Such a key further on ends the scan before it.
pub(crate) fn scan<L: Layout>(
    tx: &Tx,
    layout: L,
    range: KeyRange,
    limits: Limits,
) -> impl Future<Output = Result<Scanned<L::Id>, StoreError>> + Send + 'static + use<L> {
    let tx = Arc::clone(tx);
    let scan = Scan::new(layout, limits);
    let limit = scan.page();
    let page = tx.get_range(range.read().snapshot().limit(limit));
    async move {
        let rows = page.await?;
        let full = rows.len() >= limit;
        scan.run(&tx, range, rows, full).await
    }
}

/// As [`scan`], from the first rows of the range on: all of them, unless `full`.
///
/// # Errors
///
/// As [`scan`].
pub(crate) async fn scan_from<L: Layout>(
    tx: &Tx,
    layout: L,
    range: KeyRange,
    limits: Limits,
    rows: Vec<KeyValue>,
    full: bool,
) -> Result<Scanned<L::Id>, StoreError> {
    Scan::new(layout, limits).run(tx, range, rows, full).await
}

/// The progress of a scan.
struct Scan<L: Layout> {
    layout: L,
    limits: Limits,
    records: Vec<Record<L::Id>>,
    /// The rows and bytes of `records`.
    rows: usize,
    bytes: usize,
    /// The record whose end was not seen yet.
    open: Option<Open<L::Id>>,
    /// The end of the last damaged record, whose further rows say nothing.
    behind: Bytes,
}

struct Open<I> {
    id: I,
    first_key: Bytes,
    rows: usize,
    bytes: usize,
    assembler: Assembler,
}

impl<L: Layout> Scan<L> {
    fn new(layout: L, limits: Limits) -> Self {
        Self {
            layout,
            limits,
            records: Vec::new(),
            rows: 0,
            bytes: 0,
            open: None,
            behind: Bytes::new(),
        }
    }

    /// Takes the first rows of `rest`, and reads on for as long as that is needed.
    async fn run(
        mut self,
        tx: &Tx,
        mut rest: KeyRange,
        mut rows: Vec<KeyValue>,
        mut full: bool,
    ) -> Result<Scanned<L::Id>, StoreError> {
        loop {
            if let Some(last) = rows.last() {
                rest.begin = after(&last.key);
            }
            for row in rows {
                if self.add(row)?.is_break() {
                    return Ok(self.finish(true));
                }
            }
            if !full {
                self.close();
                return Ok(self.finish(false));
            }
            if rest.begin < self.behind {
                rest.begin = self.behind.clone().min(rest.end.clone());
            }
            let limit = self.page();
            rows = tx.get_range(rest.read().snapshot().limit(limit)).await?;
            full = rows.len() >= limit;
        }
    }

    /// How many rows to read next: what the limits leave, were the rest like what came so far, and
    /// one more, which shows where a record ends and whether the range goes on.
    fn page(&self) -> usize {
        let (open_rows, open_bytes, missing) = match &self.open {
            Some(open) => (open.rows, open.bytes, open.assembler.missing()),
            None => (0, 0, 0),
        };
        let (rows, bytes) = (self.rows + open_rows, self.bytes + open_bytes);
        let left = self.limits.rows.saturating_sub(rows);
        if rows == 0 {
            return left.saturating_add(1).min(FIRST_PAGE);
        }
        let average = (bytes / rows).max(1);
        let fitting = self.limits.bytes.saturating_sub(bytes) / average;
        left.min(fitting)
            .max(missing)
            .saturating_add(1)
            .min(MAX_PAGE)
    }

    /// Takes the next row; breaks if the records before it are all that the limits allow.
    fn add(&mut self, row: KeyValue) -> Result<ControlFlow<()>, StoreError> {
        if row.key < self.behind {
            return Ok(ControlFlow::Continue(()));
        }
        let (id, chunk) = match self.layout.locate(&row.key) {
            Ok(place) => place,
            Err(error) => return self.foreign(&row.key, error),
        };
        if self.open.as_ref().is_some_and(|open| open.id != id) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open {
            id,
            first_key: row.key.clone(),
            rows: 0,
            bytes: 0,
            assembler: Assembler::default(),
        });
        open.rows += 1;
        open.bytes += row.key.len() + row.value.len();
        let beyond =
            self.rows + open.rows > self.limits.rows || self.bytes + open.bytes > self.limits.bytes;
        if beyond && !self.records.is_empty() {
            return Ok(ControlFlow::Break(()));
        }
        if let Err(error) = open.assembler.add(&row.key, chunk, row.value) {
            self.give_up(error);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A key that belongs to no record: within the span of one, it is that one's damage.
    fn foreign(&mut self, key: &Bytes, error: StoreError) -> Result<ControlFlow<()>, StoreError> {
        let inside = |open: &Open<L::Id>| self.layout.span(&open.id).contains(key);
        if self.open.as_ref().is_some_and(inside) {
            self.give_up(error);
            return Ok(ControlFlow::Continue(()));
        }
        self.close();
        if self.records.is_empty() {
            return Err(error);
        }
        Ok(ControlFlow::Break(()))
    }

    /// The open record has ended.
    fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            let assembler = std::mem::take(&mut open.assembler);
            let value = assembler.finish(&open.first_key);
            self.record(open, value);
        }
    }

    /// The open record is damaged; the rest of its rows are passed over.
    fn give_up(&mut self, error: StoreError) {
        if let Some(open) = self.open.take() {
            self.behind = self.layout.span(&open.id).end;
            self.record(open, Err(error));
        }
    }

    fn record(&mut self, open: Open<L::Id>, value: Result<Bytes, StoreError>) {
        self.rows += open.rows;
        self.bytes += open.bytes;
        self.records.push(Record {
            span: self.layout.span(&open.id),
            id: open.id,
            bytes: open.bytes,
            value,
        });
    }

    fn finish(self, more: bool) -> Scanned<L::Id> {
        Scanned {
            records: self.records,
            more,
        }
    }
}
