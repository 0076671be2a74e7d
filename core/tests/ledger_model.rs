//! The contract (C1 to C7) in a world small enough to try every order of facts:
//! three transfers in three writes, so that a write spans transfers and a
//! transfer spans writes; a stamp for each transfer, a zero-copy notification
//! for each write, a look; and a reset after every single fact.

mod world;

use lastbyte::{Method, StageEvidence, StageSupport, StampOf, Watch};
use world::memory::Shape;
use world::{LookAt, Setup, Verdict, World};

const TRANSFERS: [u64; 3] = [3, 4, 3];
const ENDS: [u64; 3] = [3, 7, 10];
const WRITES: [u64; 3] = [2, 6, 2];
/// The first acknowledgement ends within a transfer.
const ACKS: [u64; 3] = [5, 7, 10];

/// One thing that happens, exactly once in every order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fact {
    /// The kernel takes the bytes of a write.
    Write(usize),
    /// The kernel says that it is done with the memory of a write.
    Release(usize),
    /// The peer acknowledges a transfer, at least; nobody is told.
    Acknowledge(usize),
    /// The stamp of that is read.
    Stamp(usize),
    Look,
}

/// A small world.
#[derive(Clone, Copy, Debug)]
struct Model {
    support: StageSupport,
    watch: [Watch; 3],
    methods: [Method; 3],
    file: bool,
}

impl Model {
    fn facts(&self) -> Vec<Fact> {
        let zero_copy = |n: &usize| self.methods[*n] == Method::ZeroCopy;
        let stamps = self.support.acked == StageEvidence::Kernel;
        let mut facts: Vec<Fact> = (0..3).map(Fact::Write).collect();
        facts.extend((0..3).filter(zero_copy).map(Fact::Release));
        facts.extend((0..3).map(Fact::Acknowledge));
        facts.extend((0..3).filter(|_| stamps).map(Fact::Stamp));
        facts.push(Fact::Look);
        facts
    }

    fn start(&self) -> Result<World, String> {
        // Both 32-bit counters wrap within the ten bytes and three calls.
        let setup =
            Setup { support: self.support, key_base: 5, next_id: u32::MAX, ..Setup::default() };
        let mut world = World::new(setup);
        for (len, watch) in TRANSFERS.into_iter().zip(self.watch) {
            let memory = Shape { memory: u32::try_from(len).unwrap_or(0), file: 0 };
            let shape = if self.file { Shape { memory: 0, file: len } } else { memory };
            world.submit(shape, watch)?;
        }
        for end in ENDS {
            world.kernel.mark(end, StampOf::Acked);
            world.kernel.mark(end, StampOf::Transmitted);
        }
        Ok(world)
    }

    fn run(&self, world: &mut World, fact: Fact) -> Verdict {
        world.tick(1_000);
        match fact {
            Fact::Write(n) => world.write(WRITES[n], self.methods[n], false),
            Fact::Release(n) => world.release_call(n, n == 1),
            Fact::Acknowledge(n) => world.acknowledge(ACKS[n], false),
            Fact::Stamp(n) => world.deliver_stamps(ENDS[n]),
            Fact::Look => world.look(LookAt { acked: true, transmitted: true }, 0, 0),
        }
    }
}

/// What must have happened before.
fn needs(fact: Fact) -> &'static [Fact] {
    match fact {
        Fact::Write(0) | Fact::Look => &[],
        Fact::Write(1) | Fact::Release(0) => &[Fact::Write(0)],
        Fact::Write(_) | Fact::Release(1) | Fact::Acknowledge(0) => &[Fact::Write(1)],
        Fact::Release(_) => &[Fact::Write(2)],
        Fact::Acknowledge(1) => &[Fact::Acknowledge(0)],
        Fact::Acknowledge(_) => &[Fact::Acknowledge(1), Fact::Write(2)],
        Fact::Stamp(0) => &[Fact::Acknowledge(0)],
        Fact::Stamp(1) => &[Fact::Acknowledge(1)],
        Fact::Stamp(_) => &[Fact::Acknowledge(2)],
    }
}

/// Orders that were run.
#[derive(Debug, Default)]
struct Count {
    /// Up to the last fact.
    whole: usize,
    /// Cut short by a reset, in each way.
    reset: usize,
}

/// Runs every order that begins with `done`.
fn explore(model: &Model, facts: &[Fact], done: &mut Vec<Fact>, count: &mut Count) {
    let last = done.len() == facts.len();
    let mut ends = vec![End::Reset, End::ResetUnseen];
    if last {
        count.whole += 1;
        ends = vec![End::Drain, End::Reset];
    } else {
        count.reset += ends.len();
    }
    for end in ends {
        if let Err(broken) = play(model, done, end) {
            panic!("{model:?}\n{done:?}, then {end:?}:\n{broken}");
        }
    }
    for fact in facts {
        if !done.contains(fact) && needs(*fact).iter().all(|need| done.contains(need)) {
            done.push(*fact);
            explore(model, facts, done, count);
            done.pop();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Drain,
    Reset,
    /// Without a final look.
    ResetUnseen,
}

/// Plays the facts, of which all but the last were audited in shorter orders.
fn play(model: &Model, facts: &[Fact], end: End) -> Verdict {
    let mut world = model.start()?;
    world.unaudited = true;
    if let Some((last, before)) = facts.split_last() {
        for fact in before {
            model.run(&mut world, *fact)?;
        }
        world.unaudited = false;
        model.run(&mut world, *last)?;
    }
    world.unaudited = false;
    match end {
        End::Drain => world.drain(),
        End::Reset => world.reset(true),
        End::ResetUnseen => world.reset(false),
    }
}

fn explore_all(model: Model, at_least: usize) {
    let mut count = Count::default();
    explore(&model, &model.facts(), &mut Vec::new(), &mut count);
    println!("{count:?}");
    assert!(count.whole >= at_least, "only {count:?}");
    assert!(count.reset > count.whole, "a reset at every point: {count:?}");
}

const STAMPED: StageSupport =
    StageSupport { transmitted: StageEvidence::Kernel, acked: StageEvidence::Kernel };

#[test]
fn every_order_of_zero_copy_stamps_and_a_look() {
    let model = Model {
        support: STAMPED,
        watch: [Watch::ALL; 3],
        methods: [Method::ZeroCopy; 3],
        file: false,
    };
    explore_all(model, 400_000);
}

#[test]
fn every_order_of_sendfile_among_zero_copy_with_different_watches() {
    let model = Model {
        support: STAMPED,
        watch: [Watch::ACKED, Watch::NONE, Watch::QUEUED.union(Watch::TRANSMITTED)],
        methods: [Method::ZeroCopy, Method::Sendfile, Method::Copy],
        file: true,
    };
    explore_all(model, 5_000);
}

#[test]
fn every_order_where_only_looks_tell() {
    let bracketed = StageEvidence::Bracketed;
    let model = Model {
        support: StageSupport { transmitted: bracketed, acked: bracketed },
        watch: [Watch::ALL, Watch::ACKED, Watch::ALL],
        methods: [Method::ZeroCopy; 3],
        file: false,
    };
    explore_all(model, 500);
}
