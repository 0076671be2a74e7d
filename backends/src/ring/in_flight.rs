//! What the kernel has been asked to do and has not finished: a pure table, so
//! that every order of completions can be tried.
//!
//! An operation ends when the kernel says that nothing more will be said of it
//! (`IORING_CQE_F_MORE` is clear), never because of its result. A zero-copy send
//! has two things to say, its result and that its memory is free again; it ends
//! with the later of the two, whichever that is.

use slab::Slab;

/// `IORING_NOTIF_USAGE_ZC_COPIED`, `include/uapi/linux/io_uring.h`.
const COPIED: i32 = i32::MIN;

/// What an operation is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Waiting for input or the peer's end.
    Input,
    /// Waiting for room.
    Output,
    /// Waiting for errors and hang-ups.
    Trouble,
    /// Receiving into provided buffers.
    Receive,
    /// Accepting.
    Accept,
    /// Taking stamps.
    Stamps,
    /// Sending; the kernel copies.
    Send,
    /// Sending; the kernel reads payload memory. `call` is the how-manyeth of
    /// its connection this is if it succeeds.
    SendZeroCopy { call: u32 },
    /// Waiting for a wake-up from another thread.
    Wake,
}

/// The bare bones of a completion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Said {
    pub(super) result: i32,
    pub(super) more: bool,
    pub(super) notification: bool,
}

/// What a completion means.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Meaning<M> {
    /// Of an operation that is not known (any more), or nothing yet.
    Nothing,
    /// Of an operation that is neither send; it goes on if `more`.
    Plain { port: usize, purpose: Purpose, more: bool },
    /// A send has its result. Its memory is no longer read; the payload is, by
    /// zero-copy call `pinned`. `released` if that is over already, and the
    /// kernel had copied or not.
    Sent { port: usize, memory: M, result: i32, pinned: Option<u32>, released: Option<bool> },
    /// The kernel is done with the payload of a zero-copy call.
    Released { port: usize, call: u32, copied: bool },
}

#[derive(Debug)]
struct Flight<M> {
    port: usize,
    purpose: Purpose,
    /// Distinguishes flights that had the same place.
    turn: u32,
    /// What the kernel reads until the result is there.
    memory: Option<M>,
    state: State,
}

/// Where a zero-copy send stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing was said.
    Started,
    /// The result was told; the memory is still in use.
    Pinned,
    /// It failed, or sent nothing, with this result, and will still say that
    /// the memory is free. Until then the same bytes must not be given away.
    Failed(i32),
    /// The memory is free, the result is to come.
    ReleasedEarly { copied: bool },
}

/// Operations by name. `M` is what the kernel reads of a send.
#[derive(Debug)]
pub(super) struct InFlight<M> {
    flights: Slab<Flight<M>>,
    turn: u32,
}

impl<M> InFlight<M> {
    pub(super) fn new() -> Self {
        Self { flights: Slab::new(), turn: 0 }
    }

    /// Enters an operation of `port`, and names it.
    pub(super) fn start(&mut self, port: usize, purpose: Purpose, memory: Option<M>) -> u64 {
        self.turn = self.turn.wrapping_add(1) & (u32::MAX >> 1);
        let flight = Flight { port, purpose, turn: self.turn, memory, state: State::Started };
        let place = self.flights.insert(flight) as u64;
        place | u64::from(self.turn) << 32
    }

    /// What the kernel reads of the send called `name`.
    pub(super) fn memory(&self, name: u64) -> Option<&M> {
        self.flights.get(place(name))?.memory.as_ref()
    }

    /// Takes back an operation that the kernel has never heard of.
    pub(super) fn withdraw(&mut self, name: u64) -> Option<M> {
        self.flights.try_remove(place(name))?.memory
    }

    /// Operations that have not ended.
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Leaks what the kernel may still read.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flights));
    }

    /// Takes in what the kernel said of the operation called `name`.
    pub(super) fn said(&mut self, name: u64, said: Said) -> Meaning<M> {
        let place = place(name);
        let known = self.flights.get_mut(place).filter(|flight| flight.turn == turn(name));
        let Some(flight) = known else { return Meaning::Nothing };
        let (port, purpose) = (flight.port, flight.purpose);
        let meaning = match purpose {
            Purpose::Send => flight.sent(said.result, None, None),
            Purpose::SendZeroCopy { call } if said.notification => flight.released(call, said),
            Purpose::SendZeroCopy { call } => flight.zero_copy_result(call, said),
            _ => Meaning::Plain { port, purpose, more: said.more },
        };
        if flight.has_ended(said) {
            self.flights.remove(place);
        }
        meaning
    }
}

