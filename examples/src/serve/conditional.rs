//! Conditional requests (RFC 9110, section 13).

use std::time::{Duration, SystemTime};

/// What a representation is compared by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Validators {
    /// The entity tag as it is sent, quotes and all.
    pub etag: Box<str>,
    /// Whole seconds since 1970 of the last change, where there was one.
    pub modified: Option<u64>,
}

/// The conditions that a request makes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Conditions<'a> {
    /// `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
}

impl Validators {
    /// Of a file of `len` bytes that was changed at `modified`, as seen at
    /// `now`. A file that changed just now may change again within the
    /// resolution of its time stamp, so its tag is weak.
    #[must_use]
    pub fn of_file(len: u64, modified: SystemTime, now: SystemTime) -> Self {
        const UNSETTLED: Duration = Duration::from_secs(2);
        let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = now.duration_since(modified).is_ok_and(|age| age >= UNSETTLED);
        let weak = if settled { "" } else { "W/" };
        let etag = format!("{weak}\"{:x}-{len:x}\"", since_1970.as_nanos());
        Self { etag: etag.into(), modified: Some(since_1970.as_secs()) }
    }

    /// Whether the tag promises that equal tags mean equal bytes.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        !self.etag.starts_with("W/")
    }

    /// Whether the peer has this already (section 13.1.2 and 13.1.3).
    #[must_use]
    pub fn peer_has_it(&self, conditions: &Conditions<'_>) -> bool {
        if let Some(tags) = conditions.if_none_match {
            return self.is_among(tags);
        }
        let Some((since, modified)) = conditions.if_modified_since.zip(self.modified) else {
            return false;
        };
        date(since).is_some_and(|since| modified <= since)
    }

    /// Whether a range of this is what the peer wants (section 13.1.5).
    #[must_use]
    pub fn range_applies(&self, conditions: &Conditions<'_>) -> bool {
        let Some(validator) = conditions.if_range else {
            return true;
        };
        if !self.is_strong() {
            return false;
        }
        validator == self.etag.as_bytes()
            || self.modified.is_some_and(|modified| date(validator) == Some(modified))
    }

    /// Weak comparison with a list of tags. Our tags hold no comma, so a foreign
    /// one that does cannot be mistaken for ours.
    fn is_among(&self, tags: &[u8]) -> bool {
        let own = opaque(self.etag.as_bytes());
        tags.split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || opaque(tag) == own)
    }
}

/// A tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whole seconds since 1970 of an HTTP date.
fn date(text: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: u64 = 1_000_000_000;

    fn settled() -> Validators {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        Validators::of_file(0x20, at, at + Duration::from_secs(60))
    }

    fn none_match(tags: &[u8]) -> Conditions<'_> {
        Conditions { if_none_match: Some(tags), ..Conditions::default() }
    }

    #[test]
    fn tags_are_compared_weakly_in_lists() {
        let validators = settled();
        assert_eq!(&*validators.etag, "\"de0b6b3a7640000-20\"");
        for tags in ["*", "\"de0b6b3a7640000-20\"", "\"x\", W/\"de0b6b3a7640000-20\" , \"y\""] {
            assert!(validators.peer_has_it(&none_match(tags.as_bytes())), "{tags}");
        }
        for tags in ["", "\"x\"", "de0b6b3a7640000-20", "\"de0b6b3a7640000-2\""] {
            assert!(!validators.peer_has_it(&none_match(tags.as_bytes())), "{tags}");
        }
    }

    #[test]
    fn a_tag_outranks_a_date() {
        let conditions = Conditions {
            if_none_match: Some(b"\"other\""),
            if_modified_since: Some(b"Sun, 09 Sep 2001 01:46:40 GMT"),
            if_range: None,
        };
        assert!(!settled().peer_has_it(&conditions));
        let conditions = Conditions { if_none_match: None, ..conditions };
        assert!(settled().peer_has_it(&conditions));
        let conditions =
            Conditions { if_modified_since: Some(b"Sun, 09 Sep 2001 01:46:39 GMT"), ..conditions };
        assert!(!settled().peer_has_it(&conditions));
        let conditions = Conditions { if_modified_since: Some(b"yesterday"), ..conditions };
        assert!(!settled().peer_has_it(&conditions));
    }

    #[test]
    fn a_range_needs_a_strong_validator() {
        let if_range = |value| Conditions { if_range: Some(value), ..Conditions::default() };
        assert!(settled().range_applies(&Conditions::default()));
        assert!(settled().range_applies(&if_range(b"\"de0b6b3a7640000-20\"")));
        assert!(settled().range_applies(&if_range(b"Sun, 09 Sep 2001 01:46:40 GMT")));
        assert!(!settled().range_applies(&if_range(b"W/\"de0b6b3a7640000-20\"")));
        assert!(!settled().range_applies(&if_range(b"Sun, 09 Sep 2001 01:46:41 GMT")));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        let fresh = Validators::of_file(0x20, at, at);
        assert!(!fresh.is_strong());
        assert!(!fresh.range_applies(&if_range(fresh.etag.as_bytes())));
    }
}
