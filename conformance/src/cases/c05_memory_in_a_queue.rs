//! C5 where a network device's queue still holds what a connection has sent when
//! that is over: the kernel reads it there, and says so when it has.

use super::c03_truth_over_a_link::without_link;
use super::expect_nothing_held;
use crate::failure::{Failure, ensure};
use crate::link::{Ends, shaped};
use crate::peers::reset;
use crate::rig::{PATIENCE, Rig};
use crate::{Case, Proof, Subject};
use lastbyte::{AttachOptions, Facility, Method, Watch};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "C05-given-up-with-bytes-in-a-queue",
            "memory that a queue still holds comes back once that has let go, which nobody waits \
             for busily",
            |subject| given_up(subject, By::Us),
        ),
        Case::new(
            "C05-reset-with-bytes-in-a-queue",
            "the same if it was the peer who ended it",
            |subject| given_up(subject, By::Peer),
        ),
    ]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    Us,
    Peer,
}

fn given_up(subject: &Subject, by: By) -> Result<Proof, Failure> {
    // What goes out at once is let out within a few seconds.
    let Ends { server, client } = match shaped(60_000)? {
        Ok(made) => made,
        Err(lack) => return without_link(subject, lack),
    };
    let mut rig = Rig::eager(subject)?;
    let mut options = AttachOptions::default();
    // Whoever only waits for that is found out.
    options.release_timeout = 2 * PATIENCE;
    let connection = rig.attach(server, &options)?;
    for _ in 0..3 {
        rig.send(connection, 60_000, Watch::ALL)?;
    }
    rig.driver().receive(connection)?;
    rig.linger(Duration::from_millis(20))?;
    let counters = rig.driver().counters();
    let (pinned, zero_copied) = (counters.pinned_bytes, counters.method(Method::ZeroCopy));
    let lack = subject.lacks(Facility::ZeroCopy).or_else(|| super::no_room(&mut rig));
    ensure!(lack.is_some() || zero_copied > 0, "nothing was zero-copied");
    match by {
        By::Us => rig.driver().abort(connection)?,
        By::Peer => reset(client.try_clone()?)?,
    }
    drop(client);
    let held = rig.driver().counters().pinned_bytes;
    rig.expect_calm()?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    // It was not leaked at the deadline, long after the queue had let go.
    let leaked = rig.record.transfers().filter(|told| told.leaked).count();
    ensure!(leaked == 0, "{leaked} payloads leaked");
    expect_nothing_held(&mut rig)?;
    Ok(match lack {
        Some(lack) => Proof::substitute(lack, "copied payloads come back at once"),
        None => Proof::noting(format!("{pinned} bytes pinned before, {held} after the end")),
    })
}
