//! A store with an instance's state, and the nodes that work on it.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Get(bool, String),
    Load(Vec<String>),
    Range(String, Option<String>, usize),
    Insert(bool, String, u32),
    Long(String),
    Change(bool, String, u32),
    Note(String, String, Option<String>),
    Take(bool, String),
    Remove(bool, String),
    Clear(bool),
    Number(i64, Option<u32>),
    Numbers(i64, usize),
    Title(u32),
    Copy,
    Swap,
    Other(bool),
}

impl Op {
    /// Whether it moves a map, which is refused unless all of it is in memory.
    fn moves(&self) -> bool {
        matches!(self, Self::Copy | Self::Swap)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Commit,
    Undo,
    /// It fails, and the node forgets all.
    Crash,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Lazy(usize),
    Plain,
}

/// One turn.
#[derive(Debug, Clone)]
pub(super) struct Program {
    node: Node,
    ops: Vec<Op>,
    end: End,
    /// The handler goes on after something was missing, as if it were not there.
    careless: bool,
    /// How many entries and bytes one read gives at most.
    budget: (usize, usize),
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["", "a", "a\0", "a\0b", "b", "\u{e9}"]).prop_map(str::to_owned),
        "[a-e]{1,2}",
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let number = -300..300_i64;
    prop_oneof![
        6 => (any::<bool>(), keys()).prop_map(|(w, k)| Op::Get(w, k)),
        1 => prop::collection::vec(keys(), 0..4).prop_map(Op::Load),
        3 => (keys(), prop::option::of(keys()), 0..6_usize).prop_map(|(f, t, n)| Op::Range(f, t, n)),
        6 => (any::<bool>(), keys(), 0..9_u32).prop_map(|(w, k, v)| Op::Insert(w, k, v)),
        1 => keys().prop_map(Op::Long),
        4 => (any::<bool>(), keys(), 0..9_u32).prop_map(|(w, k, v)| Op::Change(w, k, v)),
        3 => (keys(), "[xy]", prop::option::of("[pq]")).prop_map(|(k, n, v)| Op::Note(k, n, v)),
        2 => (any::<bool>(), keys()).prop_map(|(w, k)| Op::Take(w, k)),
        4 => (any::<bool>(), keys()).prop_map(|(w, k)| Op::Remove(w, k)),
        1 => any::<bool>().prop_map(Op::Clear),
        4 => (number.clone(), prop::option::of(0..9_u32)).prop_map(|(k, v)| Op::Number(k, v)),
        1 => (number, 0..6_usize).prop_map(|(k, n)| Op::Numbers(k, n)),
        1 => (0..9_u32).prop_map(Op::Title),
        1 => Just(Op::Copy),
        1 => Just(Op::Swap),
        1 => any::<bool>().prop_map(Op::Other),
    ]
}

pub(super) fn turns() -> impl Strategy<Value = Vec<Program>> {
    let node = prop_oneof![
        4 => Just(Node::Lazy(0)),
        2 => Just(Node::Lazy(1)),
        1 => Just(Node::Plain),
    ];
    let end = prop_oneof![5 => Just(End::Commit), 2 => Just(End::Undo), 1 => Just(End::Crash)];
    let budget = (1..4_usize, prop::sample::select(vec![0, 100, 1_000_000]));
    let ops = prop::collection::vec(ops(), 0..7);
    let program =
        (node, ops, end, any::<bool>(), budget).prop_map(|(node, ops, end, careless, budget)| {
            Program {
                node,
                ops,
                end,
                careless,
                budget,
            }
        });
    prop::collection::vec(program, 1..14)
}

fn long() -> Line {
    let text = "x".repeat(2 * CHUNK_BYTES + 7);
    Line {
        amount: 0,
        notes: BTreeMap::from([("x".to_owned(), text)]),
    }
}

/// What an operation shows, in the same words for both kinds of states.
type Shown = String;

fn show<T: std::fmt::Debug>(what: T) -> Shown {
    format!("{what:?}")
}

