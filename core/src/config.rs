//! What a driver is told when it is made.

/// Bounds and habits of a driver.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DriverConfig {
    /// Connections at once.
    pub max_connections: u32,
    /// Bytes of payload memory that may be unreleased, over all connections.
    pub max_memory: u64,
    /// Size of a receive buffer in bytes: the most that one receive yields. A backend
    /// may make do with less where that is more than a socket holds.
    pub receive_buffer: usize,
    /// Bytes of buffers that may wait for input that nobody has asked for, or be
    /// full of it, over all connections, where a backend receives ahead. Beyond
    /// that it reads when asked. One buffer is always allowed.
    pub receive_ahead: u64,
    /// Sockets that one turn handles at the most: half of them because
    /// something happened, half because they had more to do than an earlier
    /// turn allowed. Smaller batches stay in the processor's cache.
    pub events_per_turn: usize,
    /// Bytes that one connection may write in a row before others get their turn. A
    /// call that has begun is not cut short for it: memory goes as far as the socket's
    /// send buffer has room. One with few bytes may count for more, as it takes a time
    /// of its own.
    pub write_burst: u64,
    /// Connections that one listener may yield in a turn.
    pub accept_burst: usize,
    /// Shortest payload that zero copy is tried for, in bytes.
    pub zero_copy_threshold: u64,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_memory: 1 << 30,
            receive_buffer: 16 << 10,
            receive_ahead: 16 << 20,
            events_per_turn: 64,
            write_burst: 2 << 20,
            accept_burst: 64,
            zero_copy_threshold: 32 << 10,
        }
    }
}
