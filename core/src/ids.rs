//! Names of the things a driver deals with.

use std::fmt;

/// One attached connection of one driver.
///
/// The slot is reused after a connection is closed, the generation is not: an
/// identifier that outlived its connection never reaches another one. A driver
/// does not reuse a slot before the turn after the one that delivered
/// [`Closed`](crate::Event::Closed): whoever has taken in what one turn delivered
/// before the next can keep a table by slots.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// Names the connection in `slot` for the `generation`th time.
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Index into the driver's table.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// How often the driver has handed out an identifier before this one.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// One submitted payload on one connection, numbered from 0 in submission order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransferId(u64);

impl TransferId {
    /// The `number`th transfer of its connection, from 0.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Position in the connection's submission order, from 0.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One listening socket of one driver. As with connections, the generation
/// keeps an old identifier from reaching a newer listener.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListenerId {
    slot: u32,
    generation: u32,
}

impl ListenerId {
    /// Names the listener in `slot` for the `generation`th time.
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Index into the driver's table.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }
}
