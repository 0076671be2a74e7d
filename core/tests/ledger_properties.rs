//! The contract (C1 to C7) under random facts: what the ledger reports is
//! compared with a simulated kernel and peer after every single one.

mod world;

use lastbyte::{LedgerLimits, Method, StageEvidence, StageSupport, Watch};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::ops::Range;
use world::memory::{MAX_MEMORY, Shape};
use world::{LookAt, Setup, Verdict, World};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Submit { shape: Shape, watch: Watch },
    Write { amount: Amount, method: Method, stamped: bool },
    BeginWrite { amount: Amount, method: Method, stamped: bool },
    FinishWrite,
    Transmit { share: u16 },
    Acknowledge { share: u16, merged: bool },
    Release { from: usize, count: usize, copied: bool, merge: bool },
    Deliver { n: usize },
    DeliverAgain { n: usize },
    Lose { n: usize },
    Look { what: LookAt, before: u64, after: u64 },
    SetClock { forward: bool, nanos: u64 },
    Tick { nanos: u64 },
    Fail { with_look: bool },
    Abandon,
    Drop,
}

/// How much a call takes.
#[derive(Clone, Debug)]
enum Amount {
    Bytes(u64),
    /// Up to the end of the nth transfer from here.
    Transfers(usize),
}

/// How a scenario ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Drain,
    Reset { with_look: bool },
    Abandon,
    Drop,
}

fn run(world: &mut World, step: &Step) -> Verdict {
    world.tick(1_000);
    match *step {
        Step::Submit { shape, watch } => world.submit(shape, watch),
        Step::Write { ref amount, method, stamped } => {
            let bytes = bytes(world, amount);
            world.write(bytes, method, stamped)
        }
        Step::BeginWrite { ref amount, method, stamped } => {
            let bytes = bytes(world, amount);
            world.begin_write(bytes, method, stamped)
        }
        Step::FinishWrite => world.finish_write(),
        Step::Transmit { share } => {
            let from = world.kernel.transmitted.to();
            world.transmit(part(from..world.kernel.taken, share))
        }
        Step::Acknowledge { share, merged } => {
            let from = world.kernel.acked.to();
            world.acknowledge(part(from..world.kernel.taken, share), merged)
        }
        Step::Release { from, count, copied, merge } => world.release(from, count, copied, merge),
        Step::Deliver { n } => world.deliver(n),
        Step::DeliverAgain { n } => world.deliver_again(n),
        Step::Lose { n } => {
            world.lose(n);
            Ok(())
        }
        Step::Look { what, before, after } => world.look(what, before, after),
        Step::SetClock { forward, nanos } => {
            world.step_clock(forward, nanos);
            Ok(())
        }
        Step::Tick { nanos } => {
            world.tick(nanos);
            Ok(())
        }
        Step::Fail { with_look } => world.fail(with_look),
        Step::Abandon => world.abandon(),
        Step::Drop => world.drop_ledger(),
    }
}

fn bytes(world: &World, amount: &Amount) -> u64 {
    match *amount {
        Amount::Bytes(bytes) => bytes,
        Amount::Transfers(n) => world.end_of_next(n) - world.kernel.taken,
    }
}

/// The position `share` 65535ths into `range`, never quite its start.
fn part(range: Range<u64>, share: u16) -> u64 {
    range.start + ((range.end - range.start) * u64::from(share)).div_ceil(u64::from(u16::MAX))
}

fn end(world: &mut World, end: End) -> Verdict {
    match end {
        End::Drain => world.drain(),
        End::Reset { with_look } => world.reset(with_look),
        End::Abandon => {
            world.fail(true)?;
            world.abandon()?;
            world.finished()
        }
        End::Drop => world.drop_ledger(),
    }
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Copy),
        Just(Method::ZeroCopy),
        Just(Method::Sendfile),
        Just(Method::Splice)
    ]
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        3 => (1_u64..8).prop_map(Amount::Bytes),
        2 => (1_u64..100_000).prop_map(Amount::Bytes),
        1 => (1_u64..1 << 31).prop_map(Amount::Bytes),
        6 => (0_usize..3).prop_map(Amount::Transfers),
    ]
}

fn share() -> impl Strategy<Value = u16> {
    prop_oneof![Just(u16::MAX), any::<u16>()]
}

fn shape() -> impl Strategy<Value = Shape> {
    let memory =
        |range: Range<u32>| (range, Just(0)).prop_map(|(memory, file)| Shape { memory, file });
    let file = |range: Range<u64>| range.prop_map(|file| Shape { memory: 0, file });
    prop_oneof![
        8 => memory(1_u32..12),
        4 => memory(1..MAX_MEMORY),
        1 => Just(Shape::default()),
        3 => file(1_u64..100_000),
        1 => file(1 << 28..1 << 31),
        3 => (1_u32..300, 1_u64..5_000).prop_map(|(memory, file)| Shape { memory, file }),
    ]
}

fn watch() -> impl Strategy<Value = Watch> {
    const STAGES: [Watch; 3] = [Watch::QUEUED, Watch::TRANSMITTED, Watch::ACKED];
    let some = any::<[bool; 3]>().prop_map(|wanted| {
        let wanted = STAGES.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        wanted.fold(Watch::NONE, |all, (stage, _)| all | *stage)
    });
    prop_oneof![Just(Watch::ALL), some]
}

fn look_at() -> impl Strategy<Value = LookAt> {
    (any::<bool>(), any::<bool>()).prop_map(|(acked, transmitted)| LookAt { acked, transmitted })
}

