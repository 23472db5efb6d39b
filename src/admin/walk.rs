//! Finding instances by whatever keys they have.

use super::page::Place;
use crate::durable::keys::{Key, Keys};
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, Tx, after};
use bytes::Bytes;

/// A walk over the instances that have anything in the store, a read each, in the order of shard,
/// kind and id.
#[derive(Debug)]
pub(super) struct Walk {
    keys: Keys,
    kind: Option<String>,
    shard: u32,
    rest: KeyRange,
}

/// What a step of the walk came to.
#[derive(Debug)]
pub(super) enum Found {
    /// An instance.
    Instance(InstanceId),
    /// A key that is no instance's, or under the number of another shard.
    Foreign(Bytes),
}

impl Walk {
    pub(super) fn new(keys: &Keys, kind: Option<&str>) -> Self {
        Self {
            rest: keys.instances_of(0, kind),
            keys: keys.clone(),
            kind: kind.map(str::to_owned),
            shard: 0,
        }
    }

    /// The rest of a walk.
    pub(super) fn at(keys: &Keys, kind: Option<&str>, place: &Place) -> Self {
        Self {
            rest: place.rest_of(keys.instances_of(place.shard, kind)),
            keys: keys.clone(),
            kind: kind.map(str::to_owned),
            shard: place.shard,
        }
    }

    /// Where the walk goes on.
    pub(super) fn place(&self, part: u8) -> Place {
        Place {
            part,
            shard: self.shard,
            key: self.rest.begin.to_vec(),
            instance: None,
        }
    }

    /// The next instance, or a key that stands in the way; none at the end.
    pub(super) async fn next(&mut self, tx: &Tx) -> Result<Option<Found>, StoreError> {
        while self.shard < self.keys.shards() {
            let first = tx.get_range(self.rest.read().limit(1).snapshot()).await?;
            let Some(first) = first.into_iter().next() else {
                self.shard += 1;
                self.rest = self.keys.instances_of(self.shard, self.kind.as_deref());
                continue;
            };
            return Ok(Some(match self.keys.decode(&first.key) {
                Ok(Key::Instance {
                    shard, instance, ..
                }) if shard == self.keys.shard(&instance) => {
                    self.rest.begin = self.keys.instance(&instance).all().end;
                    Found::Instance(instance)
                }
                _ => {
                    self.rest.begin = after(&first.key);
                    Found::Foreign(first.key)
                }
            }));
        }
        Ok(None)
    }
}
