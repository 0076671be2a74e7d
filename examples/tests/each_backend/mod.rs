//! What runs on each backend, and what it serves.

use lastbyte::{BackendKind, Choice, Restrictions};
use std::fs::{self, File};
use std::time::{Duration, SystemTime};
use tempfile::{TempDir, tempdir};

macro_rules! on_each_backend {
    ($($case:ident)*) => {
        mod io_uring {
            $(#[test] fn $case() { crate::each_backend::where_there_are_rings(super::$case); })*
        }
        mod epoll {
            $(#[test] fn $case() { super::$case("epoll"); })*
        }
        mod fallback {
            $(#[test] fn $case() { super::$case("fallback"); })*
        }
    };
}

/// Runs `case` on `io_uring`, which a container or an old kernel may refuse.
pub(crate) fn where_there_are_rings(case: fn(&str)) {
    match lastbyte_backends::open(Choice::Only(BackendKind::IoUring), &Restrictions::none()) {
        Ok(_) => case("io_uring"),
        Err(why) => println!("n/a: {why}"),
    }
}

pub(crate) fn site() -> TempDir {
    let site = tempdir().unwrap();
    fs::create_dir_all(site.path().join("sub/empty")).unwrap();
    fs::write(site.path().join("sub/index.html"), "<p>index").unwrap();
    fs::write(site.path().join("a.txt"), "0123456789").unwrap();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(site.path().join("large.bin"), large).unwrap();
    for name in ["a.txt", "large.bin"] {
        // Long ago, so that its tag is strong.
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = File::options().write(true).open(site.path().join(name)).unwrap();
        file.set_modified(at).unwrap();
    }
    site
}