fn run_lazy(op: &Op, state: &mut Lazy) -> Result<Shown, NotLoaded> {
    let inner = &mut state.inner;
    fn which(other: bool, inner: &mut LazyInner) -> &mut LazyMap<String, Line> {
        match &mut inner.other {
            Some(map) if other => map,
            _ => &mut inner.lines,
        }
    }
    Ok(match op.clone() {
        Op::Get(other, key) => {
            let map = which(other, inner);
            assert_eq!(map.contains_key(&key)?, map.get(&key)?.is_some());
            show(map.get(&key)?)
        }
        Op::Load(keys) => show(inner.lines.load(keys.iter().map(String::as_str))?),
        Op::Range(from, to, limit) => {
            let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            show(
                inner
                    .lines
                    .range::<str, _>((Bound::Included(from.as_str()), to), limit)?,
            )
        }
        Op::Insert(other, key, amount) => show(which(other, inner).insert(key, line(amount))),
        Op::Long(key) => show(inner.lines.insert(key, long())),
        Op::Change(other, key, amount) => {
            let entry = which(other, inner).entry(key, || line(1))?;
            entry.amount += amount;
            show(&*entry)
        }
        Op::Note(key, name, text) => {
            let entry = inner.lines.get_mut(key.as_str())?;
            show(entry.map(|entry| note(entry, name, text)))
        }
        Op::Take(other, key) => show(which(other, inner).take(key.as_str())?),
        Op::Remove(other, key) => show(which(other, inner).remove(key.as_str())),
        Op::Clear(other) => show(which(other, inner).clear()),
        Op::Number(key, Some(number)) => show(state.numbers.insert(key, number)),
        Op::Number(key, None) => show(state.numbers.take(&key)?),
        Op::Numbers(from, limit) => {
            let from = (Bound::Excluded(from), Bound::Unbounded);
            show(state.numbers.range::<i64, _>(from, limit)?)
        }
        Op::Title(title) => show(state.title = title),
        Op::Copy => show(inner.other = Some(inner.lines.clone())),
        Op::Swap => show(if let Some(other) = &mut inner.other {
            std::mem::swap(other, &mut inner.lines);
        }),
        Op::Other(there) => show(inner.other = there.then(LazyMap::new)),
    })
}

fn note(entry: &mut Line, name: String, text: Option<String>) {
    match text {
        Some(text) => drop(entry.notes.insert(name, text)),
        None => drop(entry.notes.remove(&name)),
    }
}

fn run_plain(op: &Op, state: &mut Plain) -> Shown {
    let inner = &mut state.inner;
    fn which(other: bool, inner: &mut PlainInner) -> &mut BTreeMap<String, Line> {
        match &mut inner.other {
            Some(map) if other => map,
            _ => &mut inner.lines,
        }
    }
    match op.clone() {
        Op::Get(other, key) => show(which(other, inner).get(&key)),
        Op::Range(from, to, limit) => {
            let to = to.filter(|to| *to >= from);
            let empty = matches!(op, Op::Range(_, Some(_), _)) && to.is_none();
            let to = to.map_or(Bound::Unbounded, Bound::Excluded);
            let found = inner.lines.range((Bound::Included(from), to));
            show(
                found
                    .take(if empty { 0 } else { limit })
                    .collect::<Vec<_>>(),
            )
        }
        Op::Insert(other, key, amount) => {
            which(other, inner).insert(key, line(amount));
            show(())
        }
        Op::Long(key) => {
            inner.lines.insert(key, long());
            show(())
        }
        Op::Change(other, key, amount) => {
            let entry = which(other, inner).entry(key).or_insert_with(|| line(1));
            entry.amount += amount;
            show(&*entry)
        }
        Op::Note(key, name, text) => {
            let entry = inner.lines.get_mut(&key);
            show(entry.map(|entry| note(entry, name, text)))
        }
        Op::Take(other, key) => show(which(other, inner).remove(&key)),
        Op::Remove(other, key) => {
            which(other, inner).remove(&key);
            show(())
        }
        Op::Clear(other) => show(which(other, inner).clear()),
        Op::Number(key, Some(number)) => {
            state.numbers.insert(key, number);
            show(())
        }
        Op::Number(key, None) => show(state.numbers.remove(&key)),
        Op::Numbers(from, limit) => {
            let from = (Bound::Excluded(from), Bound::Unbounded);
            show(state.numbers.range(from).take(limit).collect::<Vec<_>>())
        }
        Op::Title(title) => show(state.title = title),
        Op::Copy => show(inner.other = Some(inner.lines.clone())),
        Op::Swap => show(if let Some(other) = &mut inner.other {
            std::mem::swap(other, &mut inner.lines);
        }),
        Op::Other(there) => show(inner.other = there.then(BTreeMap::new)),
        Op::Load(_) => show(()),
    }
}

