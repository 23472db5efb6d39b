//! From the bytes of a key to what it is: the counterpart of the writing in the module above.

use super::{Key, Lane, Part, SessionId, SessionPart};
use crate::id::InstanceId;
use crate::store::Stamp;
use bytes::Bytes;
use foundationdb_tuple::{PackError, PackResult, TupleDepth, TupleUnpack, Versionstamp};

/// Takes tuple elements of expected types off a key, one after the other.
///
/// None of the types nests, so foreign bytes cannot make the parser recurse.
struct Reader<'a> {
    rest: &'a [u8],
    depth: TupleDepth,
}

/// The whole of a key behind the namespace's prefix, as the tuple layer's own parser wants it.
pub(super) struct Parsed(pub(super) Key);

impl<'de> TupleUnpack<'de> for Parsed {
    fn unpack(rest: &'de [u8], depth: TupleDepth) -> PackResult<(&'de [u8], Self)> {
        match (Reader { rest, depth }).key() {
            Some(key) => Ok((&[], Self(key))),
            None => Err(PackError::Message("not a key of abide".into())),
        }
    }
}

/// The end of a message's key: incarnation, stamp and chunk.
pub(super) struct Place(pub(super) u32, pub(super) Stamp, pub(super) u32);

impl<'de> TupleUnpack<'de> for Place {
    fn unpack(rest: &'de [u8], depth: TupleDepth) -> PackResult<(&'de [u8], Self)> {
        match (Reader { rest, depth }).place() {
            Some(place) => Ok((&[], place)),
            None => Err(PackError::Message("not the place of a message".into())),
        }
    }
}

impl<'a> Reader<'a> {
    fn place(mut self) -> Option<Place> {
        let place = Place(self.number()?, self.stamp()?, self.number()?);
        self.end(place)
    }

    fn element<T: TupleUnpack<'a>>(&mut self) -> Option<T> {
        let (rest, element) = T::unpack(self.rest, self.depth).ok()?;
        self.rest = rest;
        Some(element)
    }

    fn text(&mut self) -> Option<String> {
        self.element()
    }

    fn number(&mut self) -> Option<u32> {
        self.element()
    }

    fn stamp(&mut self) -> Option<Stamp> {
        self.element::<Versionstamp>()
            .map(|stamp| Stamp::from_bytes(*stamp.as_bytes()))
    }

    fn instance(&mut self) -> Option<InstanceId> {
        InstanceId::new(self.text()?, self.text()?).ok()
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.rest.is_empty().then_some(value)
    }

    fn key(mut self) -> Option<Key> {
        match self.text()?.as_str() {
            "m" => self.end(Key::Meta),
            "y" => self.end(Key::Import),
            "z" => {
                let kind = self.text()?;
                self.end(Key::KindPaused { kind })
            }
            "d" => {
                let instance = self.instance()?;
                self.end(Key::Directory(instance))
            }
            "i" => {
                let (shard, instance) = (self.number()?, self.instance()?);
                let part = self.part()?;
                Some(Key::Instance {
                    shard,
                    instance,
                    part,
                })
            }
            "r" => {
                let (shard, instance) = (self.number()?, self.instance()?);
                self.end(Key::Ready { shard, instance })
            }
            "w" => {
                let shard = self.number()?;
                self.end(Key::Wake { shard })
            }
            "c" => {
                let session: foundationdb_tuple::Bytes<'_> = self.element()?;
                let session = SessionId(session.as_ref().try_into().ok()?);
                let part = self.session_part()?;
                Some(Key::Session { session, part })
            }
            _ => None,
        }
    }

    fn part(mut self) -> Option<Part> {
        let code = self.text()?;
        if let Some(lane) = Lane::from_code(&code) {
            let (incarnation, stamp, chunk) = (self.number()?, self.stamp()?, self.number()?);
            return self.end(Part::Message {
                lane,
                incarnation,
                stamp,
                chunk,
            });
        }
        match code.as_str() {
            "n" => self.end(Part::Length),
            "s" => Some(Part::State {
                path: Bytes::copy_from_slice(self.rest),
            }),
            "l" => {
                let chunk = self.number()?;
                self.end(Part::LockMessage { chunk })
            }
            "m" => self.meta_part(),
            "x" => {
                let (stamp, chunk) = (self.stamp()?, self.number()?);
                self.end(Part::DeadLetter { stamp, chunk })
            }
            _ => None,
        }
    }

    fn meta_part(mut self) -> Option<Part> {
        match self.text()?.as_str() {
            "a" => {
                let lane = Lane::from_code(&self.text()?)?;
                self.end(Part::Attempts { lane })
            }
            "l" => self.end(Part::Lock),
            "v" => self.end(Part::Version),
            "z" => self.end(Part::Paused),
            _ => None,
        }
    }

    fn session_part(mut self) -> Option<SessionPart> {
        match self.text()?.as_str() {
            "h" => self.end(SessionPart::Heartbeat),
            "w" => self.end(SessionPart::ReplyWake),
            "r" => {
                let (call, chunk) = (self.element()?, self.number()?);
                self.end(SessionPart::Reply { call, chunk })
            }
            "o" => {
                let lane = self.number()?;
                self.end(SessionPart::Outcome { lane })
            }
            _ => None,
        }
    }
}
