//! Restrictions of the whole process, as a container or an operator would
//! impose them.

use super::limits::{self, Resource};
use std::fmt;
use std::io;
use std::num::IntErrorKind;
use std::str::FromStr;

/// Something that the kernel shall refuse to this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProcessRestriction {
    /// These calls answer this errno.
    Refused(Refusable, i32),
    /// `RLIMIT_MEMLOCK`, and no privilege to exceed it.
    PinnedMemory(u64),
}

/// Calls that a seccomp filter can refuse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusable {
    /// `io_uring_setup` and its kin.
    IoUring,
    /// `epoll_create` and its kin.
    Epoll,
    /// `setsockopt(SO_TIMESTAMPING)`.
    Timestamping,
    /// `setsockopt(SO_ZEROCOPY)`.
    ZeroCopy,
    /// `getsockopt(TCP_INFO)`.
    TcpInfo,
    /// `setsockopt(TCP_ULP)`, which kernel TLS begins with.
    KernelTls,
}

impl Refusable {
    const ALL: [Self; 6] = [
        Self::IoUring,
        Self::Epoll,
        Self::Timestamping,
        Self::ZeroCopy,
        Self::TcpInfo,
        Self::KernelTls,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::IoUring => "seccomp-no-io-uring",
            Self::Epoll => "seccomp-no-epoll",
            Self::Timestamping => "seccomp-no-timestamping",
            Self::ZeroCopy => "seccomp-no-zerocopy",
            Self::TcpInfo => "seccomp-no-tcp-info",
            Self::KernelTls => "seccomp-no-kernel-tls",
        }
    }
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
            ProcessRestriction::Refused(calls, errno) => filter::refuse(calls, errno)?,
        }
    }
    Ok(())
}

/// Has the kernel refuse `connect(2)` to the calling thread from now on, so that
/// nothing it owns can be disconnected.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_connecting() -> io::Result<()> {
    filter::refuse_all(&[libc::SYS_connect], libc::EPERM)
}

/// A step of handing TLS keys to the kernel.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyCall {
    /// Makes it a socket that has a record layer.
    Ulp,
    /// Sets the key that seals.
    SetTransmit,
    /// Reads its record number.
    GetTransmit,
    /// Sets the key that opens.
    SetReceive,
}

/// Has the kernel refuse this step to the calling thread from now on.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_key_call(call: KeyCall, errno: i32) -> io::Result<()> {
    let (number, option) = match call {
        KeyCall::Ulp => (libc::SYS_setsockopt, (libc::IPPROTO_TCP, libc::TCP_ULP)),
        KeyCall::SetTransmit => (libc::SYS_setsockopt, (libc::SOL_TLS, libc::TLS_TX)),
        KeyCall::GetTransmit => (libc::SYS_getsockopt, (libc::SOL_TLS, libc::TLS_TX)),
        KeyCall::SetReceive => (libc::SYS_setsockopt, (libc::SOL_TLS, libc::TLS_RX)),
    };
    filter::refuse_options(number, &[option], errno)
}

/// `seccomp-no-epoll`, `seccomp-no-epoll-enosys`, …, `memlock=BYTES`.
impl FromStr for ProcessRestriction {
    type Err = UnknownRestriction;

    fn from_str(name: &str) -> Result<Self, UnknownRestriction> {
        let unknown = || UnknownRestriction(Unknown::Name(name.to_owned()));
        if let Some(bytes) = name.strip_prefix("memlock=") {
            return number(name, bytes, u64::MAX)
                .map(Self::PinnedMemory)
                .map_err(|why| UnknownRestriction(Unknown::Number(why)));
        }
        let (call, errno) = match name.strip_suffix("-enosys") {
            Some(call) => (call, libc::ENOSYS),
            None => (name, libc::EPERM),
        };
        let known = Refusable::ALL.into_iter().find(|known| known.name() == call);
        known.map(|known| Self::Refused(known, errno)).ok_or_else(unknown)
    }
}

/// The number of the restriction `item`, up to `most`; else one line that says
/// what is wrong.
pub(crate) fn number(item: &str, text: &str, most: u64) -> Result<u64, String> {
    let too_great = || format!("'{item}': can be {most} at most");
    match text.parse::<u64>() {
        Ok(number) if number <= most => Ok(number),
        Ok(_) => Err(too_great()),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(too_great()),
        Err(_) => Err(format!("'{item}': not a number")),
    }
}

