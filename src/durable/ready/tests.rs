use super::*;
use crate::durable::queue::tests::{World, instance};

#[test]
fn a_mark_that_was_set_again_outlives_its_removal() {
    let world = World::new();
    world.run(async {
        world.mark("a").await;
        let keys = world.keys("a");
        let turn = world.begin();
        let seen = read_mark(&turn, &keys).await.unwrap().unwrap();
        clear_mark(&turn, &keys, &seen);
        world.mark("a").await;
        turn.commit().await.unwrap();
        let later = read_mark(&world.begin(), &keys).await.unwrap().unwrap();
        assert_ne!(later, seen);
        let turn = world.begin();
        clear_mark(&turn, &keys, &later);
        turn.commit().await.unwrap();
        assert_eq!(read_mark(&world.begin(), &keys).await.unwrap(), None);
    });
}

#[test]
fn the_marks_of_a_shard_are_read_page_by_page_and_foreign_keys_told_apart() {
    let world = World::new();
    world.run(async {
        let keys = world.namespace.keys();
        let shard = keys.shard(&instance("a"));
        let ids: Vec<String> = (0..2_000)
            .map(|n| format!("{n:04}"))
            .filter(|id| keys.shard(&instance(id)) == shard)
            .collect();
        for id in &ids {
            world.mark(id).await;
        }
        let range = keys.ready_of(shard);
        let foreign = after(&range.begin);
        let tx = world.begin();
        tx.set(&foreign, b"");
        tx.commit().await.unwrap();

        let tx = world.begin();
        let (mut next, mut found, mut undecodable) = (Some(range), Vec::new(), Vec::new());
        while let Some(range) = next {
            let page = read_marks(&tx, &world.namespace, range, 7).await.unwrap();
            found.extend(page.instances.iter().map(|(of, _)| of.id().to_owned()));
            undecodable.extend(page.undecodable);
            next = page.next;
        }
        assert!(found.len() > 7);
        assert_eq!(found, ids);
        assert_eq!(undecodable, [foreign]);
    });
}
