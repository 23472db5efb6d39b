//! The name of an instance.

use std::fmt;
use std::sync::Arc;

/// The longest kind, in bytes. Kinds are written by programmers; every key of the kind holds it.
pub const MAX_KIND_BYTES: usize = 128;

/// The longest instance id, in bytes: it leaves most of a key to the paths of the state.
pub const MAX_ID_BYTES: usize = 1_024;

/// One durable server: the kind of its handlers and its id among the instances of that kind.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    kind: Arc<str>,
    id: Arc<str>,
}

impl InstanceId {
    /// Names the instance `id` of `kind`.
    ///
    /// # Errors
    ///
    /// When either is empty or longer than [`MAX_KIND_BYTES`] and [`MAX_ID_BYTES`].
    pub fn new(
        kind: impl Into<Arc<str>>,
        id: impl Into<Arc<str>>,
    ) -> Result<Self, InvalidInstanceId> {
        let (kind, id) = (kind.into(), id.into());
        check("kind", &kind, MAX_KIND_BYTES)?;
        check("id", &id, MAX_ID_BYTES)?;
        Ok(Self { kind, id })
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id among the instances of the kind.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn check(part: &'static str, text: &str, most: usize) -> Result<(), InvalidInstanceId> {
    if text.is_empty() || text.len() > most {
        return Err(InvalidInstanceId {
            part,
            length: text.len(),
            most,
        });
    }
    Ok(())
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.kind, self.id)
    }
}

/// A kind or an id of a length that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {part} of an instance is {length} bytes long: 1 to {most} are allowed")]
pub struct InvalidInstanceId {
    part: &'static str,
    length: usize,
    most: usize,
}
