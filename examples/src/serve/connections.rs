//! The connections of a thread, by the driver's names for them.

use super::connection::Connection;
use lastbyte::ConnectionId;

/// As fast to look into as the driver's own table, whose slots it shares.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Vec<Option<Connection>>,
    /// Those whose slot the driver has given to a newer one, while what it says
    /// last of them is still to be heard.
    displaced: Vec<Connection>,
}

impl Connections {
    /// Enters a connection.
    pub fn insert(&mut self, connection: Connection) -> &mut Connection {
        let slot = connection.id.slot() as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.displaced.extend(self.slots[slot].take());
        self.slots[slot].insert(connection)
    }

    /// The connection of that name.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot() as usize).and_then(Option::as_mut);
        let found = slot.filter(|connection| connection.id == id);
        found.or_else(|| self.displaced.iter_mut().find(|connection| connection.id == id))
    }

    /// Takes out the connection of that name.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let slot = self.slots.get_mut(id.slot() as usize);
        let found = slot.and_then(|slot| slot.take_if(|connection| connection.id == id));
        found.or_else(|| {
            let n = self.displaced.iter().position(|connection| connection.id == id)?;
            Some(self.displaced.swap_remove(n))
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().flatten().chain(&self.displaced)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().flatten().chain(&mut self.displaced)
    }
}