/// What a node has in memory.
struct Cache {
    version: StateVersion,
    state: Lazy,
    leaves: Leaves,
    ignored: Ignored,
}

pub(super) struct Machine {
    runtime: Runtime,
    store: MemoryStore,
    keys: InstanceKeys,
    places: Vec<Path>,
    nodes: [Option<Cache>; 2],
    model: Plain,
}

impl Machine {
    pub(super) fn new() -> Self {
        let keys = Keys::new(Keys::namespace_prefix("test"), 8);
        let machine = Self {
            runtime: runtime(),
            store: MemoryStore::new(),
            keys: keys.instance(&InstanceId::new("cart", "7").unwrap()),
            places: lazy_places::<Lazy>(),
            nodes: [None, None],
            model: Plain::default(),
        };
        machine.write(
            &machine.begin(),
            &diff_from_nothing(&machine.model),
            &Leaves::new(),
        );
        machine
    }

    fn begin(&self) -> Tx {
        self.store.begin().unwrap()
    }

    fn write(&self, tx: &Tx, changes: &[Change], base: &Leaves) -> StateVersion {
        state::write(tx, &self.keys, changes, base, 1).unwrap();
        let committed = self.runtime.block_on(tx.commit()).unwrap().unwrap();
        StateVersion {
            stamp: committed.stamp,
            schema: 1,
        }
    }

    fn stored(&self) -> Leaves {
        let tx = self.begin();
        self.runtime.block_on(state::load(&tx, &self.keys)).unwrap()
    }

    pub(super) fn turn(&mut self, program: &Program) {
        match program.node {
            Node::Lazy(node) => self.lazy_turn(node, program),
            Node::Plain => self.plain_turn(program),
        }
        let stored = self.stored();
        assert_eq!(decode::<Plain>(&stored).unwrap().value, self.model);
    }

    /// An older version of the server, or a newer one, whose maps are plain.
    fn plain_turn(&mut self, program: &Program) {
        let base = self.stored();
        let decoded = decode::<Plain>(&base).unwrap();
        let mut state = decoded.value;
        for op in &program.ops {
            run_plain(op, &mut state);
        }
        if matches!(program.end, End::Commit) {
            let encoded = codec::encode(&state, &base, &decoded.ignored).unwrap();
            let changes = codec::diff(&base, &encoded.leaves);
            self.write(&self.begin(), &changes, &base);
            self.model = state;
        }
    }

    fn lazy_turn(&mut self, node: usize, program: &Program) {
        let tx = self.begin();
        let mut cache = self.cached(&tx, node);
        let mut model = self.model.clone();
        let expected: Vec<Shown> = program
            .ops
            .iter()
            .map(|op| run_plain(op, &mut model))
            .collect();
        let mut rounds = 0;
        let shown = loop {
            let (shown, wants) = asking(|| run_all(program, &mut cache.state));
            if wants.is_empty() {
                break shown;
            }
            for mut want in wants {
                want.limit = want.limit.min(program.budget.0);
                self.learn(&tx, &mut cache, want, program.budget.1);
            }
            cache.state = codec::restore(&cache.leaves).unwrap();
            rounds += 1;
            assert!(rounds < 200, "it never ends");
        };
        assert_eq!(shown, expected);
        match program.end {
            End::Commit => self.commit(&tx, &mut cache, program, model),
            End::Undo => cache.state = codec::restore(&cache.leaves).unwrap(),
            End::Crash => return,
        }
        self.assert_known(&cache);
        self.nodes[node] = Some(cache);
    }

