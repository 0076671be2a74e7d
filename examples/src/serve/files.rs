//! What is behind a target, remembered for a moment: open files with
//! everything that can be known of their answers in advance.

use super::conditional::Validators;
use super::date::http_date;
use super::generated::{self, Block};
use super::listing;
use super::mime::content_type;
use super::path::{Opened, Refused, Root, SafePath};
use super::status::Status;
use bytes::Bytes;
use foldhash::fast::RandomState;
use lastbyte::{FileRange, FileSource, Moment, Payload, Time};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long an answer is believed before the file is looked at again.
const VALID: Duration = Duration::from_secs(1);
/// How long an unused file stays open.
const UNUSED: Duration = Duration::from_secs(20);
/// Most files held open by a thread.
pub const MAX_OPEN: usize = 256;
/// Longest target that is remembered.
const MAX_KEY: usize = 512;
/// Longest file that is kept in memory: head and body then leave in one call,
/// which costs less than opening the way for `sendfile`.
pub(super) const MAX_IN_MEMORY: u64 = 16 << 10;

/// Something that can be sent.
#[derive(Debug)]
pub struct Entry {
    source: Source,
    /// Its length in bytes.
    pub len: u64,
    /// What it is compared by.
    pub validators: Validators,
    /// The head of the answer with all of it, up to the date's value.
    pub head: Box<[u8]>,
    /// Fields that say which version it is.
    pub version_fields: Box<[u8]>,
    /// Fields that say what it is.
    pub content_fields: Box<[u8]>,
}

#[derive(Debug)]
enum Source {
    File(Arc<dyn FileSource>),
    Memory(Bytes),
    Generated(Block),
}

/// What a target leads to.
#[derive(Debug)]
pub enum Found {
    /// Something to send.
    Entry(Rc<Entry>),
    /// A directory, which is to be asked for by this URL.
    Redirect(String),
    /// A directory without an index, as a page.
    Listing(String),
}

/// How far what is remembered is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Belief {
    /// For a moment: most requests are for what has not changed since the last.
    ForAMoment,
    /// Only if another look shows the same. What is sent of an open file is what
    /// is in it now, and what is said of it is to be of that version.
    None,
}

/// The open files of one thread.
#[derive(Debug)]
pub struct Cache {
    root: Root,
    block: Block,
    /// Hashed quickly: they are too few for anybody to gain by collisions.
    slots: HashMap<Box<str>, Slot, RandomState>,
}

