//! What the ledger once got wrong, each as short as it can be shown.

mod world;

use lastbyte::{
    Call, ClockMap, ConnectionId, Event, Evidence, Ledger, LedgerLimits, Look, Method, Moment,
    Outbox, Payload, Reached, SinkFn, StageEvidence, StageSupport, Stamp, StampOf, Time, UnixTime,
    Watch, WireOffset,
};
use world::memory::Shape;
use world::{LookAt, Setup, Verdict, World};

const BOTH: LookAt = LookAt { acked: true, transmitted: true };
const FILE: Shape = Shape { memory: 0, file: 8 };
const MEMORY: Shape = Shape { memory: 8, file: 0 };

fn play(steps: impl FnOnce(&mut World) -> Verdict) {
    let mut world = World::new(Setup::default());
    if let Err(broken) = steps(&mut world) {
        panic!("{broken}");
    }
}

/// C5: a dropped ledger gave a file back whose pages the kernel still had to
/// send.
#[test]
fn a_dropped_ledger_keeps_files_that_are_not_acknowledged() {
    play(|world| {
        world.submit(FILE, Watch::ALL)?;
        world.write(8, Method::Sendfile, true)?;
        world.drop_ledger()
    });
}

/// C3: a look during a call sees bytes that the ledger does not know to be
/// accepted yet; its start is no lower bound for their stages.
#[test]
fn a_look_during_a_call_is_no_lower_bound_for_its_bytes() {
    play(|world| {
        world.submit(MEMORY, Watch::ALL)?;
        world.begin_write(8, Method::Copy, false)?;
        world.acknowledge(8, false)?;
        world.tick(1_000);
        world.look(BOTH, 0, 0)?;
        world.finish_write()?;
        world.look(BOTH, 0, 0)
    });
}

/// C6: a stamp within a transfer, from before the call that took the rest, was
/// counted as useless for a clock step that never was.
#[test]
fn a_stamp_of_an_earlier_part_of_a_transfer_can_be_dated() {
    play(|world| {
        world.submit(MEMORY, Watch::ALL)?;
        world.write(4, Method::Copy, true)?;
        world.acknowledge(4, false)?;
        world.tick(1_000_000);
        world.write(4, Method::Copy, true)?;
        world.deliver(0)?;
        world.deliver(0)
    });
}

/// C3: where a stamp lies before the call's return, its time is moved; the
/// error has to grow by that, beside what the conversion of clocks costs.
#[test]
fn a_moved_stamp_says_how_far_it_was_moved() {
    // Whichever way the clocks' comparison errs.
    for delay in 0..16 {
        play(|world| {
            world.submit(MEMORY, Watch::ALL)?;
            world.begin_write(8, Method::Copy, true)?;
            world.acknowledge(8, false)?;
            world.look(BOTH, 0, 0)?;
            world.tick(delay);
            world.finish_write()?;
            world.deliver(0)?;
            world.deliver(0)
        });
    }
}

/// C2: a transfer whose stamp was taken while the socket was looked at, which
/// had shown the one before it, was acknowledged before that.
#[test]
fn a_stamp_from_during_a_look_is_not_dated_before_what_the_look_showed() {
    let at = |nanos| Moment { monotonic: Time::from_nanos(nanos), ..Moment::default() };
    let support = StageSupport { transmitted: StageEvidence::Kernel, acked: StageEvidence::Kernel };
    let limits = LedgerLimits { memory: 1000, transfers: 10 };
    let mut ledger = Ledger::new(ConnectionId::new(0, 0), support, limits);
    let mut out = Outbox::default();
    for _ in 0..2 {
        ledger.submit(Payload::from(vec![0; 8]), Watch::ACKED, &mut out).unwrap();
        let call = Call { method: Method::Copy, began: Time::from_nanos(1_000), stamped: true };
        ledger.accepted(8, call, at(2_000), &mut out);
    }
    let acked = Some(WireOffset::new(8));
    let began = Time::from_nanos(3_000);
    ledger.looked(Look { acked, transmitted: None, began, at: at(9_000) }, &mut out);
    let clock = ClockMap::new(Time::from_nanos(0), UnixTime::from_nanos(0), Time::from_nanos(0));
    let stamp = Stamp { of: StampOf::Acked, key: 15, at: UnixTime::from_nanos(5_000) };
    ledger.stamped(stamp, &clock, at(10_000), &mut out);
    let mut acked = Vec::new();
    out.deliver(&mut SinkFn(|event| {
        if let Event::Transfer(completion) = event
            && matches!(completion.reached, Reached::Acked)
        {
            acked.push((completion.at, completion.evidence));
        }
    }));
    assert_eq!(acked[0].0.monotonic, Time::from_nanos(9_000));
    assert_eq!(acked[1].0.monotonic, Time::from_nanos(9_000), "not before the first");
    assert_eq!(acked[1].1, Evidence::Kernel);
    assert!(acked[1].0.error.as_nanos() >= 4_000, "and it is said how far off that is");
}

/// C3: records in which the end of a transfer that nobody waited for lay beside
/// the next one were forgotten with it, and so the next one counted as
/// acknowledged with the first byte that was.
#[test]
fn records_that_two_transfers_share_are_kept_for_the_second() {
    let stage = StageEvidence::Bracketed;
    let support = StageSupport { transmitted: stage, acked: stage };
    let limits = LedgerLimits { memory: u64::MAX, transfers: 10 };
    let mut ledger = Ledger::new(ConnectionId::new(0, 0), support, limits);
    let mut out = Outbox::default();
    ledger.kernel_seals(22);
    let call = Call { method: Method::Copy, began: Time::default(), stamped: false };
    for (len, watch) in [(100_u16, Watch::NONE), (40_000, Watch::ACKED)] {
        ledger.submit(Payload::from(vec![0; len.into()]), watch, &mut out).unwrap();
        ledger.accepted(len.into(), call, Moment::default(), &mut out);
    }
    ledger.sealed(3);
    let mut acked_at = |wire| {
        let acked = Some(WireOffset::new(wire));
        let (began, at) = (Time::default(), Moment::default());
        ledger.looked(Look { acked, transmitted: None, began, at }, &mut out);
        let mut acked = 0;
        out.deliver(&mut SinkFn(|event| {
            acked += u32::from(matches!(
                event,
                Event::Transfer(told) if matches!(told.reached, Reached::Acked)
            ));
        }));
        acked
    };
    assert_eq!(acked_at(1), 0);
    assert_eq!(acked_at(40_165), 0);
    assert_eq!(acked_at(40_166), 1);
}