impl<M> Flight<M> {
    fn has_ended(&self, said: Said) -> bool {
        match self.state {
            // The notification came first, so the result is the last, whatever
            // it promises.
            State::ReleasedEarly { .. } => !said.notification,
            State::Started | State::Pinned | State::Failed(_) => !said.more,
        }
    }

    fn sent(&mut self, result: i32, pinned: Option<u32>, released: Option<bool>) -> Meaning<M> {
        match self.memory.take() {
            Some(memory) => Meaning::Sent { port: self.port, memory, result, pinned, released },
            None => Meaning::Nothing,
        }
    }

    fn zero_copy_result(&mut self, call: u32, said: Said) -> Meaning<M> {
        let Said { result, more, .. } = said;
        match self.state {
            State::ReleasedEarly { copied } if result > 0 => {
                self.sent(result, Some(call), Some(copied))
            }
            State::Started if more && result > 0 => {
                self.state = State::Pinned;
                self.sent(result, Some(call), None)
            }
            State::Started if more => {
                self.state = State::Failed(result);
                Meaning::Nothing
            }
            State::Started | State::ReleasedEarly { .. } => self.sent(result, None, None),
            // The kernel repeats itself.
            State::Pinned | State::Failed(_) => Meaning::Nothing,
        }
    }

    fn released(&mut self, call: u32, said: Said) -> Meaning<M> {
        let copied = said.result & COPIED != 0;
        match self.state {
            State::Pinned => Meaning::Released { port: self.port, call, copied },
            State::Failed(result) => self.sent(result, None, None),
            State::Started => {
                self.state = State::ReleasedEarly { copied };
                Meaning::Nothing
            }
            State::ReleasedEarly { .. } => Meaning::Nothing,
        }
    }
}

fn place(name: u64) -> usize {
    (name & u64::from(u32::MAX)) as usize
}

