//! A connection by itself, for code that needs no driver.

use crate::{
    ConnectionId, Driver, OffloadError, OffloadOptions, Offloaded, Payload, Refused, TlsOffload,
    TlsSession, TransferId, Watch,
};

/// Sends payloads on one connection.
///
/// [`Connection`] implements it over any driver; wrap it to add a layer.
pub trait ZeroCopySend {
    /// Sends `payload` behind everything sent before, without copying it where
    /// that can be had and pays.
    ///
    /// # Errors
    /// Gives the payload back if nothing of it will be sent.
    fn send(&mut self, payload: Payload, watch: Watch) -> Result<TransferId, Refused<Payload>>;
}

/// A connection of a borrowed driver.
///
/// ```no_run
/// # fn example(driver: &mut dyn lastbyte::Driver, id: lastbyte::ConnectionId)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use lastbyte::{Connection, Payload, Watch, ZeroCopySend};
/// let mut connection = Connection::new(driver, id);
/// let sender: &mut dyn ZeroCopySend = &mut connection;
/// sender.send(Payload::from(&b"hello"[..]), Watch::ACKED)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Connection<'d> {
    driver: &'d mut dyn Driver,
    id: ConnectionId,
}

impl<'d> Connection<'d> {
    /// The connection `id` of `driver`.
    pub fn new(driver: &'d mut dyn Driver, id: ConnectionId) -> Self {
        Self { driver, id }
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }
}

impl ZeroCopySend for Connection<'_> {
    fn send(&mut self, payload: Payload, watch: Watch) -> Result<TransferId, Refused<Payload>> {
        self.driver.submit(self.id, payload, watch)
    }
}

impl TlsOffload for Connection<'_> {
    fn offload(
        &mut self,
        session: TlsSession,
        options: OffloadOptions,
    ) -> Result<Offloaded, OffloadError> {
        self.driver.offload_tls(self.id, session, options)
    }
}