#[derive(Debug)]
struct Slot {
    entry: Rc<Entry>,
    /// Where the file is, and what it was; `None` for a generated body.
    file: Option<(PathBuf, Identity)>,
    checked: Time,
    used: Time,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Cache {
    /// Nothing remembered yet of what is below `root`.
    #[must_use]
    pub fn new(root: Root, block: Block) -> Self {
        Self { root, block, slots: HashMap::default() }
    }

    /// What `path` leads to, which is what [`path_of`](super::path::path_of) gives.
    ///
    /// # Errors
    /// The status that says why it leads nowhere.
    pub fn find(&mut self, path: &str, belief: Belief, at: Moment) -> Result<Found, Status> {
        let now = at.monotonic;
        if let Some(slot) = self.slots.get_mut(path) {
            let is_fresh = now.since(slot.checked) < VALID;
            let is_good = match belief {
                Belief::ForAMoment if is_fresh => true,
                Belief::None if is_fresh => slot.is_unchanged(Path::metadata),
                // Whether it may still be served was long ago, too.
                _ => slot.is_unchanged(|path| Ok(self.root.open_again(path)?.metadata)),
            };
            if is_good {
                slot.used = now;
                if !is_fresh {
                    slot.checked = now;
                }
                return Ok(Found::Entry(Rc::clone(&slot.entry)));
            }
            self.slots.remove(path);
        }
        let safe = SafePath::new(path).map_err(|refused| match refused {
            Refused::Malformed => Status::BAD_REQUEST,
            Refused::NoName => Status::NOT_FOUND,
        })?;
        match self.look(&safe, at) {
            // Descriptors have run out: those held here are the first to go.
            Err(Status::SERVICE_UNAVAILABLE) if !self.slots.is_empty() => {
                self.slots.clear();
                self.look(&safe, at)
            }
            found => found,
        }
        .map(|(found, file)| {
            if let Found::Entry(entry) = &found {
                self.remember(path, Rc::clone(entry), file, now);
            }
            found
        })
    }

    /// Closes what has not been asked for lately.
    pub fn expire(&mut self, now: Time) {
        self.slots.retain(|_, slot| now.since(slot.used) < UNUSED);
    }

    fn remember(
        &mut self,
        path: &str,
        entry: Rc<Entry>,
        file: Option<(PathBuf, Identity)>,
        now: Time,
    ) {
        if path.len() > MAX_KEY {
            return;
        }
        if self.slots.len() >= MAX_OPEN {
            self.slots.retain(|_, slot| now.since(slot.used) < VALID);
            if self.slots.len() >= MAX_OPEN {
                self.slots.clear();
            }
        }
        self.slots.insert(path.into(), Slot { entry, file, checked: now, used: now });
    }

    fn look(
        &self,
        path: &SafePath,
        at: Moment,
    ) -> Result<(Found, Option<(PathBuf, Identity)>), Status> {
        let opened = match self.root.open(path.names()) {
            Ok(opened) => opened,
            Err(error) => return self.instead(path, &error).map(|entry| (entry, None)),
        };
        if opened.metadata.is_dir() {
            if !path.is_directory() {
                return Ok((Found::Redirect(path.directory_url()), None));
            }
            return match self.root.open(&path.names().join("index.html")) {
                Ok(index) if index.metadata.is_file() => file_entry(index, at),
                // There is one, and who may not have it gets no list of what is beside it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(status_of(&error)),
                _ => {
                    let page = listing::page(path, &opened.path).map_err(|e| status_of(&e))?;
                    Ok((Found::Listing(page), None))
                }
            };
        }
        // "file/" names something in a directory that is a file.
        if path.is_directory() { Err(Status::NOT_FOUND) } else { file_entry(opened, at) }
    }

    /// A generated body where there is no file.
    fn instead(&self, path: &SafePath, error: &io::Error) -> Result<Found, Status> {
        let status = status_of(error);
        let len = path.single_name().and_then(generated::len_of);
        let is_made = |len: &u64| status == Status::NOT_FOUND && *len <= self.block.max_len();
        let Some(len) = len.filter(is_made) else {
            return Err(status);
        };
        let etag = format!("\"generated-{len:x}\"").into();
        let validators = Validators { etag, modified: None };
        let source = Source::Generated(self.block.clone());
        Ok(Found::Entry(Rc::new(Entry::new(source, len, validators, "text/plain"))))
    }
}

impl Entry {
    fn new(source: Source, len: u64, validators: Validators, content_type: &str) -> Self {
        let mut version_fields = format!("ETag: {}\r\n", validators.etag);
        if let Some(modified) = validators.modified {
            version_fields += &format!("Last-Modified: {}\r\n", http_date(modified));
        }
        let content_fields = format!("Content-Type: {content_type}\r\nAccept-Ranges: bytes\r\n");
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: lastbyte\r\nContent-Length: {len}\r\n\
             {content_fields}{version_fields}Date: "
        );
        Self {
            source,
            len,
            validators,
            head: head.into_bytes().into(),
            version_fields: version_fields.into_bytes().into(),
            content_fields: content_fields.into_bytes().into(),
        }
    }

    /// Adds `len` bytes from `offset` on to `payload`.
    pub fn append(&self, payload: &mut Payload, offset: u64, len: u64) {
        match &self.source {
            Source::File(file) => payload.push(FileRange::new(Arc::clone(file), offset, len)),
            Source::Generated(block) => block.append(payload, offset, len),
            Source::Memory(bytes) => {
                // At most MAX_IN_MEMORY, so the conversions cannot fail.
                let start = usize::try_from(offset).unwrap_or(0).min(bytes.len());
                let end = usize::try_from(offset + len).unwrap_or(0).clamp(start, bytes.len());
                payload.push(bytes.slice(start..end));
            }
        }
    }
}

