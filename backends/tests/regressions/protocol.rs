//! Sockets that pass for TCP's and are not.

use crate::world::World;
use lastbyte::{AttachOptions, BackendKind, RefuseReason, Socket};
use socket2::{Domain, Protocol, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// One of multipath TCP was taken over, though its account shows one path only and it
/// has no stamps, and was reset while it was well.
#[test]
fn sockets_of_multipath_tcp_are_refused() {
    let Some(listener) = multipath() else { return };
    for kind in [BackendKind::Epoll, BackendKind::Fallback] {
        let mut world = World::new(kind, "");
        let refused = world.driver.listen(listener.try_clone().expect("another"));
        expect_refused(&refused.map_err(|refused| refused.reason));
        for connecting in [false, true] {
            let address: SocketAddr = listener.local_addr().expect("an address");
            let near = multipath_socket().expect("a socket");
            near.connect(&address.into()).expect("connects");
            let (far, _) = listener.accept().expect("accepts");
            let near = near.into();
            let near = if connecting { Socket::connecting(near) } else { Socket::from(near) };
            for socket in [near, Socket::from(far)] {
                let attached = world.driver.attach(socket, &AttachOptions::default());
                expect_refused(&attached.map_err(|refused| refused.reason));
            }
        }
    }
}

/// What a peer speaks is not asked: these are ordinary sockets.
#[test]
fn a_peer_may_use_multipath_tcp() {
    let Some(_) = multipath() else { return };
    let mut world = World::new(BackendKind::Epoll, "");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let far = multipath_socket().expect("a socket");
    far.connect(&listener.local_addr().expect("an address").into()).expect("connects");
    world.attach(listener.accept().expect("accepts").0);
}

fn expect_refused<T: std::fmt::Debug>(refused: &Result<T, RefuseReason>) {
    let Err(RefuseReason::System { doing, errno }) = refused else { panic!("{refused:?}") };
    assert_eq!((*doing, *errno), ("SO_PROTOCOL", libc::EPROTONOSUPPORT));
}

/// A listener of multipath TCP, where the kernel has that.
fn multipath() -> Option<TcpListener> {
    let socket = match multipath_socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("n/a on this kernel: multipath TCP: {error}");
            return None;
        }
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&address.into()).expect("binds");
    socket.listen(8).expect("listens");
    Some(socket.into())
}

fn multipath_socket() -> std::io::Result<socket2::Socket> {
    let protocol = Protocol::from(libc::IPPROTO_MPTCP);
    socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
}
