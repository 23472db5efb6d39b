use super::*;
use proptest::prelude::*;

fn keys() -> Keys {
    Keys::new(Keys::namespace_prefix("test"), 64)
}

fn any_instance() -> impl Strategy<Value = InstanceId> {
    // Zero bytes are escaped by the encoding, so they are worth more than their share.
    ("[a-z\\x00\u{ff}]{1,8}", "[a-z\\x00\u{ff}]{1,8}")
        .prop_map(|(kind, id)| InstanceId::new(kind, id).unwrap())
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    any::<[u8; Stamp::LEN]>().prop_map(Stamp::from_bytes)
}

fn any_lane() -> impl Strategy<Value = Lane> {
    prop_oneof![Just(Lane::Ordinary), Just(Lane::Priority)]
}

fn any_key() -> impl Strategy<Value = (Bytes, Key)> {
    let instance_part = prop_oneof![
        (any_lane(), any::<u32>(), any_stamp(), any::<u32>()).prop_map(
            |(lane, incarnation, stamp, chunk)| Part::Message {
                lane,
                incarnation,
                stamp,
                chunk
            }
        ),
        // A path is a tuple, and no element begins with the byte that escapes zeros.
        any::<Vec<u8>>()
            .prop_filter("not a path", |path| path.first() != Some(&0xff))
            .prop_map(|path| Part::State { path: path.into() }),
        Just(Part::Length),
        Just(Part::Version),
        Just(Part::Paused),
        Just(Part::Lock),
        any::<u32>().prop_map(|chunk| Part::LockMessage { chunk }),
        any_lane().prop_map(|lane| Part::Attempts { lane }),
        (any_stamp(), any::<u32>()).prop_map(|(stamp, chunk)| Part::DeadLetter { stamp, chunk }),
    ];
    let instances = (any_instance(), instance_part).prop_map(|(instance, part)| {
        let of = keys().instance(&instance);
        let bytes = of.encode(&part);
        (
            bytes,
            Key::Instance {
                shard: of.shard(),
                instance,
                part,
            },
        )
    });
    let session_part = prop_oneof![
        Just(SessionPart::Heartbeat),
        Just(SessionPart::ReplyWake),
        (any::<u64>(), any::<u32>()).prop_map(|(call, chunk)| SessionPart::Reply { call, chunk }),
        any::<u32>().prop_map(|lane| SessionPart::Outcome { lane }),
    ];
    let sessions = (any::<[u8; SessionId::LEN]>(), session_part).prop_map(|(id, part)| {
        let session = SessionId::from_bytes(id);
        let of = keys().session(session);
        let bytes = of.encode(&part);
        (bytes, Key::Session { session, part })
    });
    prop_oneof![
        Just((keys().meta(), Key::Meta)),
        Just((keys().import(), Key::Import)),
        "[a-z\\x00\u{ff}]{1,8}"
            .prop_map(|kind| (keys().kind_paused(&kind), Key::KindPaused { kind })),
        any_instance().prop_map(|instance| (keys().directory(&instance), Key::Directory(instance))),
        any_instance().prop_map(|instance| {
            let of = keys().instance(&instance);
            (
                of.ready().clone(),
                Key::Ready {
                    shard: of.shard(),
                    instance,
                },
            )
        }),
        any::<u32>().prop_map(|shard| (keys().wake(shard), Key::Wake { shard })),
        instances,
        sessions,
    ]
}

