use super::tree::{Placed, Tree};
use super::{AsElement, DuplicateId, Item, LazyMap, List, Map};
use crate::codec::{self, Change, Ignored, Leaves, Path, decode, diff, encode};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    amount: u32,
    notes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    id: String,
    done: u32,
}

impl Item for Task {
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Maps {
    title: u32,
    inner: MapsInner,
    numbers: Map<i64, u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct MapsInner {
    lines: Map<String, Line>,
    other: Option<Map<String, Line>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Plain {
    title: u32,
    inner: PlainInner,
    numbers: BTreeMap<i64, u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct PlainInner {
    lines: BTreeMap<String, Line>,
    other: Option<BTreeMap<String, Line>>,
}

/// A state as a turn keeps it.
struct Stored<T> {
    state: T,
    leaves: Leaves,
    ignored: Ignored,
}

impl<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug> Stored<T> {
    fn new(state: T) -> Self {
        let mut stored = Self {
            state,
            leaves: Leaves::new(),
            ignored: Ignored::none(),
        };
        stored.commit();
        stored
    }

    fn load(mut leaves: Leaves) -> Self {
        let (state, ignored) = codec::load(&mut leaves).unwrap();
        Self {
            state,
            leaves,
            ignored,
        }
    }

    fn commit(&mut self) -> Vec<Change> {
        let update = codec::update(&self.state, &self.leaves, &self.ignored).unwrap();
        let changes = update.changes.clone();
        self.ignored = update.ignored.clone();
        let mut written = self.leaves.clone();
        written.apply(&changes);
        update.land(&mut self.leaves);
        assert_eq!(self.leaves, written);
        let found = decode::<T>(&written).unwrap();
        assert_eq!(found.value, self.state);
        assert_eq!(found.ignored, self.ignored);
        changes
    }

    fn undo(&mut self) {
        self.state = codec::restore(&self.leaves).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(bool, String, u32),
    Change(bool, String, u32),
    Note(String, String, Option<String>),
    Remove(bool, String),
    Clear(bool),
    Number(i64, Option<u32>),
    Title(u32),
    Swap,
    Copy,
    Other(bool),
    Retain(u32),
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["", "a", "a\0", "b", "\u{e9}"]).prop_map(str::to_owned),
        "[a-h]{1,2}",
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<bool>(), keys(), 0..9_u32).prop_map(|(w, k, v)| Op::Insert(w, k, v)),
        4 => (any::<bool>(), keys(), 0..9_u32).prop_map(|(w, k, v)| Op::Change(w, k, v)),
        3 => (keys(), "[xy]", prop::option::of("[pq]")).prop_map(|(k, n, v)| Op::Note(k, n, v)),
        4 => (any::<bool>(), keys()).prop_map(|(w, k)| Op::Remove(w, k)),
        1 => any::<bool>().prop_map(Op::Clear),
        4 => (-300..300_i64, prop::option::of(0..9_u32)).prop_map(|(k, v)| Op::Number(k, v)),
        1 => (0..9_u32).prop_map(Op::Title),
        1 => Just(Op::Swap),
        1 => Just(Op::Copy),
        1 => any::<bool>().prop_map(Op::Other),
        1 => (0..9_u32).prop_map(Op::Retain),
    ]
}

fn line(amount: u32) -> Line {
    Line {
        amount,
        notes: BTreeMap::new(),
    }
}

fn run(op: &Op, maps: &mut Maps, plain: &mut Plain) {
    let (m, p) = (&mut maps.inner, &mut plain.inner);
    fn both<'s>(
        other: bool,
        m: &'s mut MapsInner,
        p: &'s mut PlainInner,
    ) -> (&'s mut Map<String, Line>, &'s mut BTreeMap<String, Line>) {
        match (&mut m.other, &mut p.other) {
            (Some(m), Some(p)) if other => (m, p),
            _ => (&mut m.lines, &mut p.lines),
        }
    }
    match op.clone() {
        Op::Insert(other, key, amount) => {
            let (m, p) = both(other, m, p);
            assert_eq!(
                m.insert(key.clone(), line(amount)),
                p.insert(key, line(amount)).is_none()
            );
        }
        Op::Change(other, key, amount) => {
            let (m, p) = both(other, m, p);
            m.entry(key.clone(), || line(1)).amount += amount;
            p.entry(key).or_insert_with(|| line(1)).amount += amount;
        }
        Op::Note(key, name, text) => {
            let lines = [m.lines.get_mut(&key), p.lines.get_mut(&key)];
            for line in lines.into_iter().flatten() {
                match text.clone() {
                    Some(text) => drop(line.notes.insert(name.clone(), text)),
                    None => drop(line.notes.remove(&name)),
                }
            }
        }
        Op::Remove(other, key) => {
            let (m, p) = both(other, m, p);
            assert_eq!(m.remove(&key), p.remove(&key));
        }
        Op::Clear(other) => {
            let (m, p) = both(other, m, p);
            m.clear();
            p.clear();
        }
        Op::Number(key, Some(number)) => {
            maps.numbers.insert(key, number);
            plain.numbers.insert(key, number);
        }
        Op::Number(key, None) => {
            assert_eq!(maps.numbers.remove(&key), plain.numbers.remove(&key));
        }
        Op::Title(title) => {
            maps.title = title;
            plain.title = title;
        }
        Op::Swap => {
            if let (Some(m_other), Some(p_other)) = (&mut m.other, &mut p.other) {
                std::mem::swap(m_other, &mut m.lines);
                std::mem::swap(p_other, &mut p.lines);
            }
        }
        Op::Copy => {
            m.other = Some(m.lines.clone());
            p.other = Some(p.lines.clone());
        }
        Op::Other(there) => {
            m.other = there.then(Map::new);
            p.other = there.then(BTreeMap::new);
        }
        Op::Retain(amount) => {
            m.lines.retain(|_, line| line.amount != amount);
            p.lines.retain(|_, line| line.amount != amount);
        }
    }
}

fn assert_same(maps: &Maps, plain: &Plain) {
    assert_eq!(maps.title, plain.title);
    assert!(maps.inner.lines.iter().eq(plain.inner.lines.iter()));
    assert_eq!(maps.inner.lines.len(), plain.inner.lines.len());
    assert!(maps.numbers.iter().eq(plain.numbers.iter()));
    for (position, entry) in plain.numbers.iter().enumerate() {
        assert_eq!(maps.numbers.nth(position), Some(entry));
    }
    match (&maps.inner.other, &plain.inner.other) {
        (Some(m), Some(p)) => assert!(m.iter().eq(p.iter())),
        (m, p) => assert!(m.is_none() && p.is_none()),
    }
}

#[derive(Debug, Clone)]
enum ListOp {
    Insert(usize, String),
    Remove(usize),
    Move(usize, usize),
    Done(usize),
    Rename(usize, String),
    Clear,
}

fn list_ops() -> impl Strategy<Value = ListOp> {
    prop_oneof![
        6 => (0..12_usize, "[a-l]").prop_map(|(at, id)| ListOp::Insert(at, id)),
        2 => (0..12_usize).prop_map(ListOp::Remove),
        3 => (0..12_usize, 0..12_usize).prop_map(|(from, to)| ListOp::Move(from, to)),
        3 => (0..12_usize).prop_map(ListOp::Done),
        2 => (0..12_usize, "[a-l]").prop_map(|(at, id)| ListOp::Rename(at, id)),
        1 => Just(ListOp::Clear),
    ]
}

fn task(id: &str) -> Task {
    Task {
        id: id.to_owned(),
        done: 0,
    }
}

fn run_list(op: &ListOp, list: &mut List<Task>, plain: &mut Vec<Task>) {
    let known = |plain: &[Task], id: &str| plain.iter().any(|task| task.id == id);
    match op.clone() {
        ListOp::Insert(at, id) => {
            let inserted = list.insert(at, task(&id));
            if known(plain, &id) {
                assert_eq!(inserted, Err(DuplicateId(id)));
            } else {
                inserted.unwrap();
                plain.insert(at.min(plain.len()), task(&id));
            }
        }
        ListOp::Remove(at) => {
            let removed = (at < plain.len()).then(|| plain.remove(at));
            assert_eq!(list.remove(at), removed);
        }
        ListOp::Move(from, to) => {
            assert_eq!(list.move_to(from, to), from < plain.len());
            if from < plain.len() {
                let task = plain.remove(from);
                plain.insert(to.min(plain.len()), task);
            }
        }
        ListOp::Done(at) => {
            list.update(at, |task| task.done += 1).unwrap();
            if let Some(task) = plain.get_mut(at) {
                task.done += 1;
            }
        }
        ListOp::Rename(at, id) => {
            let renamed = list.update(at, |task| task.id.clone_from(&id));
            if at < plain.len() && plain[at].id != id && known(plain, &id) {
                assert_eq!(renamed, Err(DuplicateId(id)));
            } else if let Some(task) = plain.get_mut(at) {
                task.id = id;
            }
        }
        ListOp::Clear => {
            list.clear();
            plain.clear();
        }
    }
    assert!(list.iter().eq(plain.iter()));
    for (position, task) in plain.iter().enumerate() {
        assert_eq!(list.position(&task.id), Some(position));
        assert_eq!(list.get(position), Some(task));
        assert_eq!(list.get_id(&task.id), Some(task));
    }
}

/// Which of the items that a turn leaves must have been written by it.
fn touched(changes: &[Change]) -> BTreeSet<String> {
    let paths = changes.iter().map(Change::path);
    paths
        .filter_map(|path| path.elements().nth(1).map(|id| format!("{id:?}")))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn maps_are_stored_by_the_same_changes_as_plain_ones(
        turns in prop::collection::vec((prop::collection::vec(ops(), 0..8), 0..4_u8), 1..12)
    ) {
        let mut maps = Stored::new(Maps::default());
        let mut plain = Stored::new(Plain::default());
        for (ops, end) in turns {
            for op in &ops {
                run(op, &mut maps.state, &mut plain.state);
            }
            assert_same(&maps.state, &plain.state);
            if end == 0 {
                maps.undo();
                plain.undo();
                assert_same(&maps.state, &plain.state);
                continue;
            }
            prop_assert_eq!(maps.commit(), plain.commit());
            prop_assert_eq!(&maps.leaves, &plain.leaves);
            let payload = codec::to_payload(&maps.state).unwrap();
            prop_assert_eq!(&payload, &codec::to_payload(&plain.state).unwrap());
            prop_assert_eq!(&codec::from_payload::<Maps>(&payload).unwrap(), &maps.state);
            if end == 1 {
                maps = Stored::load(plain.leaves.clone());
                plain = Stored::load(maps.leaves.clone());
            }
        }
    }

    #[test]
    fn lists_are_stored_as_plain_ones_and_write_what_was_touched(
        turns in prop::collection::vec((prop::collection::vec(list_ops(), 0..6), 0..4_u8), 1..12)
    ) {
        let mut list = Stored::new(Tasks { tasks: List::new() });
        let mut plain: Vec<Task> = Vec::new();
        for (ops, end) in turns {
            let before = plain.clone();
            for op in &ops {
                run_list(op, &mut list.state.tasks, &mut plain);
            }
            if end == 0 {
                list.undo();
                plain = before;
                continue;
            }
            let changes = list.commit();
            prop_assert!(touched(&changes).len() <= 2 * ops.len() + before.len() * usize::from(ops.iter().any(|op| matches!(op, ListOp::Clear))));
            let stored = decode::<PlainTasks>(&list.leaves).unwrap();
            prop_assert_eq!(&stored.value.tasks, &plain);
            // As a plain list it is stored already.
            let again = encode(&stored.value, &list.leaves, &stored.ignored).unwrap();
            prop_assert_eq!(diff(&list.leaves, &again.leaves), []);
            if end == 1 {
                list = Stored::load(list.leaves.clone());
                prop_assert_eq!(list.commit(), []);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tasks {
    tasks: List<Task>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PlainTasks {
    tasks: Vec<Task>,
}

fn tasks(count: usize) -> Stored<Tasks> {
    let tasks: Vec<Task> = (0..count).map(|at| task(&format!("t{at}"))).collect();
    Stored::new(Tasks {
        tasks: tasks.try_into().unwrap(),
    })
}

#[test]
fn a_change_writes_the_leaf_that_changed() {
    let mut tasks = tasks(50);
    tasks
        .state
        .tasks
        .update_id("t7", |task| task.done = 1)
        .unwrap();
    let at = Path::root().child("tasks").child("t7");
    assert_eq!(
        tasks.commit(),
        [Change::Set(at.child("done"), vec![1].into())]
    );
    assert!(tasks.state.tasks.move_to(49, 3));
    let moved = tasks.commit();
    let moved: Vec<&Path> = moved.iter().map(Change::path).collect();
    assert_eq!(moved, [&Path::root().child("tasks").child("t49")]);
    tasks.state.tasks.remove_id("t7").unwrap();
    assert_eq!(tasks.commit(), [Change::ClearTree(at)]);
    // Touched and the same as before.
    tasks.state.tasks.update_id("t8", |_| ()).unwrap();
    assert_eq!(tasks.commit(), []);
}

#[test]
fn many_inserts_at_one_place_number_the_list_afresh() {
    let mut tasks = tasks(2);
    for at in 0..1_000 {
        tasks
            .state
            .tasks
            .insert(1, task(&format!("n{at}")))
            .unwrap();
        if at % 50 == 0 {
            tasks.commit();
        }
    }
    tasks.commit();
    assert_eq!(tasks.state.tasks.get(1).unwrap().id, "n999");
    assert_eq!(tasks.state.tasks.position("t1"), Some(1_001));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NewLine {
    amount: u32,
    notes: BTreeMap<String, String>,
    price: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewMaps {
    title: u32,
    inner: NewInner,
    numbers: BTreeMap<i64, u32>,
    tasks: Vec<NewTask>,
    more: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewInner {
    lines: BTreeMap<String, NewLine>,
    other: (),
    more: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewTask {
    id: String,
    done: u32,
    price: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OldMaps {
    title: u32,
    inner: MapsInner,
    numbers: Map<i64, u32>,
    tasks: List<Task>,
}

fn newer() -> NewMaps {
    let line = |price| NewLine {
        amount: 1,
        notes: BTreeMap::new(),
        price,
    };
    let task = |id: &str, price| NewTask {
        id: id.to_owned(),
        done: 0,
        price,
    };
    NewMaps {
        title: 0,
        inner: NewInner {
            lines: BTreeMap::from([
                ("a".into(), line(5)),
                ("b".into(), line(6)),
                ("c".into(), line(7)),
            ]),
            other: (),
            more: 8,
        },
        numbers: BTreeMap::from([(1, 1)]),
        tasks: vec![task("x", 1), task("y", 2), task("z", 3)],
        more: 9,
    }
}

#[test]
fn fields_of_a_newer_version_survive_in_entries_and_beside_them() {
    let mut expected = newer();
    let leaves = encode(&expected, &Leaves::new(), &Ignored::none())
        .unwrap()
        .leaves;
    let mut old = Stored::<OldMaps>::load(leaves);
    assert_eq!(old.ignored.paths().len(), 8);
    old.state.inner.lines.get_mut("b").unwrap().amount = 3;
    assert_eq!(old.commit().len(), 1);
    old.state.inner.lines.remove("a");
    old.state
        .tasks
        .update_id("y", |task| task.done = 4)
        .unwrap();
    old.state.tasks.move_to(0, 2);
    old.state.title = 7;
    old.commit();
    old.undo();
    old.state.numbers.insert(2, 2);
    assert_eq!(old.commit().len(), 1);
    expected.title = 7;
    expected.numbers.insert(2, 2);
    expected.inner.lines.remove("a");
    expected.inner.lines.get_mut("b").unwrap().amount = 3;
    expected.tasks.rotate_left(1);
    expected.tasks[0].done = 4;
    assert_eq!(decode::<NewMaps>(&old.leaves).unwrap().value, expected);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    One { a: u32 },
    Two { b: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Small(u8),
    Large(u64),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Buffered {
    wide: i128,
    events: Map<u32, Tagged>,
    sizes: Map<String, Untagged>,
    either: Tagged,
    nested: Vec<Map<String, u32>>,
}

#[test]
fn buffers_in_and_beside_collections_are_looked_at() {
    let mut stored = Stored::new(Buffered {
        wide: i128::MAX,
        events: (0..5).map(|at| (at, Tagged::One { a: at })).collect(),
        sizes: Map::new(),
        either: Tagged::Two { b: 1 },
        nested: vec![[("a".to_owned(), 1)].into_iter().collect()],
    });
    stored.state.events.insert(3, Tagged::Two { b: 3 });
    stored.state.nested[0].insert("b".into(), 2);
    stored.state.either = Tagged::One { a: 2 };
    stored.commit();
    stored.undo();
    assert_eq!(stored.state.events.get(&3), Some(&Tagged::Two { b: 3 }));
    stored
        .state
        .sizes
        .insert("s".into(), Untagged::Large(1 << 40));
    stored.commit();
    stored.state.sizes.insert("t".into(), Untagged::Large(1));
    let refused = codec::update(&stored.state, &stored.leaves, &stored.ignored).unwrap_err();
    assert_eq!(refused.kind(), codec::CodecErrorKind::Refused);
    assert_eq!(refused.path(), "state.sizes.t");
}

#[test]
fn a_list_that_was_stored_without_ids_becomes_one_with_them() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        tasks: Vec<(String, u32)>,
    }
    let before = Before { tasks: Vec::new() };
    let leaves = encode(&before, &Leaves::new(), &Ignored::none())
        .unwrap()
        .leaves;
    let mut now = Stored::<Tasks>::load(leaves);
    now.state.tasks.push(task("a")).unwrap();
    now.commit();
}

#[derive(Debug, Clone)]
struct Number(u64);

impl Placed for Number {
    fn order(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }

    fn priority(&self) -> u64 {
        super::priority(&self.0.as_element())
    }
}

/// Ascending keys whose hashes descend, with the one hash that everybody knows.
fn chain(length: u64) -> Vec<u64> {
    let step = u64::MAX / length;
    let mut above = u64::MAX;
    let candidates = (0_u64..).filter(|key| {
        let mut hasher = DefaultHasher::new();
        key.as_element().hash(&mut hasher);
        let hash = hasher.finish();
        let is_next = hash < above && above - hash <= step;
        if is_next {
            above = hash;
        }
        is_next
    });
    candidates
        .take(usize::try_from(length).unwrap() / 2)
        .collect()
}

/// The functions of a tree go down it, and so does its drop.
#[test]
fn no_keys_make_a_tree_deep() {
    let small = |work: fn()| {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        thread.spawn(work).unwrap().join().unwrap();
    };
    small(|| {
        let keys = chain(2_000);
        assert_eq!(keys.len(), 1_000);
        let mut tree = Tree::default();
        for key in &keys {
            tree.insert(Number(*key));
        }
        assert!(tree.depth() <= 64, "{}", tree.depth());
    });
    small(|| {
        let mut tree = Tree::default();
        for key in 0..60_000 {
            tree.insert(Number(key));
        }
        let before = tree.clone();
        for key in (0..60_000).step_by(2) {
            tree.remove(|number| number.0.cmp(&key)).unwrap();
        }
        let mut gone = 0;
        let mut count = |old: Option<&Number>, new: Option<&Number>| {
            assert!(old.is_some() && new.is_none());
            gone += 1;
            Ok::<(), ()>(())
        };
        tree.differences(&before, &mut count).unwrap();
        assert_eq!(gone, 30_000);
    });
    small(|| {
        let mut map: LazyMap<u64, u64> = LazyMap::new();
        map.extend((0..60_000).map(|key| (key, key)));
        let before = map.clone();
        for key in (0..60_000).step_by(3) {
            map.remove(&key);
        }
        for key in (1..60_000).step_by(3) {
            *map.entry(key, || 0).unwrap() += 1;
        }
        assert_eq!(map.in_memory().count(), 40_000);
        assert_eq!(before.in_memory().count(), 60_000);
        drop(before);
    });
}
