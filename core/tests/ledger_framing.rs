//! A ledger whose kernel seals: whatever the records' sizes, however a transfer
//! is cut into calls, and whatever is watched of those around it, its
//! acknowledgement is told exactly when the wire is acknowledged to the end of
//! its last record.

use lastbyte::{
    Call, ConnectionId, Event, Ledger, LedgerLimits, Look, Method, Moment, Outbox, Payload,
    Reached, SinkFn, StageEvidence, StageSupport, Time, Transport, Watch, WireOffset,
};
use proptest::prelude::*;

const OVERHEAD: u64 = 22;

#[derive(Clone, Debug)]
enum Step {
    /// The kernel takes as much as this, closes these many records of it but
    /// the last, and that one too if the call says that no more follows.
    Take { bytes: u64, records: u64, more: bool },
    /// A record of another type: what was open is closed before it.
    Control { content: u64 },
    /// The peer acknowledges this many 255ths of what is on the wire, and the
    /// socket is looked at.
    Acknowledge { share: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..400, 1_u64..5, any::<bool>())
            .prop_map(|(bytes, records, more)| Step::Take { bytes, records, more }),
        1 => (1_u64..9).prop_map(|content| Step::Control { content }),
        3 => any::<u8>().prop_map(|share| Step::Acknowledge { share }),
    ]
}

/// What nobody waits for is forgotten early, and shares records with what
/// somebody does.
fn watch() -> impl Strategy<Value = Watch> {
    prop_oneof![1 => Just(Watch::NONE), 1 => Just(Watch::QUEUED), 2 => Just(Watch::ACKED)]
}

/// A submitted transfer, as the test knows it.
struct Submitted {
    end: u64,
    watched: bool,
    /// Where on the wire it ends, once that was told.
    wire: Option<u64>,
}

fn moment(at: u64) -> Moment {
    Moment { monotonic: Time::from_nanos(at), ..Moment::default() }
}

/// The kernel's side, kept apart from the ledger's.
#[derive(Default)]
struct Kernel {
    wire: u64,
    /// Plain bytes that are in the open record, and where it began.
    open: u64,
    taken: u64,
    /// Records closed since the ledger was told.
    untold: u64,
    acked: u64,
}

impl Kernel {
    fn close(&mut self) {
        if self.open > 0 {
            self.wire += self.open + OVERHEAD;
            self.open = 0;
            self.untold += 1;
        }
    }
}

/// The ledger knows where everything taken ends.
fn told(ends: &mut [Submitted], kernel: &Kernel) {
    for submitted in ends.iter_mut().filter(|submitted| submitted.end <= kernel.taken) {
        submitted.wire.get_or_insert(kernel.wire);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn a_transfer_is_acked_with_its_last_record(
        before in 0_u64..50,
        transfers in prop::collection::vec((1_usize..700, watch()), 1..6),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let stages = StageSupport {
            transmitted: StageEvidence::Bracketed,
            acked: StageEvidence::Bracketed,
        };
        let limits = LedgerLimits { memory: u64::MAX, transfers: usize::MAX };
        let mut ledger = Ledger::new(ConnectionId::new(0, 0), stages, limits);
        let (mut out, mut now) = (Outbox::default(), 1);
        let call = Call { method: Method::Copy, began: Time::from_nanos(1), stamped: false };
        if before > 0 {
            // The handshake, as it was.
            let bytes = usize::try_from(before).unwrap();
            ledger.submit(Payload::from(vec![0; bytes]), Watch::NONE, &mut out).unwrap();
            ledger.accepted(before, call, moment(1), &mut out);
        }
        ledger.kernel_seals(OVERHEAD);
        let mut ends = Vec::new();
        let mut submitted = 0;
        for &(len, watch) in &transfers {
            ledger.submit(Payload::from(vec![0; len]), watch, &mut out).unwrap();
            submitted += len as u64;
            let watched = watch.contains(Watch::ACKED);
            ends.push(Submitted { end: submitted, watched, wire: None });
        }
        let mut kernel = Kernel { wire: before, ..Kernel::default() };
        let mut acked = 0;
        for step in steps {
            now += 1;
            match step {
                Step::Take { bytes, records, more } => {
                    // A call takes of one transfer only.
                    let Some(left) = ends.iter().find(|next| next.end > kernel.taken)
                        .map(|next| next.end - kernel.taken) else { continue };
                    let bytes = bytes.min(left);
                    for n in 0..records.min(bytes) {
                        let share = bytes / records.min(bytes);
                        let rest = bytes - share * (records.min(bytes) - 1);
                        let is_last = n + 1 == records.min(bytes);
                        kernel.open += if is_last { rest } else { share };
                        if !is_last || !more {
                            kernel.close();
                        }
                    }
                    kernel.taken += bytes;
                    ledger.accepted(bytes, call, moment(now), &mut out);
                    if !more {
                        ledger.sealed(std::mem::take(&mut kernel.untold));
                        prop_assert_eq!(ledger.wire_to().get(), kernel.wire);
                        told(&mut ends, &kernel);
                    } else {
                        ledger.left_open(kernel.untold);
                    }
                }
                Step::Control { content } => {
                    kernel.close();
                    told(&mut ends, &kernel);
                    kernel.wire += content + OVERHEAD;
                    ledger.sealed(std::mem::take(&mut kernel.untold));
                    ledger.control_sealed(content);
                    prop_assert_eq!(ledger.wire_to().get(), kernel.wire);
                }
                Step::Acknowledge { share } => {
                    let to = kernel.wire * u64::from(share) / 255;
                    kernel.acked = kernel.acked.max(to);
                    let look = Look {
                        acked: Some(WireOffset::new(kernel.acked)),
                        transmitted: None,
                        began: Time::from_nanos(now),
                        at: moment(now),
                    };
                    ledger.looked(look, &mut out);
                }
            }
            out.deliver(&mut SinkFn(|event| {
                if let Event::Transfer(told) = event && matches!(told.reached, Reached::Acked) {
                    assert_eq!(told.transport, Transport::KernelTls);
                    acked += 1;
                }
            }));
            let due = ends.iter().filter(|submitted| {
                submitted.watched && submitted.wire.is_some_and(|wire| wire <= kernel.acked)
            });
            let due = due.count();
            // Never early; and with the next look at the latest.
            prop_assert!(acked <= due, "{} acked, {} are", acked, due);
            if matches!(step, Step::Acknowledge { .. }) {
                prop_assert_eq!(acked, due);
            }
        }
    }
}
