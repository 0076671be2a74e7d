//! From a request target to a name below the root, or nothing.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What cannot stand for itself in a path.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// A path below the root: no `..`, no `.`, no empty name, no NUL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SafePath {
    names: PathBuf,
    is_directory: bool,
}

/// Why a target names nothing below the root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It leads out of the root, does not start at it, or has a NUL.
    Malformed,
    /// It has an encoded slash, which separates nothing (RFC 3986, section 2.2) and
    /// which no file's name has.
    NoName,
}

impl SafePath {
    /// Reads the path of a request target, which is what [`path_of`] gives.
    ///
    /// # Errors
    /// If the path contains `..`, however it is spelt, a NUL or an encoded slash, or
    /// does not start at the root.
    pub fn new(path: &str) -> Result<Self, Refused> {
        if !path.starts_with('/') {
            return Err(Refused::Malformed);
        }
        let mut names = PathBuf::new();
        let mut is_directory = true;
        for name in path.split('/') {
            let name = Cow::from(percent_decode(name.as_bytes()));
            is_directory = matches!(&*name, b"" | b".");
            match &*name {
                b"" | b"." => {}
                b".." => return Err(Refused::Malformed),
                name if name.contains(&0) => return Err(Refused::Malformed),
                name if name.contains(&b'/') => return Err(Refused::NoName),
                name => names.push(OsStr::from_bytes(name)),
            }
        }
        Ok(Self { names, is_directory })
    }

    /// Relative to the root; empty for the root itself.
    #[must_use]
    pub fn names(&self) -> &Path {
        &self.names
    }

    /// Whether it is spelt as a directory, with a slash at the end.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The name, if it is a single one and not spelt as a directory.
    #[must_use]
    pub fn single_name(&self) -> Option<&str> {
        let name = self.names.to_str()?;
        (!self.is_directory && !name.contains('/')).then_some(name)
    }

    /// As a directory in a URL: encoded, with exactly one slash at each end, so
    /// that it cannot be taken for another host.
    #[must_use]
    pub fn directory_url(&self) -> String {
        let names = encode(self.names.as_os_str());
        if names.is_empty() { "/".to_owned() } else { format!("/{names}/") }
    }
}

/// The path of a request `target`: without query, and without scheme and
/// authority if it is in absolute form.
#[must_use]
pub fn path_of(target: &str) -> &str {
    let path = match split_absolute(target) {
        None => target,
        Some((.., path)) if path.starts_with('/') => path,
        // No path is the root (RFC 9110, section 4.2.3).
        Some(_) => return "/",
    };
    let end = path.bytes().position(|byte| matches!(byte, b'?' | b'#'));
    end.map_or(path, |end| &path[..end])
}

/// The scheme and the authority of a request `target`, if it is in absolute form.
#[must_use]
pub fn absolute(target: &str) -> Option<(&str, &str)> {
    split_absolute(target).map(|(scheme, authority, _)| (scheme, authority))
}

/// The scheme and the authority of a `target` in absolute form, and what follows: a
/// path, or a query or fragment, which end it as well (RFC 3986, section 3.2).
fn split_absolute(target: &str) -> Option<(&str, &str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    is_scheme.then_some((scheme, authority, path))
}

/// A file name, or several, as part of a URL.
#[must_use]
pub fn encode(name: &OsStr) -> String {
    percent_encode(name.as_bytes(), RESERVED).to_string()
}

/// A directory that nothing is served from outside of.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

/// An open file or directory below the root.
#[derive(Debug)]
pub struct Opened {
    /// The file itself.
    pub file: File,
    /// What it is.
    pub metadata: Metadata,
    /// Where it was found.
    pub path: PathBuf,
}

impl Root {
    /// The directory at `path`.
    ///
    /// # Errors
    /// If it does not exist or is not a directory.
    pub fn new(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if !path.metadata()?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok(Self { path })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what `names` leads to.
    ///
    /// # Errors
    /// As the operating system has it; `PermissionDenied` also for what lies
    /// outside of the root behind a symbolic link, and for what is neither a
    /// file nor a directory.
    pub fn open(&self, names: &Path) -> io::Result<Opened> {
        self.open_again(&self.path.join(names))
    }

    /// Opens what the path of an earlier [`Opened`] leads to now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_again(&self, path: &Path) -> io::Result<Opened> {
        // Opening a pipe takes what is in it from its reader, and opening a device can do
        // anything.
        if !is_servable(&path.metadata()?) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Without O_NONBLOCK, opening a pipe, should it be one by now, waits for its writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        // What was opened is compared, not what the name leads to now: a link
        // exchanged in between gains nothing.
        let real = path.canonicalize()?;
        let now = real.metadata()?;
        let same = now.dev() == metadata.dev() && now.ino() == metadata.ino();
        if !same || !is_servable(&metadata) || !real.starts_with(&self.path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Opened { file, metadata, path: path.to_owned() })
    }
}

