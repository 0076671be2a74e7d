//! What a kernel image says of itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The release that the bzImage at `path` has, as in `uname -r`.
///
/// # Errors
/// If it cannot be read or is no bzImage.
pub(super) fn release(path: &Path) -> io::Result<String> {
    /// Offsets in the boot header (`Documentation/arch/x86/boot.rst`).
    const MAGIC: u64 = 0x202;
    const KERNEL_VERSION: u64 = 0x20e;
    /// Where the header's own offsets count from.
    const SETUP: u64 = 0x200;
    let mut image = File::open(path)?;
    let mut magic = [0; 4];
    image.seek(SeekFrom::Start(MAGIC))?;
    image.read_exact(&mut magic)?;
    if magic != *b"HdrS" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a bzImage"));
    }
    let mut offset = [0; 2];
    image.seek(SeekFrom::Start(KERNEL_VERSION))?;
    image.read_exact(&mut offset)?;
    image.seek(SeekFrom::Start(SETUP + u64::from(u16::from_le_bytes(offset))))?;
    let mut text = Vec::new();
    image.take(256).read_to_end(&mut text)?;
    let end = text.iter().position(|byte| *byte == 0 || *byte == b' ').unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_where_the_header_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x30c].copy_from_slice(b"6.1.0-x (me)");
        std::fs::write(&path, &image).unwrap();
        assert_eq!(release(&path).unwrap(), "6.1.0-x");
        std::fs::write(&path, "short").unwrap();
        assert!(release(&path).is_err());
        std::fs::write(&path, vec![0; 0x400]).unwrap();
        assert!(release(&path).unwrap_err().to_string().contains("bzImage"));
    }
}