/// How the call that carries the last byte reports, among other things.
fn step() -> impl Strategy<Value = Step> {
    let write = || (amount(), method(), prop::bool::weighted(0.8));
    let few = || prop_oneof![2 => Just(0_u64), 1 => 1_u64..20, 1 => 1_u64..1_000_000];
    prop_oneof![
        8 => (shape(), watch()).prop_map(|(shape, watch)| Step::Submit { shape, watch }),
        8 => write().prop_map(|(amount, method, stamped)| Step::Write { amount, method, stamped }),
        3 => write()
            .prop_map(|(amount, method, stamped)| Step::BeginWrite { amount, method, stamped }),
        3 => Just(Step::FinishWrite),
        3 => share().prop_map(|share| Step::Transmit { share }),
        6 => (share(), any::<bool>())
            .prop_map(|(share, merged)| Step::Acknowledge { share, merged }),
        5 => (0_usize..6, 1_usize..5, any::<bool>(), any::<bool>()).prop_map(
            |(from, count, copied, merge)| Step::Release { from, count, copied, merge }
        ),
        10 => (0_usize..5).prop_map(|n| Step::Deliver { n }),
        2 => (0_usize..8).prop_map(|n| Step::DeliverAgain { n }),
        1 => (0_usize..4).prop_map(|n| Step::Lose { n }),
        3 => (look_at(), few(), few())
            .prop_map(|(what, before, after)| Step::Look { what, before, after }),
        1 => (any::<bool>(), 50_000_000_u64..20_000_000_000)
            .prop_map(|(forward, nanos)| Step::SetClock { forward, nanos }),
        2 => (1_u64..30_000_000_000).prop_map(|nanos| Step::Tick { nanos }),
    ]
}

fn ending() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|with_look| Step::Fail { with_look }),
        1 => Just(Step::Abandon),
        1 => Just(Step::Drop),
    ]
}

fn evidence() -> impl Strategy<Value = StageEvidence> {
    prop_oneof![
        4 => Just(StageEvidence::Kernel),
        2 => Just(StageEvidence::Bracketed),
        1 => Just(StageEvidence::Unavailable),
    ]
}

/// Counters stand anywhere, but often just before they wrap.
fn counter() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>(), (0_u32..20).prop_map(|n| 0_u32.wrapping_sub(n))]
}

fn setup() -> impl Strategy<Value = Setup> {
    let support = (evidence(), evidence())
        .prop_map(|(transmitted, acked)| StageSupport { transmitted, acked });
    let memory = prop_oneof![3 => Just(u64::MAX >> 1), 1 => 1_u64..100, 1 => 1..200_000_u64];
    let transfers = prop_oneof![3 => Just(1_000), 1 => 1_usize..6];
    let limits =
        (memory, transfers).prop_map(|(memory, transfers)| LedgerLimits { memory, transfers });
    let others = prop_oneof![Just(0), 1_u64..1_000_000];
    (support, limits, counter(), counter(), others).prop_map(
        |(support, limits, key_base, next_id, others)| Setup {
            support,
            limits,
            key_base,
            next_id,
            others,
        },
    )
}

/// How many times 2 GiB lie behind.
fn laps() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0_u32), 1 => 1_u32..5]
}

fn the_end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::Drain),
        2 => any::<bool>().prop_map(|with_look| End::Reset { with_look }),
        1 => Just(End::Abandon),
        1 => Just(End::Drop),
    ]
}

fn scenario(setup: Setup, laps: u32, steps: &[Step], last: End) -> Verdict {
    let mut world = World::new(setup);
    for _ in 0..laps {
        world.lap()?;
    }
    for (n, step) in steps.iter().enumerate() {
        run(&mut world, step).map_err(|broken| format!("step {n}, {step:?}: {broken}"))?;
    }
    end(&mut world, last).map_err(|broken| format!("{last:?}: {broken}"))
}

/// The wall clock is set back by 50 ms, and 60 ms later a stamp from before
/// that is read: on the new clock it lies after the step.
#[test]
fn a_stamp_from_before_a_step_back_is_not_taken_for_a_later_one() {
    let mut world = World::new(Setup::default());
    let mut play = || -> Verdict {
        let shape = Shape { memory: 1, file: 0 };
        world.submit(shape, Watch::ALL)?;
        world.submit(shape, Watch::ALL)?;
        world.write(1, Method::Copy, true)?;
        world.write(1, Method::Copy, true)?;
        world.acknowledge(1, false)?;
        world.acknowledge(2, false)?;
        world.step_clock(false, 50_000_000);
        world.deliver(0)?;
        world.tick(60_000_000);
        world.deliver(2)
    };
    assert_eq!(play(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 50_000,
        // Failing seeds are kept beside this file and tried first.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// A connection that lives, with all that can happen to it, and ends in
    /// any way.
    #[test]
    fn the_contract_holds_for_every_order_of_facts(
        setup in setup(),
        laps in laps(),
        steps in prop::collection::vec(step(), 1..70),
        last in the_end(),
    ) {
        scenario(setup, laps, &steps, last).map_err(TestCaseError::fail)?;
    }

    /// A connection that ends somewhere in between, with facts that come late.
    #[test]
    fn the_contract_holds_when_the_connection_ends_anywhere(
        setup in setup(),
        laps in laps(),
        mut steps in prop::collection::vec(step(), 1..30),
        ending in ending(),
        late in prop::collection::vec(prop_oneof![5 => step(), 1 => ending()], 0..15),
        last in the_end(),
    ) {
        steps.push(ending);
        steps.extend(late);
        scenario(setup, laps, &steps, last).map_err(TestCaseError::fail)?;
    }
}
