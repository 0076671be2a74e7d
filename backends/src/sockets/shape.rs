//! How a transfer is cut into calls.
//!
//! The same bytes cost up to twice as much CPU, or leave their stamp behind,
//! depending on the calls that carry them. What decides, as measured on
//! loopback against the alternatives (docs/speed.md):
//!
//! - A small response goes in one call. Two small segments make the peer
//!   acknowledge at once, and that wakes the sender once more; one is
//!   acknowledged along with the peer's next request.
//! - `sendfile` cannot ask for a stamp on its last byte only: with the socket's
//!   own bits set it leaves one every 64 KiB. So the last bytes of a file are
//!   copied, in a call that can.
//! - A long transfer that ends with a small call of its own leaves TCP
//!   application-limited, and congestion controls that pace (BBR) do not start
//!   to pace a connection that merely ran out of data.
//! - A header glued to a large file (`MSG_MORE`) makes the sender's core do the
//!   work of later segments, too; on its own it does not.

/// Up to this, header and file go together in one copied call.
const JOINED: u64 = 32 << 10;

/// From this on, memory is sent in two calls, the second one small.
const SPLIT: u64 = 64 << 10;

/// From this on, a file counts as large.
const LARGE: u64 = 512 << 10;

/// What is copied at the end of a file: as little as is still a segment of its
/// own.
const TAIL: u64 = 512;

/// What is copied at the end of a large file, and of split memory: a whole page,
/// so that `sendfile` ends with one. Where it did not, 1 MiB cost twice as much.
const LARGE_TAIL: u64 = 4 << 10;

/// What is left of a transfer, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Bytes of memory that come first.
    pub(super) memory: u64,
    /// The file range behind them.
    pub(super) file: Option<FileRest>,
    /// Whether something comes behind these two.
    pub(super) more: bool,
    /// A stamp on the last byte is of use.
    pub(super) stamp: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FileRest {
    /// Bytes that are left of it.
    pub(super) len: u64,
    /// Bytes that it had at first.
    pub(super) whole: u64,
}

/// What the next call should move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// The first `len` bytes of memory; `glue` if the next call's bytes should
    /// share a segment with them.
    Memory { len: u64, glue: bool },
    /// All the memory and all of the file, copied.
    Joined,
    /// `len` bytes of the file, copied.
    Read { len: u64 },
    /// `len` bytes of the file, by `sendfile`.
    Sendfile { len: u64 },
}

pub(super) fn next(rest: Rest, sendfile: bool) -> Step {
    let Rest { memory, file, more, stamp } = rest;
    let Some(file) = file else {
        let split = !more && memory > SPLIT;
        let len = if split { memory - LARGE_TAIL } else { memory };
        return Step::Memory { len, glue: more };
    };
    if !more && memory + file.len <= JOINED {
        return Step::Joined;
    }
    if memory > 0 {
        return Step::Memory { len: memory, glue: more || file.len < LARGE };
    }
    if !sendfile {
        return Step::Read { len: file.len };
    }
    let is_large = file.whole >= LARGE;
    let tail = match (more, is_large, stamp) {
        (true, ..) | (false, true, false) => 0,
        (false, true, true) => LARGE_TAIL,
        (false, false, _) => TAIL,
    };
    if file.len > tail {
        Step::Sendfile { len: file.len - tail }
    } else {
        Step::Read { len: file.len }
    }
}

/// The same where the kernel seals what it is given: it copies everything once
/// in any case, `sendfile` asks for stamps as every call does, and each call is
/// a record at least. `most` is as much as one call may move.
pub(super) fn next_sealed(rest: Rest, sendfile: bool, most: u64) -> Step {
    let Rest { memory, file, more, .. } = rest;
    let Some(file) = file else {
        return Step::Memory { len: memory.min(most), glue: more && memory <= most };
    };
    if !more && memory + file.len <= JOINED.min(most) {
        return Step::Joined;
    }
    if memory > 0 {
        return Step::Memory { len: memory.min(most), glue: memory <= most };
    }
    if sendfile { Step::Sendfile { len: file.len } } else { Step::Read { len: file.len } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rest(memory: u64, file: u64) -> Rest {
        let file = (file > 0).then_some(FileRest { len: file, whole: file });
        Rest { memory, file, more: false, stamp: true }
    }

    #[test]
    fn a_small_response_is_one_call() {
        assert_eq!(next(rest(200, 16 << 10), true), Step::Joined);
        assert_eq!(next(rest(4 << 10, 0), true), Step::Memory { len: 4 << 10, glue: false });
    }

    #[test]
    fn a_file_ends_with_a_small_copied_call() {
        let file = 128 << 10;
        assert_eq!(next(rest(200, file), true), Step::Memory { len: 200, glue: true });
        assert_eq!(next(rest(0, file), true), Step::Sendfile { len: file - TAIL });
        let tail = Rest { file: Some(FileRest { len: TAIL, whole: file }), ..rest(0, 0) };
        assert_eq!(next(tail, true), Step::Joined);
    }

    proptest! {
        /// Whatever the sizes, each step moves something, and steps end.
        #[test]
        fn every_step_moves_bytes(
            mut memory in 0_u64..1 << 20,
            mut file in 0_u64..1 << 20,
            more in any::<bool>(),
            stamp in any::<bool>(),
            sendfile in any::<bool>(),
            sealed in any::<bool>(),
        ) {
            prop_assume!(memory + file > 0);
            let whole = file;
            let mut steps = 0;
            while memory + file > 0 {
                let file_rest = (file > 0).then_some(FileRest { len: file, whole });
                let rest = Rest { memory, file: file_rest, more, stamp };
                match if sealed { next_sealed(rest, sendfile, u64::MAX) } else { next(rest, sendfile) } {
                    Step::Memory { len, .. } => {
                        prop_assert!(len > 0 && len <= memory);
                        memory -= len;
                    }
                    Step::Joined => (memory, file) = (0, 0),
                    Step::Read { len } | Step::Sendfile { len } => {
                        prop_assert!(memory == 0 && len > 0 && len <= file);
                        file -= len;
                    }
                }
                steps += 1;
            }
            prop_assert!(steps <= 3, "{} calls", steps);
        }
    }
}
