//! What the operator is told on standard error.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;

/// Says `what` on standard error if that can be written at once: a server goes on
/// though nobody hears what it complains of, and does not wait to be heard.
pub fn complain(what: impl Display) {
    say(io::stderr().lock(), format!("serve: {what}\n").as_bytes());
}

/// Writes `line` to `to` in one call, so that lines of several threads do not mix, if
/// it can be written at once. Nobody is there to be told of a failure.
pub fn say(to: impl AsFd, line: &[u8]) {
    match write_without_waiting(&to, line) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(_) => {
            if is_ready(&to) {
                let _ = write(to, line);
            }
        }
    }
}

/// Never waits, and leaves the descriptor as it is for others who have it. Whoever
/// looks first and then writes may wait all the same: the log goes to the same pipe
/// as often as not, and can fill it in between. Kernels before 6.4 cannot do it,
/// nor can all that is not a pipe or socket.
#[cfg(target_os = "linux")]
fn write_without_waiting(to: impl AsFd, line: &[u8]) -> Result<usize, Errno> {
    use rustix::fs::{FileType, fstat};
    use rustix::io::{ReadWriteFlags, pwritev2};

    /// Not at an offset, but as `write` does.
    const HERE: u64 = u64::MAX;
    // A file that would have to wait for its disk is not full, and worth it.
    let kind = FileType::from_raw_mode(fstat(&to)?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::Socket) {
        return Err(Errno::OPNOTSUPP);
    }
    pwritev2(to, &[io::IoSlice::new(line)], HERE, ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(_: impl AsFd, _: &[u8]) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Whether `to` takes something. A pipe with room at all takes a line as short as
/// these without blocking.
fn is_ready(to: impl AsFd) -> bool {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&AT_ONCE)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_line_arrives_where_there_is_room_and_is_dropped_where_there_is_none() {
        let (mut reader, mut writer) = pipe().unwrap();
        say(&writer, b"one\n");
        let mut read = [0; 8];
        assert_eq!(reader.read(&mut read).unwrap(), 4);
        while is_ready(&writer) {
            writer.write_all(&[b'x'; 4096]).unwrap();
        }
        say(&writer, b"two\n");
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.iter().all(|&byte| byte == b'x'));

        let file = tempfile::NamedTempFile::new().unwrap();
        say(file.as_file(), b"three\n");
        say(file.as_file(), b"four\n");
        assert_eq!(std::fs::read(file.path()).unwrap(), b"three\nfour\n");
        // A reader that is gone hears nothing.
        say(pipe().unwrap().1, b"five\n");
    }

    /// The log goes to the same pipe, fills it whenever there is room, and waits.
    #[test]
    fn whoever_else_fills_a_pipe_holds_up_no_complaint() {
        let (mut reader, writer) = pipe().unwrap();
        if let Err(errno @ (Errno::OPNOTSUPP | Errno::NOSYS)) = write_without_waiting(&writer, b"x")
        {
            return println!("n/a: {errno}");
        }
        let mut other = writer.try_clone().unwrap();
        let filling = thread::spawn(move || while other.write_all(&[b'x'; 4096]).is_ok() {});
        let said = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&said);
        thread::spawn(move || {
            while Arc::strong_count(&counted) > 1 {
                say(&writer, b"line\n");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..300 {
            // Room for one of them, and no more before the one that must not wait
            // has gone on.
            reader.read_exact(&mut [0; 4096]).unwrap();
            let (before, began) = (said.load(Ordering::Relaxed), Instant::now());
            while said.load(Ordering::Relaxed) < before + 3 {
                assert!(began.elapsed() < Duration::from_secs(20), "it waits for the reader");
                thread::sleep(Duration::from_micros(50));
            }
        }
        drop(reader);
        filling.join().unwrap();
    }
}