    fn cached(&mut self, tx: &Tx, node: usize) -> Cache {
        let version = self.runtime.block_on(state::read_version(tx, &self.keys));
        let version = version.unwrap().unwrap();
        let cached = self.nodes[node].take();
        if let Some(cached) = cached.filter(|cached| cached.version == version) {
            return cached;
        }
        let load = state::load_lazily(tx, &self.keys, &self.places);
        let mut leaves = self.runtime.block_on(load).unwrap();
        let (state, ignored) = codec::load(&mut leaves).unwrap();
        Cache {
            version,
            state,
            leaves,
            ignored,
        }
    }

    fn learn(&self, tx: &Tx, cache: &mut Cache, want: Want, most: usize) {
        let limit = want.limit;
        let part = state::load_part(tx, &self.keys, want, most);
        let part = self.runtime.block_on(part).unwrap();
        // The first page is kept whole, and is at least as long.
        assert!(part.entries <= limit.max(16));
        codec::lazy::learn(&mut cache.leaves, &mut cache.ignored, part.found).unwrap();
    }

    fn commit(&mut self, tx: &Tx, cache: &mut Cache, program: &Program, model: Plain) {
        let update = match codec::update(&cache.state, &cache.leaves, &cache.ignored) {
            Ok(update) => update,
            Err(refused) => {
                assert!(program.ops.iter().any(Op::moves), "{refused}");
                cache.state = codec::restore(&cache.leaves).unwrap();
                return;
            }
        };
        if !program
            .ops
            .iter()
            .any(|op| op.moves() || matches!(op, Op::Clear(_) | Op::Other(_)))
        {
            assert_touched_only(&update.changes, program);
        }
        if !update.changes.is_empty() {
            cache.version = self.write(tx, &update.changes, &cache.leaves);
        }
        cache.ignored = update.ignored.clone();
        let before = cache.leaves.loaded();
        update.land(&mut cache.leaves);
        assert!(cache.leaves.loaded() >= before);
        self.model = model;
    }

    /// What is in memory is what is stored, and all that the map claims to know is so.
    fn assert_known(&self, cache: &Cache) {
        let stored = self.stored();
        for (path, leaf) in cache.leaves.iter() {
            assert_eq!(stored.get(path), Some(leaf), "{path}");
        }
        let inner = &cache.state.inner;
        let lines = [
            (Some(&inner.lines), Some(&self.model.inner.lines)),
            (inner.other.as_ref(), self.model.inner.other.as_ref()),
        ];
        for (map, model) in lines {
            assert_eq!(map.is_some(), model.is_some());
            for key in model.iter().flat_map(|model| model.keys()) {
                if let Some(Ok(known)) = map.map(|map| map.get(key)) {
                    assert_eq!(known, model.and_then(|model| model.get(key)));
                }
            }
            for (key, value) in map.iter().flat_map(|map| map.in_memory()) {
                assert_eq!(model.and_then(|model| model.get(key)), Some(value));
            }
        }
    }
}

fn diff_from_nothing(state: &Plain) -> Vec<Change> {
    codec::diff(&Leaves::new(), &leaves_of(state))
}

fn run_all(program: &Program, state: &mut Lazy) -> Vec<Shown> {
    let mut shown = Vec::new();
    for op in &program.ops {
        match run_lazy(op, state) {
            Ok(what) => shown.push(what),
            Err(NotLoaded(())) if program.careless => shown.push("nothing".to_owned()),
            Err(NotLoaded(())) => break,
        }
    }
    shown
}

/// The entries that changes are about are among those that the program names.
fn assert_touched_only(changes: &[Change], program: &Program) {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for op in &program.ops {
        match op {
            Op::Insert(_, key, _) | Op::Change(_, key, _) | Op::Long(key) => {
                named.insert(show(key));
            }
            Op::Note(key, ..) | Op::Take(_, key) | Op::Remove(_, key) => {
                named.insert(show(key));
            }
            Op::Number(key, _) => drop(named.insert(show(key))),
            _ => {}
        }
    }
    for change in changes {
        let elements: Vec<_> = change.path().elements().collect();
        let at = match elements.first() {
            Some(codec::PathElement::Str(name)) if name == "inner" => 2,
            _ => 1,
        };
        let key = match elements.get(at) {
            Some(codec::PathElement::Str(key)) => show(key.as_ref()),
            Some(codec::PathElement::Int(key)) => show(key.get()),
            None => continue,
        };
        assert!(named.contains(&key), "{key} was not touched");
    }
}
