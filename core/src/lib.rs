//! Transfer completion: hand over an owned payload, and be told, truthfully and
//! exactly once, when it was queued, transmitted, acknowledged to the last byte,
//! and when its memory is yours again.
//!
//! This crate is the vocabulary, the contract as traits, and the [`Ledger`],
//! the pure state machine that turns what a kernel said (facts) into what a
//! user is told (completions). It makes no system call and reads no clock, so
//! every order of facts can be tried; backends that feed it are in
//! `lastbyte-backends`, and anyone can write another against this crate alone.
//!
//! | trait | implemented by | used by |
//! |---|---|---|
//! | [`CompletionSink`] | you, or [`EventQueue`], a channel, a closure | drivers |
//! | [`Backend`], [`Driver`] | backends | servers, proxies |
//! | [`ZeroCopySend`] | [`Connection`] over any driver | code that only sends |
//! | [`TlsOffload`] | backends | TLS adapters |

#![forbid(unsafe_code)]

mod arena;
mod attach;
mod backend;
mod capability;
mod completion;
mod config;
mod connection;
mod counters;
mod driver;
mod event;
mod evidence;
mod ids;
mod ledger;
mod offset;
mod outbox;
mod payload;
mod pool;
mod record_map;
mod refused;
mod registration;
mod select;
mod sink;
mod stage;
mod time;
mod tls;
mod tls_alert;
mod tls_failure;
mod zero_copy;

pub use arena::Arena;
pub use attach::{AttachOptions, Attached, StageEvidence, StageSupport};
pub use backend::{Backend, DriverError};
pub use capability::{Capability, Facility, Report, Support, UnknownFacility};
pub use completion::{Completion, FailReason, Failure, Memory, Reached};
pub use config::DriverConfig;
pub use connection::{Connection, ZeroCopySend};
pub use counters::Counters;
pub use driver::{Driver, Turn, Wake};
pub use event::{CloseOutcome, Event, Received, Socket};
pub use evidence::{Evidence, Method, Transport};
pub use ids::{ConnectionId, ListenerId, TransferId};
pub use ledger::{Call, Ledger, LedgerLimits, Look, Stamp, StampOf, Unsent};
pub use offset::{PlainOffset, StampKeys, WireOffset};
pub use outbox::Outbox;
pub use payload::{FileRange, FileSource, Part, Payload, Segment};
pub use pool::{Pool, PooledBuf};
pub use record_map::{RecordKind, RecordMap};
pub use refused::{Limit, RefuseReason, Refused};
pub use registration::NotRegistered;
pub use select::{
    BackendKind, Choice, Restrictions, UnknownBackend, Unsatisfied, select, why_not_ring,
};
pub use sink::{CompletionSink, EventQueue, EventQueueSink, SinkFn, event_channel};
pub use stage::{Stage, Watch};
pub use time::{ClockMap, Moment, Time, UnixTime};
pub use tls::{
    ControlRecord, MAX_RECORD_CONTENT, OffloadError, OffloadOptions, OffloadWish, Offloaded,
    ReceivedRecord, TlsCipher, TlsEstablished, TlsOffload, TlsPeer, TlsRole, TlsSession,
    TlsVersion, TrafficKeys,
};
pub use tls_alert::TlsAlert;
pub use tls_failure::TlsFailure;
pub use zero_copy::ZeroCopyPolicy;
