//! What goes over a connection: requests for so many bytes, and responses.
//!
//! It is HTTP/1.1, so that any client will do, but a fixed piece of it: a
//! response's head has a known length, and a load generator need not parse it.

/// Longest request that a server waits for the end of.
pub const MAX_REQUEST: usize = 4096;

/// Asks for `size` bytes.
#[must_use]
pub fn request(size: u64) -> String {
    format!("GET /{size} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// What comes before the `size` bytes.
#[must_use]
pub fn head(size: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
}

/// Length of a whole response with `size` bytes in it.
#[must_use]
pub fn response_len(size: u64) -> u64 {
    head(size).len() as u64 + size
}

/// What came of what was received so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    /// The end of a request is still to come.
    Nothing,
    /// So many bytes are wanted.
    For(u64),
    /// This is no request of ours.
    Nonsense,
}

/// Reads one request, of which `received` is the beginning or the whole.
#[must_use]
pub fn asked(received: &[u8]) -> Asked {
    if !received.ends_with(b"\r\n\r\n") {
        return if received.len() > MAX_REQUEST { Asked::Nonsense } else { Asked::Nothing };
    }
    let size = || {
        let digits = received.strip_prefix(b"GET /")?.split(|byte| *byte == b' ').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    size().map_or(Asked::Nonsense, Asked::For)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood() {
        let request = request(131_072);
        assert_eq!(asked(request.as_bytes()), Asked::For(131_072));
        assert_eq!(asked(&request.as_bytes()[..20]), Asked::Nothing);
        assert_eq!(asked(b"GET / HTTP/1.1\r\n\r\n"), Asked::Nonsense);
        assert_eq!(asked(b"POST /1 HTTP/1.1\r\n\r\n"), Asked::Nonsense);
        assert_eq!(asked(&vec![b'x'; MAX_REQUEST + 1]), Asked::Nonsense);
        assert_eq!(
            response_len(10),
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".len() as u64 + 10
        );
    }
}
