//! Restrictions of the whole process, as a container or an operator would
//! impose them.

use super::limits::{self, Resource};
use std::fmt;
use std::io;
use std::str::FromStr;

/// Something that the kernel shall refuse to this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProcessRestriction {
    /// `io_uring_setup` and its kin answer this errno.
    NoIoUring(i32),
    /// `epoll_create` and its kin answer this errno.
    NoEpoll(i32),
    /// `setsockopt(SO_TIMESTAMPING)` answers this errno.
    NoTimestamping(i32),
    /// `RLIMIT_MEMLOCK`, and no privilege to exceed it.
    PinnedMemory(u64),
}

/// Imposes `restrictions` on the calling thread and all it starts; on Linux,
/// where they exist. To be called before there are other threads.
///
/// # Errors
/// If the kernel does not even restrict.
pub fn restrict_process(restrictions: &[ProcessRestriction]) -> io::Result<()> {
    for restriction in restrictions {
        match *restriction {
            ProcessRestriction::PinnedMemory(bytes) => {
                limits::give_up_pinning()?;
                limits::set_limit(Resource::PinnedMemory, bytes)?;
            }
            ProcessRestriction::NoIoUring(errno) => filter::refuse(filter::IO_URING, None, errno)?,
            ProcessRestriction::NoEpoll(errno) => filter::refuse(filter::EPOLL, None, errno)?,
            ProcessRestriction::NoTimestamping(errno) => {
                filter::refuse(filter::SETSOCKOPT, Some(filter::TIMESTAMPING), errno)?;
            }
        }
    }
    Ok(())
}

/// `seccomp-no-epoll`, `seccomp-no-epoll-enosys`, …, `memlock=BYTES`.
impl FromStr for ProcessRestriction {
    type Err = UnknownRestriction;

    fn from_str(name: &str) -> Result<Self, UnknownRestriction> {
        let unknown = || UnknownRestriction { name: name.to_owned() };
        if let Some(bytes) = name.strip_prefix("memlock=") {
            return bytes.parse().map(Self::PinnedMemory).map_err(|_| unknown());
        }
        let (call, errno) = match name.strip_suffix("-enosys") {
            Some(call) => (call, libc::ENOSYS),
            None => (name, libc::EPERM),
        };
        match call {
            "seccomp-no-io-uring" => Ok(Self::NoIoUring(errno)),
            "seccomp-no-epoll" => Ok(Self::NoEpoll(errno)),
            "seccomp-no-timestamping" => Ok(Self::NoTimestamping(errno)),
            _ => Err(unknown()),
        }
    }
}

/// A name that no restriction has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownRestriction {
    name: String,
}

impl fmt::Display for UnknownRestriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no restriction '{}'; known are no-<facility>, seccomp-no-io-uring, \
             seccomp-no-epoll, seccomp-no-timestamping (each also with -enosys), memlock=BYTES, \
             rcvbuf=BYTES",
            self.name
        )
    }
}

impl std::error::Error for UnknownRestriction {}

#[cfg(target_os = "linux")]
mod filter {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    use std::collections::BTreeMap;
    use std::io;

    pub(super) const IO_URING: &[libc::c_long] =
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    pub(super) const SETSOCKOPT: &[libc::c_long] = &[libc::SYS_setsockopt];
    #[cfg(target_arch = "x86_64")]
    pub(super) const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_create1, libc::SYS_epoll_create];
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_create1];
    /// `SO_TIMESTAMPING` with the old and the new layout of time.
    pub(super) const TIMESTAMPING: &[libc::c_int] = &[37, 65];

    /// Makes `calls` answer `errno`; only for these `SOL_SOCKET` options, if any
    /// are given.
    pub(super) fn refuse(
        calls: &[libc::c_long],
        options: Option<&[libc::c_int]>,
        errno: i32,
    ) -> io::Result<()> {
        let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
            let mut conditions = Vec::new();
            for &option in options.unwrap_or_default() {
                conditions.push(SeccompRule::new(vec![
                    equals(1, libc::SOL_SOCKET)?,
                    equals(2, option)?,
                ])?);
            }
            let rules: BTreeMap<_, _> =
                calls.iter().map(|&call| (call, conditions.clone())).collect();
            let action = SeccompAction::Errno(errno.unsigned_abs());
            let arch = TargetArch::try_from(std::env::consts::ARCH)?;
            SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
        };
        let program = compile().map_err(io::Error::other)?;
        seccompiler::apply_filter(&program).map_err(io::Error::other)
    }

    fn equals(argument: u8, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    }
}

#[cfg(not(target_os = "linux"))]
mod filter {
    use std::io;

    pub(super) const IO_URING: &[libc::c_long] = &[];
    pub(super) const SETSOCKOPT: &[libc::c_long] = &[];
    pub(super) const EPOLL: &[libc::c_long] = &[];
    pub(super) const TIMESTAMPING: &[libc::c_int] = &[];

    pub(super) fn refuse(_: &[libc::c_long], _: Option<&[libc::c_int]>, _: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("memlock=65536".parse(), Ok(ProcessRestriction::PinnedMemory(65_536)));
        let enosys = Ok(ProcessRestriction::NoEpoll(libc::ENOSYS));
        assert_eq!("seccomp-no-epoll-enosys".parse(), enosys);
        let unknown = "seccomp-no-sugar".parse::<ProcessRestriction>().unwrap_err();
        assert!(unknown.to_string().contains("seccomp-no-sugar"), "{unknown}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_filtered_call_is_refused_in_this_thread_only() {
        let refused = || {
            restrict_process(&[ProcessRestriction::NoTimestamping(libc::ENOSYS)]).unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            set_timestamping(&socket).unwrap_err().raw_os_error()
        };
        assert_eq!(std::thread::spawn(refused).join().unwrap(), Some(libc::ENOSYS));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(set_timestamping(&socket).is_ok());
    }

    #[cfg(target_os = "linux")]
    fn set_timestamping(socket: &std::net::UdpSocket) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let flags: libc::c_int = 1 << 4;
        // SAFETY: `flags` is one readable `int`, as the length says.
        let failed = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPING,
                (&raw const flags).cast(),
                4,
            )
        };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
