//! What keys are in a path.

use crate::codec::PathElement;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// A string or an integer, as the element of a [path](crate::codec::Path) that it is stored under.
///
/// Implement it for keys of your own, in agreement with how they serialize; a key that does not is
/// refused when the state is stored.
///
/// ```
/// use abide::codec::PathElement;
/// use abide::collections::{AsElement, Map};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct UserId(String);
///
/// impl AsElement for UserId {
///     fn as_element(&self) -> PathElement<'_> {
///         self.0.as_element()
///     }
/// }
///
/// let mut users: Map<UserId, u32> = Map::new();
/// users.insert(UserId("ada".to_owned()), 36);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not known to be a string or an integer",
    label = "no key of a durable collection",
    note = "implement `AsElement` for `{Self}` if it serializes as a string or an integer"
)]
pub trait AsElement {
    /// The element.
    fn as_element(&self) -> PathElement<'_>;
}

macro_rules! integers {
    ($($type:ty => $wide:ty),*) => {$(
        impl AsElement for $type {
            fn as_element(&self) -> PathElement<'_> {
                <$wide>::from(*self).into()
            }
        }
    )*};
}

integers!(
    i8 => i64, i16 => i64, i32 => i64, i64 => i64, u8 => u64, u16 => u64, u32 => u64, u64 => u64
);

impl AsElement for str {
    fn as_element(&self) -> PathElement<'_> {
        self.into()
    }
}

impl AsElement for String {
    fn as_element(&self) -> PathElement<'_> {
        self.as_str().into()
    }
}

macro_rules! pointers {
    ($($type:ty),*) => {$(
        impl<T: ?Sized + AsElement> AsElement for $type {
            fn as_element(&self) -> PathElement<'_> {
                (**self).as_element()
            }
        }
    )*};
}

pointers!(&T, Box<T>, Arc<T>, Rc<T>);

impl<T: ?Sized + AsElement + ToOwned<Owned: AsElement>> AsElement for Cow<'_, T> {
    fn as_element(&self) -> PathElement<'_> {
        (**self).as_element()
    }
}
