//! Transfers that the inner driver makes as they are, because the kernel seals
//! them: what it says of them is passed on under the names that they have here.

use lastbyte::{Completion, FailReason, Reached, TransferId, Watch};
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// What the first of them is called there, and by how much more than here:
    /// nothing else is submitted from then on, so that stays.
    first: Option<(u64, u64)>,
    /// Those that are not finished, from this one on.
    oldest: u64,
    unfinished: VecDeque<Forwarded>,
}

#[derive(Debug)]
struct Forwarded {
    last: Watch,
    is_concluded: bool,
    is_released: bool,
}

impl Forwarding {
    /// The transfer that is called `own` here is called `inner` there.
    pub(super) fn entered(&mut self, own: TransferId, inner: TransferId, watch: Watch) {
        let number = inner.number();
        let (_, more) = *self.first.get_or_insert((number, number.wrapping_sub(own.number())));
        debug_assert_eq!(number.wrapping_sub(own.number()), more, "something came between");
        if self.unfinished.is_empty() {
            self.oldest = number;
        }
        let last = super::transfers::last_of(watch);
        self.unfinished.push_back(Forwarded { last, is_concluded: false, is_released: false });
    }

    /// Those that are not finished.
    pub(super) fn len(&self) -> usize {
        self.unfinished.len()
    }

    /// Whether the inner driver's transfer is one of these.
    pub(super) fn has(&self, inner: TransferId) -> bool {
        self.first.is_some_and(|(first, _)| inner.number() >= first)
    }

    /// What the inner driver has said of one of them, as it is said here.
    /// `instead` is why the connection ends, where that is known better.
    pub(super) fn passed_on(
        &mut self,
        mut completion: Completion,
        instead: Option<&FailReason>,
    ) -> Completion {
        self.note(&completion);
        if let (Reached::Failed(failure), Some(reason)) = (&mut completion.reached, instead) {
            failure.reason = reason.clone();
        }
        let (_, more) = self.first.unwrap_or_default();
        completion.transfer = TransferId::new(completion.transfer.number().wrapping_sub(more));
        completion
    }

    fn note(&mut self, completion: &Completion) {
        let index = completion.transfer.number().wrapping_sub(self.oldest);
        let Some(one) = usize::try_from(index).ok().and_then(|n| self.unfinished.get_mut(n)) else {
            return;
        };
        match completion.reached {
            Reached::Queued => one.is_concluded |= one.last == Watch::QUEUED,
            Reached::Transmitted => one.is_concluded |= one.last == Watch::TRANSMITTED,
            Reached::Acked | Reached::Failed(_) => one.is_concluded = true,
            Reached::Released(_) => {
                one.is_released = true;
                one.is_concluded |= one.last == Watch::NONE;
            }
        }
        while self.unfinished.front().is_some_and(|one| one.is_concluded && one.is_released) {
            self.unfinished.pop_front();
            self.oldest += 1;
        }
    }
}
