//! Input that was received before anybody asked for it.

use lastbyte::PooledBuf;
use std::sync::Arc;

/// A buffer of such input. It counts among what was received ahead until it is
/// handed on, or dropped with its connection.
#[derive(Debug)]
pub(crate) struct Ahead {
    buffer: PooledBuf,
    _counted: Arc<()>,
}

impl Ahead {
    /// What is handed on to the user.
    pub(crate) fn into_buffer(self) -> PooledBuf {
        self.buffer
    }
}

/// Counts buffers by the references to it.
#[derive(Debug, Default)]
pub(crate) struct AheadCount(Arc<()>);

impl AheadCount {
    /// One more.
    pub(crate) fn of(&self, buffer: PooledBuf) -> Ahead {
        Ahead { buffer, _counted: Arc::clone(&self.0) }
    }

    /// How many there are.
    pub(crate) fn get(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::Pool;

    #[test]
    fn what_is_handed_on_or_dropped_counts_no_more() {
        let (count, pool) = (AheadCount::default(), Pool::new(4, 1));
        let (first, second) = (count.of(pool.take()), count.of(pool.take()));
        assert_eq!(count.get(), 2);
        let buffer = first.into_buffer();
        assert_eq!(count.get(), 1);
        drop(second);
        assert_eq!(count.get(), 0);
        assert!(buffer.is_empty());
    }
}
