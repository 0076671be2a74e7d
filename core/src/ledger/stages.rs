//! What a fact completes: each stage has a front that only moves forward, and
//! tells of every transfer that it passes.

use super::Ledger;
use crate::{Evidence, Moment, Outbox, Reached, StageEvidence, Time, Watch};

impl Ledger {
    pub(super) fn advance_queued(&mut self, now: Moment, out: &mut Outbox) {
        loop {
            let n = self.index(self.queued);
            let accepted_to = self.accepted_to;
            let Some(transfer) = self.transfers.get_mut(n).filter(|t| t.end <= accepted_to) else {
                return;
            };
            self.queued += 1;
            transfer.queued_at = now.monotonic;
            let watch = transfer.watch;
            let bracket = Evidence::Bracketed { after: transfer.began };
            let last = !(watch.contains(Watch::ACKED) || watch.contains(Watch::TRANSMITTED));
            let unavailable = self.support.acked == StageEvidence::Unavailable;
            transfer.concluded = last || unavailable;
            if watch.contains(Watch::QUEUED) {
                self.report(n, Reached::Queued, now, bracket, out);
            }
            if unavailable {
                if watch.contains(Watch::TRANSMITTED) {
                    self.report(n, Reached::Transmitted, now, Evidence::Unavailable, out);
                }
                if watch.contains(Watch::ACKED) {
                    self.report(n, Reached::Acked, now, Evidence::Unavailable, out);
                }
            }
            self.release_if_free(n, now, out);
        }
    }

    /// Transmission is known up to `to`, by `at`; for the transfer that ends at
    /// `exact` that is the time itself.
    pub(super) fn advance_transmitted(
        &mut self,
        to: u64,
        at: Moment,
        exact: Option<u64>,
        out: &mut Outbox,
    ) {
        let to = to.min(self.accepted_to);
        if to <= self.transmitted_to {
            return;
        }
        self.transmitted_to = to;
        self.transmitted = self.transmitted.max(self.first);
        while let Some(transfer) = self.transfers.get(self.index(self.transmitted)) {
            if transfer.end > to {
                break;
            }
            let n = self.index(self.transmitted);
            let exact = exact == Some(transfer.end);
            self.transmitted += 1;
            self.reach_transmitted(n, at, exact, out);
        }
    }

    fn reach_transmitted(&mut self, n: usize, at: Moment, exact: bool, out: &mut Outbox) {
        let after = self.looked_for_transmit;
        let transfer = &mut self.transfers[n];
        if transfer.transmitted || !transfer.watch.contains(Watch::TRANSMITTED) {
            return;
        }
        transfer.transmitted = true;
        let at = not_before(at, transfer.queued_at);
        transfer.transmitted_at = at.monotonic;
        let evidence = evidence(exact, after.max(transfer.began), at);
        if transfer.concluded {
            return;
        }
        transfer.concluded = !transfer.watch.contains(Watch::ACKED);
        self.report(n, Reached::Transmitted, at, evidence, out);
    }

    /// As [`Self::advance_transmitted`], for acknowledgement.
    pub(super) fn advance_acked(
        &mut self,
        to: u64,
        at: Moment,
        exact: Option<u64>,
        out: &mut Outbox,
    ) {
        let to = to.min(self.accepted_to);
        if to <= self.acked_to {
            return;
        }
        self.acked_to = to;
        self.acked = self.acked.max(self.first);
        while let Some(transfer) = self.transfers.get(self.index(self.acked)) {
            if transfer.end > to {
                break;
            }
            let n = self.index(self.acked);
            let exact = exact == Some(transfer.end);
            self.acked += 1;
            // What the peer has was transmitted, some time before.
            self.reach_transmitted(n, at, false, out);
            self.reach_acked(n, at, exact, out);
        }
        self.transmitted_to = self.transmitted_to.max(to);
        self.transmitted = self.transmitted.max(self.acked);
    }

    fn reach_acked(&mut self, n: usize, at: Moment, exact: bool, out: &mut Outbox) {
        let after = self.looked_for_ack;
        let transfer = &mut self.transfers[n];
        // A look that showed the transfer before may have ended after this one's
        // stamp was taken.
        let earliest = transfer.queued_at.max(transfer.transmitted_at).max(self.acked_at);
        let at = not_before(at, earliest);
        self.acked_at = at.monotonic;
        transfer.file_pinned = false;
        if exact {
            transfer.stamped = false;
        }
        if !transfer.concluded {
            // Only this stage was left: all that is watched before it was told.
            transfer.concluded = true;
            let evidence = evidence(exact, after.max(transfer.began), at);
            self.report(n, Reached::Acked, at, evidence, out);
        }
        self.release_if_free(n, at, out);
    }
}

fn evidence(exact: bool, after: Time, at: Moment) -> Evidence {
    if exact { Evidence::Kernel } else { Evidence::Bracketed { after: after.min(at.monotonic) } }
}

/// Keeps stages in order of time. The kernel may stamp an acknowledgement while
/// the call that sent the bytes has not yet returned (on loopback the peer's
/// answer is processed inside of it); the time is moved to the call's return,
/// and the error grows by as much.
fn not_before(at: Moment, earliest: Time) -> Moment {
    let moved = earliest.since(at.monotonic);
    Moment { monotonic: at.monotonic.max(earliest), error: at.error.saturating_add(moved), ..at }
}
