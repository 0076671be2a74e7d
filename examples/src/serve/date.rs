//! The `Date` field, made once a second.

use lastbyte::UnixTime;
use std::time::{Duration, SystemTime};

/// Length of an HTTP date.
const LEN: usize = 29;

/// The newest date that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; LEN],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl DateCache {
    /// `at` as an HTTP date.
    pub fn at(&mut self, at: UnixTime) -> &[u8; LEN] {
        let second = at.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            if let Ok(text) = http_date(second).as_bytes().try_into() {
                self.text = text;
            }
        }
        &self.text
    }
}

/// The `second`th second since 1970 as an HTTP date.
#[must_use]
pub fn http_date(second: u64) -> String {
    // The last second that has a four-digit year.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second.min(LAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_clock_in_both_directions() {
        let mut cache = DateCache::default();
        let at = |second: u64| UnixTime::from_nanos(second * 1_000_000_000 + 5);
        assert_eq!(cache.at(at(0)), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(cache.at(at(1_000_000_000)), b"Sun, 09 Sep 2001 01:46:40 GMT");
        assert_eq!(cache.at(at(999_999_999)), b"Sun, 09 Sep 2001 01:46:39 GMT");
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
