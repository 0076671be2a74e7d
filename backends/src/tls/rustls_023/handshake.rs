//! One handshake, and what comes of it.

use super::keys::{Schedule, Tickets, keys};
use super::{cipher_of, text};
use crate::tls::handshake::{Established, Handshake, Step};
use lastbyte::{TlsPeer, TlsVersion};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets, SupportedCipherSuite};
use std::fmt;

/// A client's or a server's connection, of which the library has two types with
/// the same methods.
pub(super) trait Side: Send {
    type Data: Tickets;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

macro_rules! side {
    ($connection:ty, $data:ty) => {
        impl Side for $connection {
            type Data = $data;

            fn process<'c, 'i>(
                &'c mut self,
                records: &'i mut [u8],
            ) -> UnbufferedStatus<'c, 'i, Self::Data> {
                self.process_tls_records(records)
            }

            fn state(&self) -> &CommonState {
                self
            }

            fn into_kernel(
                self,
            ) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
                self.dangerous_into_kernel_connection()
            }
        }
    };
}

side!(UnbufferedServerConnection, ServerConnectionData);
side!(UnbufferedClientConnection, ClientConnectionData);

/// Most of the input that is kept until a message is complete: twice as long as the
/// longest that the library takes, which is 2^16 - 1 bytes. Records of 64 bytes, the
/// least that a peer may be limited to (RFC 8449, section 4), fit in; a record of one
/// byte and 16 KiB of padding for each byte of a message would come to a gigabyte.
const MAX_HELD: usize = 1 << 17;

/// A handshake that is being made.
pub(super) struct Shaking<S> {
    connection: S,
    /// What the library has not told to be discarded: a record whose message goes
    /// on in the next one, or that has more messages. The library remembers where
    /// they are, so it has to be shown the same bytes again.
    input: Vec<u8>,
}

impl<S> Shaking<S> {
    pub(super) fn new(connection: S) -> Self {
        Self { connection, input: Vec::new() }
    }
}

impl<S: Side> Shaking<S> {
    fn one_step(&mut self, out: &mut Vec<u8>) -> Moved {
        let (used, moved) = one_step(self.connection.process(&mut self.input), out);
        self.input.drain(..used);
        moved
    }
}

impl<S: Side> Handshake for Shaking<S> {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        if self.input.len() > MAX_HELD {
            return Err("a handshake message is in too many records".to_owned());
        }
        self.input.extend_from_slice(records);
        loop {
            match self.one_step(out) {
                Moved::On => {}
                Moved::Blocked if self.connection.state().is_handshaking() => {
                    return Ok(Step::Blocked);
                }
                // The next record is for other keys (RFC 8446, section 5.1).
                Moved::Blocked if !self.input.is_empty() => {
                    return Err("a message goes on beyond the handshake".to_owned());
                }
                Moved::Blocked => return Ok(Step::Done),
                Moved::Failed(reason) => {
                    // The alert that says so waits to be encoded. After that the
                    // library would look at the same input again.
                    while self.connection.state().wants_write()
                        && let Moved::On = self.one_step(out)
                    {}
                    return Err(reason);
                }
            }
        }
    }

    fn establish(self: Box<Self>) -> Result<Established, String> {
        let peer = peer(self.connection.state());
        let (secrets, connection) = self.connection.into_kernel().map_err(text)?;
        let suite = connection.negotiated_cipher_suite();
        let (version, record_limit) = match suite {
            SupportedCipherSuite::Tls12(suite) => {
                (TlsVersion::Tls12, suite.common.confidentiality_limit)
            }
            SupportedCipherSuite::Tls13(suite) => {
                (TlsVersion::Tls13, suite.common.confidentiality_limit)
            }
        };
        Ok(Established {
            version,
            cipher: cipher_of(suite.suite()).ok_or("the cipher is not known here")?,
            transmit: keys(secrets.tx)?,
            receive: keys(secrets.rx)?,
            record_limit,
            peer,
            schedule: Box::new(Schedule(connection)),
        })
    }
}

impl<S> fmt::Debug for Shaking<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaking").finish_non_exhaustive()
    }
}

/// What the peer has shown or agreed to; most show nothing.
fn peer(state: &CommonState) -> Option<Box<TlsPeer>> {
    let shown = state.peer_certificates().unwrap_or_default();
    let protocol = state.alpn_protocol().map(<[u8]>::to_vec);
    if shown.is_empty() && protocol.is_none() {
        return None;
    }
    let certificates = shown.iter().map(|certificate| certificate.to_vec()).collect();
    Some(Box::new(TlsPeer::new(protocol, certificates)))
}

/// What came of one state of the library.
enum Moved {
    /// It goes on with what remains of the input.
    On,
    /// Nothing more comes of this input.
    Blocked,
    Failed(String),
}

fn one_step<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, Moved) {
    let moved = match status.state {
        Err(error) => Moved::Failed(error.to_string()),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = out.len();
            let mut encoded = data.encode(&mut []);
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                encoded
            {
                out.resize(start + required_size, 0);
                encoded = data.encode(&mut out[start..]);
            }
            match encoded {
                Ok(_) => Moved::On,
                Err(error) => Moved::Failed(error.to_string()),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // The caller sends `out` before it does anything else.
            data.done();
            Moved::On
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Moved::Blocked,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            Moved::Failed("the peer closed the connection".to_owned())
        }
        // Early data is not offered, and no more than one record is given in,
        // so there is none of these.
        Ok(_) => Moved::Failed("there is data before the end of the handshake".to_owned()),
    };
    (status.discard, moved)
}
