//! C11 where the TLS library is somebody else's: it has made the handshake over a
//! plain connection, and hands the keys over in neutral terms.

use super::{expect_graceful, expect_nothing_held};
use crate::failure::{Failure, ensure};
use crate::peers::{End, RecordPeer, wire_to_end};
use crate::rig::{PATIENCE, Rig};
use crate::tls::{ALERT, CIPHERS, DATA, HANDSHAKE, Known, VERSIONS};
use crate::wire::{Pair, Wire};
use crate::{Case, Lack, Proof, Subject, pattern};
use lastbyte::{
    AttachOptions, Connection, ControlRecord, OffloadError, OffloadOptions, OffloadWish,
    ReceivedRecord, RefuseReason, TlsOffload, Transport, Watch,
};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(
        "C11-keys-of-another-library",
        "keys handed over in neutral terms: payload, records of other types, and the end",
        each,
    )]
}

const LEN: usize = 200_000;

fn each(subject: &Subject) -> Result<Proof, Failure> {
    let (mut lacking, mut offloaded) = (None, 0);
    for version in VERSIONS {
        for cipher in CIPHERS {
            let known = Known::new(version, cipher);
            match offload(subject, &known)
                .map_err(|failure| failure.while_doing(format!("{version:?} {cipher:?}")))?
            {
                Some(lack) => lacking = Some(lack),
                None => offloaded += 1,
            }
        }
    }
    Ok(match lacking {
        Some(lack) if offloaded == 0 => {
            Proof::substitute(lack, "the keys come back, and the connection goes on as it was")
        }
        _ => Proof::noting(format!("{offloaded} of 6 sessions were handed over")),
    })
}

/// What was lacking, if it was not handed over.
fn offload(subject: &Subject, known: &Known) -> Result<Option<Lack>, Failure> {
    let mut rig = Rig::new(subject)?;
    let Pair { own, peer } = Wire::default().pair(subject)?;
    let connection = rig.attach(own, &AttachOptions::default())?;
    let options = OffloadOptions::from(OffloadWish::Require);
    let handed = Connection::new(rig.driver(), connection).offload(known.session(), options);
    match handed {
        Ok(directions) => {
            let both = (directions.transmit, directions.receive);
            let kernel = Transport::KernelTls;
            ensure!(both == (kernel, kernel), "required, and {both:?}");
        }
        Err(OffloadError::Refused(refused)) => {
            let back = refused.value;
            ensure!(back.cipher == known.cipher, "another session came back");
            let lack = match refused.reason {
                RefuseReason::Lacks { facility } => subject.lacks(facility),
                // As a driver that has none of it says.
                RefuseReason::Unsupported { what } => Some(Lack::of(what)),
                _ => None,
            };
            let Some(lack) = lack else {
                return Err(Failure::new(format!("refused: {:?}", refused.reason)));
            };
            rig.send(connection, LEN, Watch::ALL)?;
            rig.driver().close(connection, PATIENCE)?;
            let (wire, end) = wire_to_end(&mut rig, &peer)?;
            ensure!(end == End::Finished, "it ended {end:?}");
            ensure!(wire == pattern::bytes(0, LEN), "{} bytes, not those sent", wire.len());
            return Ok(Some(lack));
        }
        Err(error) => return Err(Failure::new(format!("handing over failed: {error}"))),
    }
    rig.record.handed_over(connection);
    let mut peer = RecordPeer::after_handshake(peer, known)?;

    // Data, and after a while, in which more may be waited for ahead, other records.
    rig.driver().receive(connection)?;
    peer.send(DATA, b"question")?;
    rig.until("the question", |record| record.line(connection).inputs == 1)?;
    ensure!(rig.record.line(connection).input == b"question", "another question");
    for (n, (kind, content)) in
        [(HANDSHAKE, &[4, 0, 0, 1, 7][..]), (ALERT, &[1, 0])].into_iter().enumerate()
    {
        rig.driver().receive(connection)?;
        rig.linger(Duration::from_millis(10))?;
        peer.send(kind, content)?;
        rig.until("the record", |record| record.line(connection).records.len() > n)?;
        let record = ControlRecord { content_type: kind, content: content.to_vec() };
        let told = rig.record.line(connection).records.last();
        ensure!(told == Some(&ReceivedRecord::Control(record)), "told was {told:?}");
    }

    rig.send(connection, LEN, Watch::ALL)?;
    let goodbye = ControlRecord { content_type: ALERT, content: vec![1, 0] };
    if let Err(refused) = rig.driver().submit_record(connection, goodbye) {
        return Err(Failure::new(format!("close_notify: {:?}", refused.reason)));
    }
    rig.driver().close(connection, PATIENCE)?;
    peer.read_to_end(&mut rig)?;
    peer.expect_all(LEN as u64)?;
    peer.finish()?;
    rig.until("the connection to close", |record| record.is_closed(connection))?;
    rig.settle()?;
    expect_graceful(&rig, connection)?;
    expect_nothing_held(&mut rig)?;
    Ok(None)
}
