//! Request bodies, which are read only to find their end.

use super::request::Body;

/// Most bytes of a request body that are read, framing included.
pub const MAX_BODY: u64 = 1 << 20;
/// Longest line between chunks.
const MAX_LINE: usize = 4 << 10;

/// The rest of a body.
#[derive(Debug)]
pub struct Unread {
    at: At,
    /// Bytes that may still come.
    allowed: u64,
}

#[derive(Debug)]
enum At {
    /// In the content, with this much to go.
    Content(u64),
    /// In a line of the chunked coding.
    Line { line: Vec<u8>, of: LineOf },
    /// In a chunk's data, with this much to go.
    Chunk(u64),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LineOf {
    Size,
    AfterChunk,
    Trailer,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// It goes on.
    More,
    /// It ended, and took this many bytes of those given.
    Ended(usize),
    /// It is longer than is allowed.
    TooLong,
    /// It is not in the coding that was announced.
    Malformed,
}

impl Unread {
    /// The whole of `body`; `None` if there is none.
    #[must_use]
    pub fn new(body: Body) -> Option<Self> {
        let at = match body {
            Body::None => return None,
            Body::Length(length) => At::Content(length),
            Body::Chunked => At::Line { line: Vec::new(), of: LineOf::Size },
        };
        Some(Self { at, allowed: MAX_BODY })
    }

    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        if let At::Content(left) = &mut self.at {
            if *left > self.allowed {
                return Progress::TooLong;
            }
            let taken = (*left).min(bytes.len() as u64);
            *left -= taken;
            self.allowed -= taken;
            let taken = usize::try_from(taken).unwrap_or(bytes.len());
            return if *left == 0 { Progress::Ended(taken) } else { Progress::More };
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.allowed == 0 {
                return Progress::TooLong;
            }
            match self.step(rest) {
                Ok((taken, ended)) => {
                    rest = &rest[taken..];
                    self.allowed = self.allowed.saturating_sub(taken as u64);
                    if ended {
                        return Progress::Ended(bytes.len() - rest.len());
                    }
                }
                Err(progress) => return progress,
            }
        }
        Progress::More
    }

    /// Takes at least one of `rest`, which has one, and says whether it was the
    /// body's last.
    fn step(&mut self, rest: &[u8]) -> Result<(usize, bool), Progress> {
        match &mut self.at {
            At::Content(left) | At::Chunk(left) => {
                let taken = (*left).min(rest.len() as u64);
                *left -= taken;
                if *left == 0 {
                    self.at = At::Line { line: Vec::new(), of: LineOf::AfterChunk };
                }
                Ok((usize::try_from(taken).unwrap_or(rest.len()), false))
            }
            At::Line { line, of } => {
                let end = rest.iter().position(|&byte| byte == b'\n');
                let taken = end.map_or(rest.len(), |end| end + 1);
                line.extend_from_slice(&rest[..taken]);
                if line.len() > MAX_LINE {
                    return Err(Progress::TooLong);
                }
                if end.is_none() {
                    return Ok((taken, false));
                }
                let Some(text) = line.strip_suffix(b"\r\n") else {
                    return Err(Progress::Malformed);
                };
                // Somebody on the way may take it for the line's end (RFC 9112,
                // section 2.2).
                if text.contains(&b'\r') {
                    return Err(Progress::Malformed);
                }
                self.at = match of {
                    LineOf::Trailer if text.is_empty() => return Ok((taken, true)),
                    LineOf::Trailer => At::Line { line: Vec::new(), of: LineOf::Trailer },
                    LineOf::AfterChunk if text.is_empty() => {
                        At::Line { line: Vec::new(), of: LineOf::Size }
                    }
                    LineOf::AfterChunk => return Err(Progress::Malformed),
                    LineOf::Size => match chunk_size(text).ok_or(Progress::Malformed)? {
                        0 => At::Line { line: Vec::new(), of: LineOf::Trailer },
                        size if size > self.allowed => return Err(Progress::TooLong),
                        size => At::Chunk(size),
                    },
                };
                Ok((taken, false))
            }
        }
    }
}

/// The size in a chunk's first line; extensions are ignored, and the blanks before
/// them (RFC 9112, section 7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let mut digits = line.split(|&byte| byte == b';').next()?;
    while let [others @ .., b' ' | b'\t'] = digits {
        digits = others;
    }
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(body: Body, bytes: &[u8], piece: usize) -> Progress {
        let mut unread = Unread::new(body).unwrap();
        let mut before = 0;
        for piece in bytes.chunks(piece.max(1)) {
            match unread.feed(piece) {
                Progress::More => before += piece.len(),
                Progress::Ended(taken) => return Progress::Ended(before + taken),
                bad => return bad,
            }
        }
        Progress::More
    }

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut() {
        let chunked = b"3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\nGET /";
        for piece in 1..chunked.len() {
            assert_eq!(all(Body::Chunked, chunked, piece), Progress::Ended(chunked.len() - 5));
            assert_eq!(all(Body::Length(7), b"0123456789", piece), Progress::Ended(7));
        }
        assert!(Unread::new(Body::None).is_none());
    }

    #[test]
    fn what_is_not_chunked_or_too_long_is_refused() {
        for bytes in [
            "\r\n",
            "x\r\n",
            "3\r\nabcd\r\n",
            "3\nabc\r\n",
            "3\r\r\n",
            "3;a\rb\r\n",
            "3\x0c\r\n",
            " 3\r\n",
            "0\r\nA: b\rc\r\n",
            "-1\r\n",
            "11111111111111111\r\n",
        ] {
            assert_eq!(all(Body::Chunked, bytes.as_bytes(), 1), Progress::Malformed, "{bytes:?}");
        }
        assert_eq!(all(Body::Chunked, b"ffffffff\r\n", 1), Progress::TooLong);
        assert_eq!(all(Body::Length(MAX_BODY + 1), b"a", 1), Progress::TooLong);
        assert_eq!(all(Body::Chunked, &b"1\r\na\r\n".repeat(1 << 18), 4096), Progress::TooLong);
        assert_eq!(all(Body::Chunked, &[b'0'; 5000], 100), Progress::TooLong);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in "[0-9a-f;\r\n]{0,60}", piece in 1_usize..9) {
            let _ = all(Body::Chunked, bytes.as_bytes(), piece);
        }
    }
}
