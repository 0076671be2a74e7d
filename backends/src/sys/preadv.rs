//! `preadv(2)` on a borrowed descriptor: one read into several places.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

// On 32-bit Linux the plain call has 32-bit offsets.
#[cfg(not(target_os = "linux"))]
use libc::preadv as call;
#[cfg(target_os = "linux")]
use libc::preadv64 as call;

/// Places that one call fills; every system takes at least as many (POSIX,
/// `_XOPEN_IOV_MAX`).
const MAX_PLACES: usize = 16;

/// Reads from `file` from `offset` on, into one of `places` after the other. 0
/// means that the file has nothing there.
pub(crate) fn preadv(
    file: BorrowedFd<'_>,
    places: &mut [IoSliceMut<'_>],
    offset: u64,
) -> io::Result<usize> {
    let offset = offset.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let count = places.len().min(MAX_PLACES);
    let count = libc::c_int::try_from(count).map_err(io::Error::other)?;
    // SAFETY: an `IoSliceMut` has the layout of an `iovec`, and each is valid for
    // writes of its length; there are at least `count`.
    super::check_len(unsafe { call(file.as_raw_fd(), places.as_mut_ptr().cast(), count, offset) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn places_are_filled_in_order() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys/preadv.rs");
        let file = std::fs::File::open(path).unwrap();
        let (mut a, mut b) = ([0; 3], [0; 7]);
        let mut places = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(preadv(file.as_fd(), &mut places, 4).unwrap(), 10);
        assert_eq!((&a, &b), (b"`pr", b"eadv(2)"));
        assert_eq!(preadv(file.as_fd(), &mut [IoSliceMut::new(&mut a)], 1 << 40).unwrap(), 0);
    }
}
