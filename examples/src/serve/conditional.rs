//! Conditional requests (RFC 9110, section 13).

use smallvec::SmallVec;
use std::time::{Duration, SystemTime};

/// The values of a field that is a list: one for each line that it came on
/// (section 5.3). Empty if it did not come.
pub type Lines<'a> = SmallVec<[&'a [u8]; 1]>;

/// What a representation is compared by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Validators {
    /// The entity tag as it is sent, quotes and all.
    pub etag: Box<str>,
    /// Whole seconds since 1970 of the last change, where there was one.
    pub modified: Option<u64>,
}

/// The conditions that a request makes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Lines<'a>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a [u8]>,
    /// `If-None-Match`.
    pub if_none_match: Lines<'a>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
}

impl Conditions<'_> {
    /// Whether what must hold does (sections 13.1.1 and 13.1.4, in the order of
    /// 13.2.2) for something that has these `validators`, or none.
    #[must_use]
    pub fn hold_for(&self, validators: Option<&Validators>) -> bool {
        if !self.if_match.is_empty() {
            let own = validators.filter(|own| own.is_strong()).map(|own| own.etag.as_bytes());
            return is_any(&self.if_match)
                || own.is_some_and(|own| tags(&self.if_match).any(|tag| tag == own));
        }
        let modified = validators.and_then(Validators::modified);
        let Some((since, modified)) = self.if_unmodified_since.zip(modified) else {
            return true;
        };
        date(since).is_none_or(|since| modified <= since)
    }

    /// Whether the peer has this already (sections 13.1.2 and 13.1.3): something
    /// that has these `validators`, or none.
    #[must_use]
    pub fn peer_has(&self, validators: Option<&Validators>) -> bool {
        if !self.if_none_match.is_empty() {
            return is_any(&self.if_none_match)
                || validators.is_some_and(|own| {
                    let own = opaque(own.etag.as_bytes());
                    tags(&self.if_none_match).any(|tag| opaque(tag) == own)
                });
        }
        let modified = validators.and_then(Validators::modified);
        let Some((since, modified)) = self.if_modified_since.zip(modified) else {
            return false;
        };
        date(since).is_some_and(|since| modified <= since)
    }

    /// Whether a range of what has these `validators` is wanted (section 13.1.5).
    #[must_use]
    pub fn want_a_range_of(&self, validators: &Validators) -> bool {
        let Some(wanted) = self.if_range else {
            return true;
        };
        if !validators.is_strong() {
            return false;
        }
        wanted == validators.etag.as_bytes()
            || validators.modified().is_some_and(|modified| date(wanted) == Some(modified))
    }
}

impl Validators {
    /// Of a file of `len` bytes that was changed at `modified`, as seen at
    /// `now`. A file that changed just now may change again within the
    /// resolution of its time stamp, so its tag is weak. One that will have been
    /// changed was changed now, as far as peers are told (section 8.8.2.1).
    #[must_use]
    pub fn of_file(len: u64, modified: SystemTime, now: SystemTime) -> Self {
        const UNSETTLED: Duration = Duration::from_secs(2);
        let (sign, distance) = match modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since_1970) => ("", since_1970),
            Err(before) => ("-", before.duration()),
        };
        let settled = now.duration_since(modified).is_ok_and(|age| age >= UNSETTLED);
        let weak = if settled { "" } else { "W/" };
        let etag = format!("{weak}\"{sign}{:x}-{len:x}\"", distance.as_nanos());
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { etag: etag.into(), modified: Some(since_1970.min(now).as_secs()) }
    }

    /// What dates are compared with.
    fn modified(&self) -> Option<i64> {
        self.modified?.try_into().ok()
    }

    /// Whether the tag promises that equal tags mean equal bytes.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        !self.etag.starts_with("W/")
    }
}

/// Whether the list is `*`, which is one only if it stands alone: within a tag
/// it may stand between commas too.
fn is_any(lines: &Lines<'_>) -> bool {
    matches!(lines.as_slice(), [line] if line.trim_ascii() == b"*")
}

/// The tags of a list. Ours hold no comma, so a foreign one that does cannot be
/// mistaken for ours.
fn tags<'a>(lines: &Lines<'a>) -> impl Iterator<Item = &'a [u8]> {
    lines.iter().flat_map(|line| line.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// A tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whole seconds since 1970 of an HTTP date, which may lie before.
fn date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    seconds(text).or_else(|| before_1970(text))
}

