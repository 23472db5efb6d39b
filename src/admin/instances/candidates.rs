//! Which instances there are: from the directory, from whatever else is stored, from the ready marks.

use crate::admin::page::{Damage, Place};
use crate::admin::walk::{Found, Walk};
use crate::durable::{Namespace, directory, ready};
use crate::id::InstanceId;
use crate::store::{StoreError, TransactionExt, Tx};

/// The parts of the listing.
pub(super) const DIRECTORY: u8 = 0;
pub(super) const WALK: u8 = 1;
pub(in crate::admin) const MARKS: u8 = 2;

/// Candidates of a page.
#[derive(Default)]
pub(in crate::admin) struct Candidates {
    pub(in crate::admin) instances: Vec<InstanceId>,
    pub(in crate::admin) damaged: Vec<Damage>,
    pub(in crate::admin) next: Option<Place>,
}

pub(super) async fn from_directory(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let range = begin.rest_of(namespace.keys().directory_of(kind));
    let page = directory::list(tx, namespace.keys(), range, limit).await?;
    let next = match page.next {
        Some(rest) => Place {
            key: rest.begin.to_vec(),
            ..begin.clone()
        },
        None => Walk::new(namespace.keys(), kind).place(WALK),
    };
    Ok(Candidates {
        instances: page.entries,
        damaged: page.undecodable.into_iter().map(Damage::foreign).collect(),
        next: Some(next),
    })
}

/// Those that the directory does not know.
pub(super) async fn from_walk(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let mut walk = Walk::at(namespace.keys(), kind, begin);
    let mut found = Candidates::default();
    for _ in 0..limit {
        match walk.next(tx).await? {
            Some(Found::Instance(instance)) => {
                let entry = namespace.keys().directory(&instance);
                if tx.peek(&entry).await?.is_none() {
                    found.instances.push(instance);
                }
            }
            Some(Found::Foreign(key)) => found.damaged.push(Damage::foreign(key)),
            None => return Ok(found),
        }
    }
    found.next = Some(walk.place(WALK));
    Ok(found)
}

pub(in crate::admin) async fn from_marks(
    tx: &Tx,
    namespace: &Namespace,
    kind: Option<&str>,
    begin: &Place,
    limit: usize,
) -> Result<Candidates, StoreError> {
    let keys = namespace.keys();
    let mut found = Candidates::default();
    let mut place = begin.clone();
    while place.shard < keys.shards() {
        let left = limit - (found.instances.len() + found.damaged.len()).min(limit);
        if left == 0 {
            found.next = Some(place);
            return Ok(found);
        }
        let all = match kind {
            Some(kind) => keys.ready_of_kind(place.shard, kind),
            None => keys.ready_of(place.shard),
        };
        let marks = ready::read_marks(tx, namespace, place.rest_of(all), left).await?;
        found
            .instances
            .extend(marks.instances.into_iter().map(|(instance, _)| instance));
        let damaged = marks.undecodable.into_iter().map(Damage::foreign);
        found.damaged.extend(damaged);
        place = Place {
            part: MARKS,
            shard: place.shard + u32::from(marks.next.is_none()),
            key: marks
                .next
                .map(|rest| rest.begin.to_vec())
                .unwrap_or_default(),
            instance: None,
        };
    }
    Ok(found)
}
