//! An archive in the `newc` form of cpio, which the kernel unpacks into its
//! first root (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;

/// An archive that is being written.
#[derive(Debug, Default)]
pub(super) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

/// File types and permissions of `st_mode`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Cpio {
    /// The folder `path` and those above it.
    pub(super) fn folder(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.collect::<Vec<_>>() {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER, &[], (0, 0));
            }
        }
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, content, (0, 0));
    }

    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content, (0, 0));
    }

    pub(super) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, &[], (major, minor));
    }

    /// The archive, ended.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        // Nothing that goes in here comes near 4 GiB.
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, owner, group, links, time, length, device, the device it
        // is, length of the name, no check sum.
        for field in [self.entries, mode, 0, 0, 1, 0, len, 0, 0, major, minor, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_ended() {
        let mut cpio = Cpio::default();
        cpio.folder("a/b");
        cpio.folder("a");
        cpio.file("a/b/c", b"hello");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("070701").count(), 4, "a, a/b, the file, the trailer");
        let at = text.find("a/b/c").unwrap();
        assert_eq!(&text[at - 110..at - 104], "070701", "a header has 110 bytes");
        let content = text.find("hello").unwrap();
        assert_eq!((content % 4, content - at), (0, "a/b/c\0".len()));
    }
}
