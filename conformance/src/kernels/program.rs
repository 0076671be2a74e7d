//! The one binary that every kernel runs.

use super::cache::as_text;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// How to get a static runner.
pub(super) const HOW_TO_BUILD_RUNNER: &str = "one built with RUSTFLAGS='-C \
     target-feature=+crt-static' cargo build --release --target x86_64-unknown-linux-gnu -p \
     lastbyte-conformance";

/// A program that needs nothing but a kernel.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) content: Vec<u8>,
}

impl Program {
    /// Of what the kernels run: the file may be another by the time they have.
    pub(super) fn sha256(&self) -> String {
        as_text(&Sha256::digest(&self.content))
    }
}

/// Reads this program itself; `remedy` says what to use if that is not static.
pub(super) fn this(remedy: &str) -> Result<Program, String> {
    let path = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    read(&path, remedy)
}

/// Reads the program at `path`.
///
/// # Errors
/// If a kernel without libraries could not run it; then, use `remedy`.
pub(super) fn read(path: &Path, remedy: &str) -> Result<Program, String> {
    let content = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match needs(&content) {
        None => Ok(Program { content }),
        Some(what) => Err(format!(
            "{}: {what}, and a kernel under test has only this file; use {remedy}",
            path.display()
        )),
    }
}

/// What an x86-64 Linux kernel alone would be missing; `None` if nothing.
fn needs(elf: &[u8]) -> Option<&'static str> {
    /// Offsets and values of the ELF-64 header and its program headers
    /// (`include/uapi/linux/elf.h`).
    const X86_64: u16 = 62;
    const INTERPRETER: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));
    let is_64_bit_little_endian = elf.starts_with(b"\x7fELF\x02\x01");
    if !is_64_bit_little_endian || half(18) != Some(X86_64) {
        return Some("it is not a program for x86-64");
    }
    let headers = || {
        let start = usize::try_from(long(32)?).ok()?;
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        (0..count).map(|n| word(start + n * size)).collect::<Option<Vec<_>>>()
    };
    match headers() {
        None => Some("it is not a whole program"),
        Some(kinds) if kinds.contains(&INTERPRETER) => Some("it is linked to shared libraries"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_static_is_refused() {
        assert_eq!(needs(b"#!/bin/sh"), Some("it is not a program for x86-64"));
        let mut elf = vec![0; 120];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 1;
        assert_eq!(needs(&elf), None);
        elf[64] = 3;
        assert_eq!(needs(&elf), Some("it is linked to shared libraries"));
        elf[56] = 9;
        assert_eq!(needs(&elf), Some("it is not a whole program"));
    }
}