/// As [`date`], from 1970 on: the parser knows no years before.
fn seconds(text: &str) -> Option<i64> {
    let date = httpdate::parse_http_date(text).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// As [`date`], before 1970: what it would be in a later year with the same calendar,
/// which begins anew every 400 years.
fn before_1970(text: &str) -> Option<i64> {
    const YEARS: u32 = 2000;
    const SECONDS: i64 = 5 * (400 * 365 + 97) * 24 * 3600;
    // `Sun, 06 Nov 1994 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994` (RFC 9110, section
    // 5.6.7). The third form has two digits, which mean no year as early as that.
    let at = match text.len() {
        29 => 12,
        24 => 20,
        _ => return None,
    };
    let year = text.get(at..at + 4).filter(|year| year.bytes().all(|b| b.is_ascii_digit()))?;
    let year = year.parse().ok().filter(|&year: &u32| year < 1970)?;
    let later = format!("{}{}{}", &text[..at], year + YEARS, &text[at + 4..]);
    Some(seconds(&later)? - SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    const CHANGED: u64 = 1_000_000_000;

    fn settled() -> Validators {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        Validators::of_file(0x20, at, at + Duration::from_secs(60))
    }

    fn none_match(tags: &[u8]) -> Conditions<'_> {
        Conditions { if_none_match: smallvec![tags], ..Conditions::default() }
    }

    #[test]
    fn tags_are_compared_weakly_in_lists() {
        let validators = settled();
        assert_eq!(&*validators.etag, "\"de0b6b3a7640000-20\"");
        for tags in ["*", "\"de0b6b3a7640000-20\"", "\"x\", W/\"de0b6b3a7640000-20\" , \"y\""] {
            assert!(none_match(tags.as_bytes()).peer_has(Some(&validators)), "{tags}");
        }
        for tags in ["", "\"x\"", "de0b6b3a7640000-20", "\"de0b6b3a7640000-2\""] {
            assert!(!none_match(tags.as_bytes()).peer_has(Some(&validators)), "{tags}");
        }
    }

    #[test]
    fn any_tag_will_do_only_where_the_star_stands_alone() {
        let alone = Conditions { if_match: smallvec![&b" * "[..]], ..none_match(b"*") };
        assert!(alone.hold_for(Some(&settled())) && alone.hold_for(None));
        assert!(alone.peer_has(Some(&settled())) && alone.peer_has(None));
        for tags in [&b"\"a,*,b\""[..], b"\"a\", *"] {
            let tag = Conditions { if_match: smallvec![tags], ..none_match(tags) };
            assert!(!tag.hold_for(Some(&settled())) && !tag.peer_has(Some(&settled())));
        }
    }

    #[test]
    fn a_weak_tag_matches_no_demand() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        let fresh = Validators::of_file(0x20, at, at);
        for tag in ["W/\"de0b6b3a7640000-20\"", "\"de0b6b3a7640000-20\""] {
            let demand =
                Conditions { if_match: smallvec![tag.as_bytes()], ..Conditions::default() };
            assert!(!demand.hold_for(Some(&fresh)), "{tag}");
            assert_eq!(demand.hold_for(Some(&settled())), !tag.starts_with('W'), "{tag}");
        }
    }

    #[test]
    fn a_tag_outranks_a_date() {
        let conditions = Conditions {
            if_none_match: smallvec![&b"\"other\""[..]],
            if_modified_since: Some(b"Sun, 09 Sep 2001 01:46:40 GMT"),
            ..Conditions::default()
        };
        assert!(!conditions.peer_has(Some(&settled())));
        let conditions = Conditions { if_none_match: smallvec![], ..conditions };
        assert!(conditions.peer_has(Some(&settled())));
        let conditions =
            Conditions { if_modified_since: Some(b"Sun, 09 Sep 2001 01:46:39 GMT"), ..conditions };
        assert!(!conditions.peer_has(Some(&settled())));
        let conditions = Conditions { if_modified_since: Some(b"yesterday"), ..conditions };
        assert!(!conditions.peer_has(Some(&settled())));
    }

    #[test]
    fn a_date_may_lie_before_1970() {
        let is = |text: &str, seconds| assert_eq!(date(text.as_bytes()), seconds, "{text}");
        is("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        is("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1));
        is("Wed Dec 31 23:59:59 1969", Some(-1));
        is("Thu Jan  1 00:00:01 1970", Some(1));
        // The first day of this calendar: date -u -d '1582-10-15' +%s
        is("Fri, 15 Oct 1582 00:00:00 GMT", Some(-12_219_292_800));
        for no_date in [
            "Thu, 31 Dec 1969 23:59:59 GMT",
            "Wed, 31 Dec 1969 23:59:60 GMT",
            "Wed, 31 Dec +969 23:59:59 GMT",
            "Wed, 31 Dec 1969 23:59:59 CET",
            "Wednesday, 31 December 1969\u{e9}",
        ] {
            is(no_date, None);
        }
        let since = Some(&b"Wed, 31 Dec 1969 23:59:59 GMT"[..]);
        let unless = Conditions { if_unmodified_since: since, ..Conditions::default() };
        assert!(!unless.hold_for(Some(&settled())));
        let unless = Conditions { if_modified_since: since, ..Conditions::default() };
        assert!(!unless.peer_has(Some(&settled())));
    }

    #[test]
    fn files_from_before_1970_differ() {
        let at = |seconds| SystemTime::UNIX_EPOCH - Duration::from_secs(seconds);
        let of = |seconds| Validators::of_file(0x20, at(seconds), SystemTime::UNIX_EPOCH + CENTURY);
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        assert!(of(1).is_strong());
        assert_ne!(of(1).etag, of(2).etag);
        assert_eq!(of(1).modified, Some(0));
    }

    #[test]
    fn no_change_lies_in_the_future() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        let validators = Validators::of_file(0x20, now + Duration::from_secs(5), now);
        assert_eq!(validators.modified, Some(CHANGED));
        assert!(!validators.is_strong());
    }

    #[test]
    fn a_range_needs_a_strong_validator() {
        let if_range = |value| Conditions { if_range: Some(value), ..Conditions::default() };
        assert!(Conditions::default().want_a_range_of(&settled()));
        assert!(if_range(b"\"de0b6b3a7640000-20\"").want_a_range_of(&settled()));
        assert!(if_range(b"Sun, 09 Sep 2001 01:46:40 GMT").want_a_range_of(&settled()));
        assert!(!if_range(b"W/\"de0b6b3a7640000-20\"").want_a_range_of(&settled()));
        assert!(!if_range(b"Sun, 09 Sep 2001 01:46:41 GMT").want_a_range_of(&settled()));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED);
        let fresh = Validators::of_file(0x20, at, at);
        assert!(!fresh.is_strong());
        assert!(!if_range(fresh.etag.as_bytes()).want_a_range_of(&fresh));
    }
}
