//! Resource limits, and the privilege to exceed one of them.

use std::io;

/// A limit of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource {
    /// `RLIMIT_NOFILE`: descriptors.
    Descriptors,
    /// `RLIMIT_MEMLOCK`: bytes of pinned memory.
    PinnedMemory,
}

impl Resource {
    #[cfg(target_os = "linux")]
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::PinnedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn number(self) -> libc::c_int {
        match self {
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::PinnedMemory => libc::RLIMIT_MEMLOCK,
        }
    }
}

/// Soft limit and hard limit.
pub(crate) fn limits(resource: Resource) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid `rlimit` to write to.
    match unsafe { libc::getrlimit(resource.number(), &raw mut limit) } {
        0 => Ok((limit.rlim_cur, limit.rlim_max)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the soft limit.
pub(crate) fn set_limit(resource: Resource, soft: u64) -> io::Result<()> {
    let (_, hard) = limits(resource)?;
    let limit = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
    // SAFETY: `limit` is a valid `rlimit` to read from.
    match unsafe { libc::setrlimit(resource.number(), &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Descriptors that are enough for all cases beside each other, and few enough
/// to take them all: some systems allow a milliard, which no memory has room for.
const ENOUGH: u64 = 16_384;

/// Raises the descriptor limit to what is enough, or as far as it goes; says what
/// it is then.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let (soft, _) = limits(Resource::Descriptors)?;
    if soft < ENOUGH {
        set_limit(Resource::Descriptors, ENOUGH)?;
    }
    Ok(limits(Resource::Descriptors)?.0)
}

/// Lowers the descriptor limit to what is enough, for whoever is going to use it
/// up. The cases beside it do not miss the rest, and none raises it again.
pub(crate) fn bound_descriptors() -> io::Result<()> {
    let (soft, _) = limits(Resource::Descriptors)?;
    if soft > ENOUGH {
        set_limit(Resource::Descriptors, ENOUGH)?;
    }
    Ok(())
}

/// Gives up the privilege to pin memory beyond the limit (`CAP_IPC_LOCK`), for
/// this thread and the threads and programs it starts.
#[cfg(target_os = "linux")]
pub(crate) fn give_up_pinning() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 14;
    /// `struct __user_cap_header_struct`.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: a version 3 header, and room for the two sets it asks for.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // Only the effective set: the thread may keep the right to take it back.
    data[0].effective &= !(1 << CAP_IPC_LOCK);
    // SAFETY: as above; both are only read.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere nothing exceeds the limit.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_up_pinning() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_can_be_used_up() {
        let (_, hard) = limits(Resource::Descriptors).unwrap();
        set_limit(Resource::Descriptors, hard).unwrap();
        bound_descriptors().unwrap();
        let raised = raise_descriptors().unwrap();
        assert_eq!(raised, hard.min(ENOUGH));
    }
}
