//! Finding dead letters, page by page.

use super::{DeadFilter, DeadLetterView};
use crate::admin::Admin;
use crate::admin::foreign::read_letters;
use crate::admin::page::{Cursor, Damage, Page, Place};
use crate::admin::walk::{Found, Walk};
use crate::id::InstanceId;
use crate::store::{KeyRange, StoreError, Tx, after};

/// How many instances one transaction looks at for their letters.
const STEPS: usize = 200;

/// How many bytes of letters a page holds, but for a single one that is larger.
const PAGE_BYTES: usize = 1_000_000;

/// A listing under way.
pub(super) struct Listing {
    walk: Option<Walk>,
    current: Option<(InstanceId, KeyRange)>,
}

impl Admin {
    pub(super) fn listing(
        &self,
        filter: &DeadFilter,
        begin: Option<&Place>,
        at: Option<&InstanceId>,
    ) -> Listing {
        let keys = self.namespace.keys();
        let letters = |instance: &InstanceId| {
            let keys = keys.instance(instance);
            let all = match filter.stamp {
                Some(stamp) => KeyRange::new(
                    keys.dead_letter(stamp, 0),
                    after(&keys.dead_letter(stamp, u32::MAX)),
                ),
                None => keys.dead_letters(),
            };
            (instance.clone(), all)
        };
        if let Some(instance) = &filter.instance {
            let (instance, all) = letters(instance);
            let rest = begin.map_or_else(|| all.clone(), |begin| begin.rest_of(all.clone()));
            return Listing {
                walk: None,
                current: Some((instance, rest)),
            };
        }
        let kind = filter.kind.as_deref();
        let Some(begin) = begin else {
            return Listing {
                walk: Some(Walk::new(keys, kind)),
                current: None,
            };
        };
        let mut walk = Walk::at(keys, kind, begin);
        let current = at.map(|instance| {
            let (instance, all) = letters(instance);
            let behind = Place {
                key: keys.instance(&instance).all().end.to_vec(),
                ..begin.clone()
            };
            walk = Walk::at(keys, kind, &behind);
            (instance, begin.rest_of(all))
        });
        Listing {
            walk: Some(walk),
            current,
        }
    }

    pub(super) async fn list(
        &self,
        tx: &Tx,
        filter: &DeadFilter,
        mut listing: Listing,
        limit: usize,
    ) -> Result<Page<DeadLetterView>, StoreError> {
        let namespace = &self.namespace;
        let mut page = Page {
            items: Vec::new(),
            damaged: Vec::new(),
            next: None,
        };
        let mut bytes = PAGE_BYTES;
        for _ in 0..STEPS {
            if page.items.len() + page.damaged.len() >= limit || bytes == 0 {
                break;
            }
            if let Some((instance, range)) = listing.current.take() {
                let keys = namespace.keys().instance(&instance);
                let rows = limit - page.items.len();
                let read = read_letters(tx, namespace, &keys, range, rows, bytes);
                let (letters, foreign) = read.await?;
                page.damaged.extend(foreign);
                let views = letters.letters.into_iter().map(|(stamp, letter)| {
                    let key = keys.dead_letter(stamp, 0);
                    DeadLetterView {
                        instance: instance.clone(),
                        stamp,
                        letter: match letter {
                            Ok(letter) => Ok((&letter).into()),
                            Err(error) => Err(Damage::new(key, &error)),
                        },
                    }
                });
                let before = page.items.len();
                page.items.extend(views.filter(|view| admits(filter, view)));
                if page.items.len() > before {
                    bytes /= 2;
                }
                listing.current = letters.next.map(|rest| (instance, rest));
                continue;
            }
            let found = match &mut listing.walk {
                Some(walk) => walk.next(tx).await?,
                None => None,
            };
            match found {
                Some(Found::Instance(instance)) => {
                    let range = namespace.keys().instance(&instance).dead_letters();
                    listing.current = Some((instance, range));
                }
                Some(Found::Foreign(key)) => page.damaged.push(Damage::foreign(key)),
                None => return Ok(page),
            }
        }
        let mut place = match &listing.walk {
            Some(walk) => walk.place(0),
            None if listing.current.is_none() => return Ok(page),
            None => Place::default(),
        };
        if let Some((instance, rest)) = &listing.current {
            place.key = rest.begin.to_vec();
            place.instance = Place::of(instance);
        }
        page.next = Some(Cursor(place));
        Ok(page)
    }
}

fn admits(filter: &DeadFilter, view: &DeadLetterView) -> bool {
    let by_stamp = filter.stamp.is_none_or(|stamp| stamp == view.stamp);
    let by_age = match (filter.dead_before_ms, &view.letter) {
        (Some(time), Ok(letter)) => letter.dead_ms < time,
        (Some(_), Err(_)) => false,
        (None, _) => true,
    };
    let by_kind = filter
        .kind
        .as_deref()
        .is_none_or(|kind| kind == view.instance.kind());
    by_stamp && by_age && by_kind
}