fn is_servable(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use std::path::Component;

    fn safe(path: &str) -> Option<(String, bool)> {
        let path = SafePath::new(path).ok()?;
        Some((path.names().to_str()?.to_owned(), path.is_directory()))
    }

    #[test]
    fn paths_are_normalised() {
        let is = |path, names: &str, directory| {
            assert_eq!(safe(path), Some((names.to_owned(), directory)), "{path}");
        };
        is("/", "", true);
        is("//a//b", "a/b", false);
        is("/a/./b/", "a/b", true);
        is("/a%20b", "a b", false);
        is("/%C3%A9", "é", false);
        is("/...", "...", false);
        is("/%zz", "%zz", false);
        is("/a/.", "a", true);
    }

    #[test]
    fn no_spelling_leads_out() {
        for path in [
            "/..",
            "/../etc/passwd",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2E/x",
            "/a/%2e%2e%2fb",
            "/..%2f",
            "/%00",
            "/a%00b",
            "",
            "a",
            "*",
            "..",
            "%2f",
        ] {
            assert_eq!(safe(path), None, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_separates_nothing() {
        for path in ["/a%2Fb", "/a%2f", "/%2F", "/a%2Fb/"] {
            assert_eq!(SafePath::new(path), Err(Refused::NoName), "{path}");
        }
    }

    #[test]
    fn targets_come_in_several_forms() {
        for (target, path) in [
            ("/a?b=/../c", "/a"),
            ("/a#b", "/a"),
            ("http://host/a?b", "/a"),
            ("http://host", "/"),
            ("http://host?x=/y", "/"),
            ("http://host#/y", "/"),
            ("http://host/a?b=http://other/c", "/a"),
            ("a?b=http://host/c", "a"),
            ("*", "*"),
            ("//host/a", "//host/a"),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn a_redirect_stays_on_this_host() {
        assert_eq!(SafePath::new("//evil.example").unwrap().directory_url(), "/evil.example/");
        assert_eq!(SafePath::new("/a%0d%0ab").unwrap().directory_url(), "/a%0D%0Ab/");
        assert_eq!(SafePath::new("/").unwrap().directory_url(), "/");
    }

    #[test]
    fn links_that_leave_the_root_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(inside.path().join("file"), "f").unwrap();
        symlink(outside.path().join("secret"), inside.path().join("out")).unwrap();
        symlink(outside.path(), inside.path().join("outdir")).unwrap();
        symlink("file", inside.path().join("in")).unwrap();
        symlink("loop", inside.path().join("loop")).unwrap();
        let root = Root::new(inside.path()).unwrap();
        let kind = |name: &str| root.open(Path::new(name)).map(drop).map_err(|e| e.kind());
        assert_eq!(kind("in"), Ok(()));
        assert_eq!(kind("file"), Ok(()));
        assert_eq!(kind("out"), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(kind("outdir/secret"), Err(io::ErrorKind::PermissionDenied));
        assert!(kind("loop").is_err());
        assert_eq!(kind("nothing"), Err(io::ErrorKind::NotFound));
        assert!(Root::new(&inside.path().join("file")).is_err());
    }

    /// Its writer would take that for a reader.
    #[test]
    fn a_pipe_is_not_even_opened() {
        let inside = tempfile::tempdir().unwrap();
        let pipe = inside.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || OpenOptions::new().write(true).open(pipe).map(drop)
        });
        let root = Root::new(inside.path()).unwrap();
        for _ in 0..100 {
            let refused = root.open(Path::new("pipe")).map(drop).map_err(|e| e.kind());
            assert_eq!(refused, Err(io::ErrorKind::PermissionDenied));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(!writer.is_finished());
        drop(File::open(&pipe).unwrap());
        writer.join().unwrap().unwrap();
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_stays_below(path in "/([a./0-]|%2[eEfF]){0,24}") {
            if let Ok(path) = SafePath::new(&path) {
                prop_assert!(path.names().components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
