//! The keys that follow a handshake.

use super::text;
use crate::tls::handshake::KeySchedule;
use lastbyte::TrafficKeys;
use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use std::fmt;

/// What the library keeps of a connection whose records are not its own.
pub(super) struct Schedule<D>(pub(super) KernelConnection<D>);

/// What the two sides do differently.
pub(super) trait Tickets: Send + Sized + 'static {
    /// Whether there can be any.
    const TAKES: bool;

    fn ticket(connection: &mut KernelConnection<Self>, message: &[u8]) -> Result<(), String>;
}

impl Tickets for ServerConnectionData {
    const TAKES: bool = false;

    fn ticket(_: &mut KernelConnection<Self>, _: &[u8]) -> Result<(), String> {
        Err("a server takes no tickets".to_owned())
    }
}

impl Tickets for ClientConnectionData {
    const TAKES: bool = true;

    fn ticket(connection: &mut KernelConnection<Self>, message: &[u8]) -> Result<(), String> {
        connection.handle_new_session_ticket(message).map_err(text)
    }
}

impl<D: Tickets> KeySchedule for Schedule<D> {
    fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_tx_secret().map_err(text)?)
    }

    fn next_receive(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_rx_secret().map_err(text)?)
    }

    fn takes_tickets(&self) -> bool {
        D::TAKES
    }

    fn ticket(&mut self, message: &[u8]) -> Result<(), String> {
        D::ticket(&mut self.0, message)
    }
}

impl<D> fmt::Debug for Schedule<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.0.negotiated_cipher_suite()).finish()
    }
}

/// The library's secrets as ours. Its own copies are wiped when dropped.
pub(super) fn keys(
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
) -> Result<TrafficKeys, String> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            Ok(TrafficKeys::new(key.as_ref().to_vec(), iv.as_ref().to_vec(), sequence))
        }
        _ => Err("the cipher is not known here".to_owned()),
    }
}
