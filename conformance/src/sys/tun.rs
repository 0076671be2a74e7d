//! A network namespace with one TUN device in it, made by a short-lived child
//! process, and sockets that live there.
//!
//! The child shares this process's descriptor table, so what it opens is ours,
//! and the namespace lives as long as the descriptors do. It is a process of
//! its own because an unprivileged user must first enter a user namespace,
//! which a process with several threads cannot.

use std::net::Ipv4Addr;

/// The one address in the namespace, and the one that a device beyond it
/// would have.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

#[cfg(target_os = "linux")]
pub(crate) use linux::{make, open};

#[cfg(target_os = "linux")]
mod linux {
    use super::HERE;
    use std::fs::File;
    use std::io::{self, Read};
    use std::mem::{size_of, zeroed};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, FromRawFd, RawFd};
    use std::os::unix::fs::OpenOptionsExt;

    /// What the child leaves behind.
    #[derive(Debug)]
    pub(crate) struct Namespace {
        /// Reads and writes IP packets.
        pub(crate) device: File,
        /// Listens on [`HERE`].
        pub(crate) listener: TcpListener,
        /// Not connected yet.
        pub(crate) connector: TcpStream,
    }

    /// The child's answer: the step that failed and its errno, or zeros and
    /// three descriptors.
    type Answer = [i32; 5];

    /// Names of the child's steps.
    const STEPS: [&str; 7] = [
        "",
        "unshare(CLONE_NEWNET)",
        "open /dev/net/tun",
        "ioctl TUNSETIFF",
        "an address for the TUN device",
        "a socket in the namespace",
        "listen in the namespace",
    ];

    /// Makes a namespace, or says which step the kernel refused.
    pub(crate) fn make() -> Result<Namespace, (&'static str, io::Error)> {
        let answer = in_child().map_err(|error| ("a child process", error))?;
        let [step, errno, device, listener, connector] = answer;
        if step != 0 {
            let step = usize::try_from(step).ok().and_then(|step| STEPS.get(step));
            return Err((step.copied().unwrap_or("?"), io::Error::from_raw_os_error(errno)));
        }
        Ok(Namespace {
            // SAFETY: the child opened it in the table it shares with us, and
            // nobody else knows of it.
            device: unsafe { File::from_raw_fd(device) },
            // SAFETY: as above.
            listener: unsafe { TcpListener::from_raw_fd(listener) },
            // SAFETY: as above.
            connector: unsafe { TcpStream::from_raw_fd(connector) },
        })
    }

    /// A TUN device of that name in the calling thread's namespace, which lives
    /// as long as what this returns. It neither blocks nor has an address yet.
    pub(crate) fn open(name: &str) -> io::Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: a structure of integers and arrays of them: zeros are valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        // The last byte stays zero.
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or(0);
        let device = file.as_raw_fd();
        // SAFETY: `request` is the `ifreq` that TUNSETIFF reads and writes.
        if unsafe { libc::ioctl(device, libc::TUNSETIFF, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }

    /// Runs [`build`] in a child and reads its answer from a pipe.
    fn in_child() -> io::Result<Answer> {
        let (mut read, write) = io::pipe()?;
        let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
        // SAFETY: without CLONE_VM this is `fork` but for the shared descriptor
        // table. The child makes only system calls until it exits.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
        match pid {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                let answer = build().unwrap_or_else(|(step, errno)| [step, errno, 0, 0, 0]);
                // SAFETY: `answer` is readable for its own size.
                unsafe {
                    libc::write(write.as_raw_fd(), answer.as_ptr().cast(), size_of::<Answer>())
                };
                // SAFETY: ends the child without running what the parent's
                // threads have registered.
                unsafe { libc::_exit(0) };
            }
            _ => {}
        }
        // The table is shared: the child needs the writing end until it is gone.
        let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
        // SAFETY: waits for a child of ours; no status is asked for.
        while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } == -1 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        drop(write);
        let mut bytes = [0; size_of::<Answer>()];
        read.read_exact(&mut bytes)?;
        let mut answer = [0; 5];
        for (value, bytes) in answer.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = i32::from_ne_bytes(bytes.try_into().map_err(io::Error::other)?);
        }
        Ok(answer)
    }

    /// In the child. Allocates nothing: another thread of the parent may have
    /// held the allocator's lock when it was copied.
    fn build() -> Result<Answer, (i32, i32)> {
        // SAFETY: changes the namespace of this process only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            // SAFETY: as above.
            check(1, unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
        }
        let path = c"/dev/net/tun";
        let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: a path that ends with a zero byte.
        let device = check(2, unsafe { libc::open(path.as_ptr(), flags) })?;
        let mut request = named();
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or(0);
        // SAFETY: `request` is the `ifreq` that TUNSETIFF reads and writes.
        check(3, unsafe { libc::ioctl(device, libc::TUNSETIFF, &raw mut request) })?;
        configure()?;
        let listener = socket(libc::SOCK_STREAM)?;
        let address = address(HERE.octets());
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or(0);
        // SAFETY: `address` is readable for `len` bytes.
        check(6, unsafe { libc::bind(listener, (&raw const address).cast(), len) })?;
        // SAFETY: no memory is involved.
        check(6, unsafe { libc::listen(listener, 1) })?;
        let connector = socket(libc::SOCK_STREAM)?;
        Ok([0, 0, device, listener, connector])
    }

    /// Gives the device its address and brings it up.
    fn configure() -> Result<(), (i32, i32)> {
        let control = socket(libc::SOCK_DGRAM)?;
        for (request, value) in
            [(libc::SIOCSIFADDR, HERE.octets()), (libc::SIOCSIFNETMASK, [255, 255, 255, 0])]
        {
            let mut interface = named();
            let value = address(value);
            // SAFETY: both are plain structures of 16 bytes, `sockaddr_in` being
            // the form that `sockaddr` has for AF_INET.
            interface.ifr_ifru.ifru_addr = unsafe { std::mem::transmute_copy(&value) };
            // SAFETY: `interface` is the `ifreq` that both requests read.
            check(4, unsafe { libc::ioctl(control, request as _, &raw mut interface) })?;
        }
        let mut interface = named();
        interface.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        // SAFETY: as above.
        check(4, unsafe { libc::ioctl(control, libc::SIOCSIFFLAGS as _, &raw mut interface) })?;
        // SAFETY: opened above, and nobody else knows of it.
        unsafe { libc::close(control) };
        Ok(())
    }

    fn named() -> libc::ifreq {
        // SAFETY: a structure of integers and arrays of them: zeros are valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"link0") {
            *to = from.cast_signed();
        }
        request
    }

    fn address(octets: [u8; 4]) -> libc::sockaddr_in {
        // SAFETY: a structure of integers: zeros are valid.
        let mut address: libc::sockaddr_in = unsafe { zeroed() };
        address.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0);
        address.sin_addr.s_addr = u32::from_ne_bytes(octets);
        address
    }

    fn socket(kind: libc::c_int) -> Result<RawFd, (i32, i32)> {
        // SAFETY: no memory is involved.
        check(5, unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) })
    }

    fn check(step: i32, result: libc::c_int) -> Result<libc::c_int, (i32, i32)> {
        if result >= 0 {
            return Ok(result);
        }
        Err((step, io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    }
}

/// Elsewhere there is no such device.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make() -> Result<Namespace, (&'static str, std::io::Error)> {
    Err(("network namespaces", std::io::Error::from_raw_os_error(libc::ENOSYS)))
}

/// See the one for Linux; this one is never made.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) device: std::fs::File,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) connector: std::net::TcpStream,
}