proptest! {
    #[test]
    fn every_key_decodes_to_what_it_was_made_of((bytes, key) in any_key()) {
        prop_assert_eq!(keys().decode(&bytes).unwrap(), key);
    }

    #[test]
    fn different_keys_have_different_bytes(a in any_key(), b in any_key()) {
        prop_assert_eq!(a.0 == b.0, a.1 == b.1);
    }

    #[test]
    fn only_what_is_written_here_decodes(suffix in any::<Vec<u8>>()) {
        let mut bytes = keys().prefix.to_vec();
        bytes.extend_from_slice(&suffix);
        if let Ok(key) = keys().decode(&bytes) {
            prop_assert_eq!(keys().encode(&key), bytes);
        }
    }

    #[test]
    fn damaged_keys_are_never_taken_for_the_original((bytes, key) in any_key(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut damaged = bytes.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        if let Ok(other) = keys().decode(&damaged) {
            prop_assert_ne!(other, key);
        }
    }

    #[test]
    fn messages_are_ordered_by_incarnation_stamp_and_chunk(
        a in (any::<u32>(), any_stamp(), any::<u32>()),
        b in (any::<u32>(), any_stamp(), any::<u32>()),
    ) {
        let of = keys().instance(&InstanceId::new("kind", "id").unwrap());
        let key = |(incarnation, stamp, chunk)| of.message(Lane::Ordinary, incarnation, stamp, chunk);
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }

    #[test]
    fn a_filled_push_template_is_the_key_of_the_message(
        incarnation in any::<u32>(), commit in any::<[u8; CommitStamp::LEN]>(), user in any::<u16>(), chunk in any::<u32>(),
    ) {
        let of = keys().instance(&InstanceId::new("kind", "id").unwrap());
        let StampedKey { template, offset } = of.push(Lane::Priority, incarnation, user, chunk);
        let mut filled = template.to_vec();
        filled[offset..offset + CommitStamp::LEN].copy_from_slice(&commit);
        let stamp = CommitStamp::from_bytes(commit).with_user(user);
        prop_assert_eq!(filled, of.message(Lane::Priority, incarnation, stamp, chunk));
    }
}

#[test]
fn deep_nesting_in_a_foreign_key_does_not_reach_a_recursive_parser() {
    let mut bytes = keys().all().begin.to_vec();
    bytes.extend(std::iter::repeat_n(0x05, 9_000));
    keys().decode(&bytes).unwrap_err();
}

#[test]
fn the_ranges_of_an_instance_a_kind_and_a_namespace_cover_no_neighbour() {
    // One shard, so that neighbours are neighbours in the key space too.
    let keys = |name| Keys::new(Keys::namespace_prefix(name), 1);
    let instance = |kind, id| InstanceId::new(kind, id).unwrap();
    let of = |id| keys("test").instance(&instance("kind", id));
    assert!(of("a").all().contains(&of("a").version()));
    assert!(of("a").all().contains(&of("a").state().begin));
    let directory = keys("test").directory_of(Some("a"));
    assert!(directory.contains(&keys("test").directory(&instance("a", "id"))));
    for neighbour in ["ab", "a\0", "a\0b", "a\u{ff}"] {
        assert!(
            !of("a").all().contains(&of(neighbour).version()),
            "{neighbour:?}"
        );
        assert!(!directory.contains(&keys("test").directory(&instance(neighbour, "id"))));
        assert!(
            !keys("a").all().intersects(&keys(neighbour).all()),
            "{neighbour:?}"
        );
    }
}

#[test]
fn numbers_with_leading_zeros_are_foreign() {
    let key = keys().wake(5);
    assert!(keys().decode(&key).is_ok());
    let (group, five) = key.split_at(key.len() - 2);
    assert_eq!(five, [0x15, 5]);
    for spelled in [&[0x16, 0, 5][..], &[0x17, 0, 0, 5]] {
        keys().decode(&[group, spelled].concat()).unwrap_err();
    }
}

#[test]
fn neighbouring_ids_scatter_over_the_shards() {
    let shards: std::collections::BTreeSet<u32> = (0..1_000)
        .map(|n| keys().shard(&InstanceId::new("kind", format!("{n}")).unwrap()))
        .collect();
    assert_eq!(
        shards.len(),
        64,
        "1 000 instances should touch all 64 shards"
    );
}

#[test]
fn kinds_and_ids_have_bounded_lengths() {
    let longest = InstanceId::new("k".repeat(128), "\0".repeat(1_024)).unwrap();
    let key = keys().instance(&longest).length();
    assert!(
        key.len() < crate::store::MAX_KEY_BYTES / 3,
        "{} bytes",
        key.len()
    );
    for (kind, id) in [
        ("", "id"),
        ("kind", ""),
        (&*"k".repeat(129), "id"),
        ("kind", &*"i".repeat(1_025)),
    ] {
        InstanceId::new(kind, id).unwrap_err();
    }
}