impl Slot {
    /// Whether another look shows what was there before. A file that has just
    /// been written has a weak tag, which is not to outlive that state.
    fn is_unchanged(&self, look: impl FnOnce(&Path) -> io::Result<Metadata>) -> bool {
        let Some((path, identity)) = &self.file else {
            return false;
        };
        self.entry.validators.is_strong()
            && look(path).is_ok_and(|metadata| Identity::of(&metadata) == *identity)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

fn file_entry(opened: Opened, at: Moment) -> Result<(Found, Option<(PathBuf, Identity)>), Status> {
    let Opened { file, metadata, path } = opened;
    let modified = metadata.modified().map_err(|e| status_of(&e))?;
    let (source, len) = source(file, metadata.len()).map_err(|e| status_of(&e))?;
    let validators = Validators::of_file(len, modified, SystemTime::from(at.wall));
    let entry = Entry::new(source, len, validators, &content_type(&path));
    Ok((Found::Entry(Rc::new(entry)), Some((path, Identity::of(&metadata)))))
}

fn source(file: File, len: u64) -> io::Result<(Source, u64)> {
    if len > MAX_IN_MEMORY {
        return Ok((Source::File(Arc::new(file)), len));
    }
    let mut content = Vec::new();
    file.take(len).read_to_end(&mut content)?;
    let len = content.len() as u64;
    Ok((Source::Memory(content.into()), len))
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

fn status_of(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Status::NOT_FOUND,
        io::ErrorKind::PermissionDenied => Status::FORBIDDEN,
        _ if is_exhaustion(error) => Status::SERVICE_UNAVAILABLE,
        _ => match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENAMETOOLONG | libc::ENXIO) => Status::NOT_FOUND,
            _ => Status::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastbyte::UnixTime;
    use std::path::Path;

    fn at(seconds: u64) -> Moment {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ahead = Duration::from_secs(1000 + seconds);
        Moment {
            monotonic: Time::from_nanos(1_000_000_000 * seconds),
            wall: UnixTime::from_nanos(u64::try_from((wall + ahead).as_nanos()).unwrap()),
            error: Duration::ZERO,
        }
    }

    fn cache(root: &Path) -> Cache {
        Cache::new(Root::new(root).unwrap(), Block::Memory(generated::content().into()))
    }

    fn entry(cache: &mut Cache, target: &str, seconds: u64) -> Rc<Entry> {
        match cache.find(target, Belief::ForAMoment, at(seconds)) {
            Ok(Found::Entry(entry)) => entry,
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn files_win_over_generated_bodies_of_the_same_name() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path());
        assert_eq!(entry(&mut cache, "/10", 0).len, 10);
        std::fs::write(root.path().join("10"), "real").unwrap();
        assert_eq!(entry(&mut cache, "/10", 0).len, 10, "still believed");
        assert_eq!(entry(&mut cache, "/10", 2).len, 4);
        assert_eq!(cache.find("/10/", Belief::ForAMoment, at(3)).unwrap_err(), Status::NOT_FOUND);
        assert_eq!(cache.find("/a/10", Belief::ForAMoment, at(3)).unwrap_err(), Status::NOT_FOUND);
    }

    #[test]
    fn a_change_is_seen_after_a_moment() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, vec![0; 100_000]).unwrap();
        let mut cache = cache(root.path());
        let first = entry(&mut cache, "/file", 0);
        assert!(Rc::ptr_eq(&first, &entry(&mut cache, "/file", 5)), "unchanged, so kept open");
        std::fs::write(&path, vec![0; 50_000]).unwrap();
        assert_eq!(entry(&mut cache, "/file", 7).len, 50_000);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(cache.find("/file", Belief::ForAMoment, at(9)).unwrap_err(), Status::NOT_FOUND);
    }

    #[test]
    fn what_may_no_longer_be_served_is_not() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (path, other) = (root.path().join("file"), outside.path().join("file"));
        std::fs::write(&path, vec![0; 100_000]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        let mut cache = cache(root.path());
        entry(&mut cache, "/file", 0);
        // The same file, which a link leads out to.
        std::fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        for belief in [Belief::None, Belief::ForAMoment] {
            assert_eq!(cache.find("/file", belief, at(2)).unwrap_err(), Status::FORBIDDEN);
        }
    }

    #[test]
    fn an_index_that_may_not_be_read_is_no_list() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("page"), "private").unwrap();
        for name in ["out", "none", "odd/index.html"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let index = root.path().join("out/index.html");
        std::os::unix::fs::symlink(outside.path().join("page"), index).unwrap();
        let mut cache = cache(root.path());
        let mut find = |target| cache.find(target, Belief::ForAMoment, at(0));
        assert_eq!(find("/out/").unwrap_err(), Status::FORBIDDEN);
        for target in ["/none/", "/odd/"] {
            assert!(matches!(find(target), Ok(Found::Listing(_))), "{target}");
        }
    }

    #[test]
    fn a_change_is_seen_at_once_where_that_matters() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, vec![0; 100_000]).unwrap();
        let mut cache = cache(root.path());
        let first = entry(&mut cache, "/file", 0);
        std::fs::write(&path, vec![0; 50_000]).unwrap();
        assert!(Rc::ptr_eq(&first, &entry(&mut cache, "/file", 0)), "still believed");
        let Ok(Found::Entry(now)) = cache.find("/file", Belief::None, at(0)) else {
            panic!("it is there");
        };
        assert_eq!(now.len, 50_000);
        assert!(Rc::ptr_eq(&now, &entry(&mut cache, "/file", 0)), "known to all from now on");
    }

    #[test]
    fn directories_have_one_url_and_an_index() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a b/c")).unwrap();
        std::fs::write(root.path().join("a b/index.html"), "hi").unwrap();
        let mut cache = cache(root.path());
        assert!(
            matches!(cache.find("/a%20b", Belief::ForAMoment, at(0)), Ok(Found::Redirect(to)) if to == "/a%20b/")
        );
        assert_eq!(entry(&mut cache, "/a%20b/", 0).len, 2);
        assert!(matches!(
            cache.find("/a%20b/c/", Belief::ForAMoment, at(0)),
            Ok(Found::Listing(_))
        ));
        assert_eq!(
            cache.find("/../x", Belief::ForAMoment, at(0)).unwrap_err(),
            Status::BAD_REQUEST
        );
    }

    #[test]
    fn no_more_files_stay_open_than_allowed() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path());
        for n in 0..1000 {
            entry(&mut cache, &format!("/{n}"), 0);
            assert!(cache.slots.len() <= MAX_OPEN);
        }
        cache.expire(at(100).monotonic);
        assert!(cache.slots.is_empty());
    }
}
