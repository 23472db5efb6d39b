//! Traces that go with messages: the context of the work that sends one becomes the parent of the work
//! that handles it, on whichever node and however much later that is.
//!
//! A message carries a W3C [`TraceParent`]. abide does not depend on a tracing system; a
//! [`TraceContext`] connects it with yours. [Observability](crate::docs::observability#traces) shows
//! how.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The place in a trace from which a message was sent: a W3C `traceparent`.
///
/// What is stored has always this size, whatever came in. A `traceparent` of a newer version is read
/// for what this one knows of it, and goes on as one of version 00, as the standard asks for.
///
/// # Examples
///
/// ```
/// use abide::trace::TraceParent;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let parent: TraceParent = text.parse()?;
/// assert_eq!(parent.to_string(), text);
/// assert!(parent.is_sampled());
/// assert!("00-0af7-b7ad-01".parse::<TraceParent>().is_err());
/// # Ok::<(), abide::trace::InvalidTraceParent>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent: version, trace id, parent id and flags in lower-case hexadecimal")]
pub struct InvalidTraceParent;

/// Connects the messages and spans of a [node](crate::NodeBuilder::trace) with a tracing system.
///
/// Both methods are called often, on threads that must not wait.
pub trait TraceContext: Send + Sync + 'static {
    /// The context of the work that is under way on this thread: what a message that is sent now
    /// carries. None if that work is not traced.
    ///
    /// Called when a call or a cast is made, and within the span of each handler for what that
    /// handler sends.
    fn current(&self) -> Option<TraceParent>;

    /// Makes what a message carries the parent of the span in which it is handled. Called before the
    /// span is entered for the first time.
    fn attach(&self, span: &tracing::Span, parent: TraceParent);
}

/// The connection of a node, if it has one.
#[derive(Clone, Default)]
pub(crate) struct Tracer(Option<Arc<dyn TraceContext>>);

impl TraceParent {
    /// The length of its text.
    const LEN: usize = 55;

    /// A place in a trace. None if one of the ids is zero, which means that there is no trace.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span within it.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The flags; the lowest says whether the trace is [sampled](Self::is_sampled).
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        parse(text.as_bytes()).ok_or(InvalidTraceParent)
    }
}

fn parse(text: &[u8]) -> Option<TraceParent> {
    let (known, more) = text.split_at_checked(TraceParent::LEN)?;
    let (version, rest) = field::<1>(known)?;
    let (trace_id, rest) = field(rest.strip_prefix(b"-")?)?;
    let (span_id, rest) = field(rest.strip_prefix(b"-")?)?;
    let (flags, _) = field::<1>(rest.strip_prefix(b"-")?)?;
    let is_version = match version {
        [0] => more.is_empty(),
        [255] => false,
        // What a newer version has more stands behind another dash.
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    if !is_version {
        return None;
    }
    let [flags] = flags;
    TraceParent::new(trace_id, span_id, flags)
}

/// The first `N` bytes that a text spells, and the rest of it.
fn field<const N: usize>(text: &[u8]) -> Option<([u8; N], &[u8])> {
    let (digits, rest) = text.split_at_checked(2 * N)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some((bytes, rest))
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span_id {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

impl Tracer {
    pub(crate) fn new(context: Arc<dyn TraceContext>) -> Self {
        Self(Some(context))
    }

    /// The context of the work that is under way on this thread.
    pub(crate) fn current(&self) -> Option<TraceParent> {
        self.0.as_ref().and_then(|context| context.current())
    }

    /// Puts a span under what a message carries.
    pub(crate) fn attach(&self, span: &tracing::Span, parent: Option<TraceParent>) {
        let (Some(context), Some(parent)) = (&self.0, parent) else {
            return;
        };
        context.attach(span, parent);
    }

    /// What is sent within a span carries: the span's place, or, unless a tracing system gives it
    /// one, what the message carries that is handled in it.
    pub(crate) fn within(
        &self,
        span: &tracing::Span,
        parent: Option<TraceParent>,
    ) -> Option<TraceParent> {
        match &self.0 {
            Some(context) => span.in_scope(|| context.current()).or(parent),
            None => parent,
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        let parent: TraceParent = TEXT.parse().unwrap();
        assert_eq!(parent.to_string(), TEXT);
        assert_eq!(parent.trace_id()[..2], [0x0a, 0xf7]);
        assert_eq!(parent.span_id()[7], 0x31);
        let unsampled: TraceParent = TEXT.replace("-01", "-00").parse().unwrap();
        assert!(parent.is_sampled() && !unsampled.is_sampled());
    }

    #[test]
    fn a_newer_version_is_read_for_what_is_known_of_it() {
        for newer in ["01", "01-and-more"] {
            let (version, more) = newer.split_at(2);
            let text = format!("{version}{}{more}", &TEXT[2..]);
            assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), TEXT);
        }
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let hostile = [
            String::new(),
            TEXT[1..].to_owned(),
            format!("{TEXT}-more"),
            format!("ff{}", &TEXT[2..]),
            format!("01{}more", &TEXT[2..]),
            TEXT.to_uppercase(),
            TEXT.replace('-', "_"),
            TEXT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            TEXT.replace("b7ad6b7169203331", &"0".repeat(16)),
            TEXT.replace("b7", "\u{df}"),
            "-".repeat(1 << 20),
        ];
        for text in hostile {
            assert_eq!(text.parse::<TraceParent>(), Err(InvalidTraceParent));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), at in 0..55_usize) {
            let _ = text.parse::<TraceParent>();
            let mut damaged = TEXT.as_bytes().to_vec();
            damaged.splice(at..=at, text.bytes().take(3));
            let _ = parse(&damaged);
        }

        #[test]
        fn whatever_is_made_is_read_back(trace: [u8; 16], span: [u8; 8], flags: u8) {
            if let Some(parent) = TraceParent::new(trace, span, flags) {
                prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            }
        }
    }
}
