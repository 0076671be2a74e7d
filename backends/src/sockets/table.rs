//! A driver's connections, by slot.

use super::connection::Connection;
use std::ops::{Index, IndexMut};

/// A slot that was given up is given out again only a turn after the end of its
/// owner was delivered: until then that may wait in a queue of the user's, who
/// keeps a table by slots too.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Connection>>,
    occupied: usize,
    free: Vec<usize>,
    /// Given up since the last delivery.
    untold: Vec<usize>,
    /// Given up, and their owners' ends delivered in this turn.
    told: Vec<usize>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.occupied
    }

    /// Slots there are, occupied or not.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot that [`Self::insert`] fills next.
    pub(super) fn vacant(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    pub(super) fn insert(&mut self, connection: Connection) {
        match self.free.pop() {
            Some(slot) => self.slots[slot] = Some(connection),
            None => self.slots.push(Some(connection)),
        }
        self.occupied += 1;
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Connection> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Connection> {
        let connection = self.slots.get_mut(slot)?.take()?;
        self.occupied -= 1;
        self.untold.push(slot);
        Some(connection)
    }

    /// All that was to be told has been.
    pub(super) fn delivered(&mut self) {
        self.told.append(&mut self.untold);
    }

    /// The user has seen all that earlier turns have delivered.
    pub(super) fn turn_begins(&mut self) {
        self.free.append(&mut self.told);
    }
}

impl Index<usize> for Table {
    type Output = Connection;

    fn index(&self, slot: usize) -> &Connection {
        self.get(slot).expect("the caller has found it there")
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, slot: usize) -> &mut Connection {
        self.get_mut(slot).expect("the caller has found it there")
    }
}