/// Why this is no restriction of a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownRestriction(Unknown);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Unknown {
    /// None is called so.
    Name(String),
    /// What is wrong with its number.
    Number(String),
}

impl fmt::Display for UnknownRestriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Unknown::Number(why) => return f.write_str(why),
            Unknown::Name(name) => name,
        };
        write!(f, "there is no restriction '{name}'; known are no-<facility>, ")?;
        for calls in Refusable::ALL {
            write!(f, "{}, ", calls.name())?;
        }
        f.write_str(
            "(each seccomp also with -enosys), memlock=BYTES, rcvbuf=BYTES, \
             io-uring-disabled=1|2, optmem-max=BYTES",
        )
    }
}

impl std::error::Error for UnknownRestriction {}

#[cfg(target_os = "linux")]
mod filter {
    use super::Refusable;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    use std::collections::BTreeMap;
    use std::io;

    /// System calls, and the options (with their level) that they are refused
    /// for; without any, for everything.
    struct Calls {
        numbers: &'static [libc::c_long],
        options: &'static [(libc::c_int, libc::c_int)],
    }

    #[cfg(target_arch = "x86_64")]
    const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_create1, libc::SYS_epoll_create];
    #[cfg(not(target_arch = "x86_64"))]
    const EPOLL: &[libc::c_long] = &[libc::SYS_epoll_create1];
    const IO_URING: &[libc::c_long] =
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    /// `SO_TIMESTAMPING` with the new layout of time
    /// (include/uapi/asm-generic/socket.h).
    const SO_TIMESTAMPING_NEW: libc::c_int = 65;

    fn calls(of: Refusable) -> Calls {
        const SET: &[libc::c_long] = &[libc::SYS_setsockopt];
        const GET: &[libc::c_long] = &[libc::SYS_getsockopt];
        let (numbers, options): (_, &[_]) = match of {
            Refusable::IoUring => (IO_URING, &[]),
            Refusable::Epoll => (EPOLL, &[]),
            Refusable::Timestamping => (
                SET,
                &[
                    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
                    (libc::SOL_SOCKET, SO_TIMESTAMPING_NEW),
                ],
            ),
            Refusable::ZeroCopy => (SET, &[(libc::SOL_SOCKET, libc::SO_ZEROCOPY)]),
            Refusable::TcpInfo => (GET, &[(libc::IPPROTO_TCP, libc::TCP_INFO)]),
            Refusable::KernelTls => (SET, &[(libc::IPPROTO_TCP, libc::TCP_ULP)]),
        };
        Calls { numbers, options }
    }

    /// Makes these calls answer `errno`.
    pub(super) fn refuse(what: Refusable, errno: i32) -> io::Result<()> {
        let Calls { numbers, options } = calls(what);
        apply(numbers, options, errno)
    }

    /// The same with calls by their numbers.
    pub(super) fn refuse_all(numbers: &[libc::c_long], errno: i32) -> io::Result<()> {
        apply(numbers, &[], errno)
    }

    /// The same with a call about these socket options, by level and name.
    pub(super) fn refuse_options(
        number: libc::c_long,
        options: &[(libc::c_int, libc::c_int)],
        errno: i32,
    ) -> io::Result<()> {
        apply(&[number], options, errno)
    }

    fn apply(
        numbers: &[libc::c_long],
        options: &[(libc::c_int, libc::c_int)],
        errno: i32,
    ) -> io::Result<()> {
        let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
            let mut conditions = Vec::new();
            for &(level, option) in options {
                conditions.push(SeccompRule::new(vec![equals(1, level)?, equals(2, option)?])?);
            }
            let rules: BTreeMap<_, _> =
                numbers.iter().map(|&call| (call, conditions.clone())).collect();
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

    pub(super) fn refuse(_: super::Refusable, _: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("memlock=65536".parse(), Ok(ProcessRestriction::PinnedMemory(65_536)));
        let enosys = Ok(ProcessRestriction::Refused(Refusable::Epoll, libc::ENOSYS));
        assert_eq!("seccomp-no-epoll-enosys".parse(), enosys);
        let unknown = "seccomp-no-sugar".parse::<ProcessRestriction>().unwrap_err();
        assert!(unknown.to_string().contains("seccomp-no-sugar"), "{unknown}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_filtered_call_is_refused_in_this_thread_only() {
        let refused = || {
            let refused = ProcessRestriction::Refused(Refusable::Timestamping, libc::ENOSYS);
            restrict_process(&[refused]).unwrap();
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