fn turn(name: u64) -> u32 {
    (name >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// What the kernel says of one zero-copy send, in some order.
    fn story(result: i32, notifies: bool, copied: bool, early: bool) -> VecDeque<Said> {
        let told = Said { result, more: notifies, notification: false };
        let notice =
            Said { result: if copied { COPIED } else { 0 }, more: false, notification: true };
        match (notifies, early) {
            (false, _) => [told].into(),
            (true, false) => [told, notice].into(),
            (true, true) => [notice, told].into(),
        }
    }

    #[derive(Debug)]
    struct Tracked {
        name: u64,
        result: i32,
        notifies: bool,
        copied: bool,
        said: VecDeque<Said>,
        sent: u32,
        released: u32,
    }

    proptest! {
        /// Sends of many ports, their completions in any interleaving, results
        /// and notifications in either order, names used again at once: each is
        /// told exactly once what happened, no memory is told free while the
        /// kernel has not said so, and nothing is left over.
        #[test]
        fn each_send_is_told_once_whatever_the_order(
            sends in proptest::collection::vec(
                (prop_oneof![-125..0_i32, 0..2_i32, 1..1_000_000_i32],
                 any::<bool>(), any::<bool>(), any::<bool>()),
                1..40,
            ),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..400),
            repeats in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut table = InFlight::<usize>::new();
            let mut waiting = sends.into_iter().enumerate();
            let mut live: Vec<(usize, Tracked)> = Vec::new();
            let mut ended: Vec<u64> = Vec::new();
            let mut order = order.into_iter();
            let mut repeats = repeats.into_iter();
            loop {
                if live.len() < 8 && let Some((n, (result, notifies, copied, early))) = waiting.next() {
                    // A success that names no notification has none.
                    let call = u32::try_from(n).unwrap();
                    let name = table.start(n, Purpose::SendZeroCopy { call }, Some(n));
                    let said = story(result, notifies, copied, early);
                    live.push((n, Tracked { name, result, notifies, copied, said, sent: 0, released: 0 }));
                    continue;
                }
                if live.is_empty() {
                    break;
                }
                // A stale name means nothing.
                if let Some(at) = repeats.next() && !ended.is_empty() {
                    let stale = ended[at.index(ended.len())];
                    let said = Said { result: 7, more: false, notification: false };
                    prop_assert_eq!(table.said(stale, said), Meaning::Nothing);
                }
                let at = order.next().map_or(0, |at| at.index(live.len()));
                let (n, tracked) = &mut live[at];
                let said = tracked.said.pop_front().unwrap();
                let last = tracked.said.is_empty();
                match table.said(tracked.name, said) {
                    Meaning::Sent { port, memory, result, pinned, released } => {
                        prop_assert_eq!((port, memory, result), (*n, *n, tracked.result));
                        prop_assert_eq!(pinned.is_some(), tracked.notifies && result > 0);
                        // Failed: only told when the kernel is done with it all.
                        prop_assert!(result > 0 || last);
                        prop_assert!(pinned.is_none_or(|call| call as usize == *n));
                        prop_assert!(released.is_none_or(|copied| copied == tracked.copied));
                        tracked.sent += 1;
                        tracked.released += u32::from(released.is_some());
                        prop_assert!(released.is_none() || last);
                    }
                    Meaning::Released { port, call, copied } => {
                        prop_assert_eq!((port, call as usize, copied), (*n, *n, tracked.copied));
                        prop_assert_eq!(tracked.sent, 1, "released before it was sent");
                        prop_assert!(said.notification && last);
                        tracked.released += 1;
                    }
                    Meaning::Nothing => prop_assert!(!last, "the last word was lost"),
                    Meaning::Plain { .. } => prop_assert!(false),
                }
                if last {
                    prop_assert_eq!(tracked.sent, 1);
                    let pinned = tracked.notifies && tracked.result > 0;
                    prop_assert_eq!(tracked.released, u32::from(pinned));
                    ended.push(tracked.name);
                    live.swap_remove(at);
                }
            }
            prop_assert_eq!(table.len(), 0);
        }

        /// Whatever of its story a send is at, what the kernel may read of it is
        /// in the table or was handed out with the result, once; and if the table
        /// is left, it is not freed.
        #[test]
        fn what_the_kernel_may_read_is_handed_out_or_leaked(
            sends in proptest::collection::vec(
                (prop_oneof![-125..0_i32, 0..2_i32, 1..1_000_000_i32],
                 any::<bool>(), any::<bool>(), 0..3_usize),
                1..20,
            ),
        ) {
            let mut table = InFlight::<Arc<()>>::new();
            for (n, (result, notifies, early, until)) in sends.into_iter().enumerate() {
                let memory = Arc::new(());
                let purpose = Purpose::SendZeroCopy { call: 0 };
                let name = table.start(n, purpose, Some(Arc::clone(&memory)));
                let mut handed_out = false;
                for said in story(result, notifies, false, early).into_iter().take(until) {
                    if let Meaning::Sent { memory: same, .. } = table.said(name, said) {
                        prop_assert!(Arc::ptr_eq(&memory, &same) && !handed_out);
                        handed_out = true;
                    }
                }
                let held = table.memory(name).is_some();
                prop_assert_eq!(Arc::strong_count(&memory), 1 + usize::from(held));
                prop_assert!(held != handed_out, "held {}, handed out {}", held, handed_out);
                if n % 2 == 0 {
                    table.leak();
                    prop_assert_eq!(Arc::strong_count(&memory), 1 + usize::from(held));
                    table = InFlight::new();
                }
            }
        }

        /// An operation that repeats ends with the completion that says so,
        /// whatever the results.
        #[test]
        fn a_repeating_operation_ends_when_it_says_so(
            results in proptest::collection::vec(any::<i32>(), 1..20),
        ) {
            let mut table = InFlight::<()>::new();
            let name = table.start(3, Purpose::Receive, None);
            let last = results.len() - 1;
            for (n, result) in results.into_iter().enumerate() {
                let more = n < last;
                let meaning = table.said(name, Said { result, more, notification: false });
                prop_assert_eq!(meaning, Meaning::Plain { port: 3, purpose: Purpose::Receive, more });
                prop_assert_eq!(table.len(), usize::from(more));
            }
            let stale = table.said(name, Said { result: 0, more: true, notification: false });
            prop_assert_eq!(stale, Meaning::Nothing);
        }
    }
}
