//! Connections that are still to be made.

use lastbyte::{
    AttachOptions, Choice, DriverConfig, EventQueue, RefuseReason, Restrictions, Socket,
};
use std::net::TcpListener;
use std::os::fd::AsRawFd;

/// With `TCP_FASTOPEN_CONNECT` (tcp(7), Linux 4.11) and a cookie the first write connects,
/// which waits for the connection here. It was taken for one that cannot be made.
#[test]
fn a_connection_that_is_put_off_to_the_first_write_is_refused() {
    for &kind in lastbyte_backends::BUILT {
        let Ok(backend) = lastbyte_backends::open(Choice::Only(kind), &Restrictions::none()) else {
            continue;
        };
        let queue = EventQueue::default();
        let mut driver =
            backend.driver(&DriverConfig::default(), Box::new(queue.sink())).expect("a driver");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        // Without a cookie it would be an ordinary connect.
        for option in [libc::TCP_FASTOPEN_CONNECT, libc::TCP_FASTOPEN_NO_COOKIE] {
            let one: libc::c_int = 1;
            // SAFETY: the value is an integer that lives for the call, and its size is given.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    option,
                    (&raw const one).cast(),
                    4,
                )
            };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        }
        socket.set_nonblocking(true).expect("sets");
        socket.connect(&address.into()).expect("puts it off");
        let attached = driver.attach(Socket::connecting(socket.into()), &AttachOptions::default());
        let reason = attached.expect_err("is refused").reason;
        let expected =
            RefuseReason::System { doing: "TCP_FASTOPEN_CONNECT", errno: libc::EOPNOTSUPP };
        assert_eq!(reason, expected, "{kind}");
    }
}
