//! Drivers that fail at going on to listen.

use crate::faulty::{ERRNO, Faults, Faulty};
use crate::{CROWD, PATIENCE, crowd, everywhere, hesitant, listen};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::runtime::RuntimeFlavor;
use tokio::time::timeout;

/// Runs `test` on each backend, with a runtime of one thread.
fn on_each_faulty_backend(test: impl AsyncFn(Faulty, Arc<Faults>)) {
    for (backend, runtime) in everywhere() {
        if runtime.handle().runtime_flavor() == RuntimeFlavor::CurrentThread {
            let backend = Faulty::over(backend);
            let faults = Arc::clone(&backend.faults);
            runtime.block_on(test(backend, faults));
        }
    }
}

/// A listener that has stopped, because too many wait to be taken, goes on when
/// it can: until then it says what is in the way, as often as it has tried.
#[test]
fn a_listener_that_cannot_go_on_says_so_and_tries_again() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = hesitant(&backend);
        let (mut listener, address) = listen(&handle);
        let _peers = crowd(address, CROWD).await;
        faults.listening.store(true, Ordering::SeqCst);
        let accept = async |listener: &mut lastbyte_backends::tokio::Listener| {
            timeout(PATIENCE, listener.accept()).await.expect("it hangs")
        };
        let mut accepted = 0;
        let error = loop {
            match accept(&mut listener).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(ERRNO));
        assert!(accepted >= 64, "it stopped with {accepted}");
        let (began, before) = (Instant::now(), faults.failed.load(Ordering::SeqCst));
        for _ in 0..5 {
            let error = accept(&mut listener).await.expect_err("it cannot");
            assert_eq!(error.raw_os_error(), Some(ERRNO));
        }
        let tries = faults.failed.load(Ordering::SeqCst) - before;
        let tries_in_time = began.elapsed().as_millis() / 50 + 1;
        assert!(u128::from(tries) <= tries_in_time, "{tries} tries in {:?}", began.elapsed());
        faults.listening.store(false, Ordering::SeqCst);
        // One more error may be waiting.
        let late = TcpStream::connect(address).unwrap();
        loop {
            let Ok(socket) = accept(&mut listener).await else { continue };
            accepted += 1;
            if socket.peer() == Some(late.local_addr().unwrap()) {
                break;
            }
        }
        assert_eq!(accepted, usize::from(CROWD) + 1);
    });
}

#[test]
fn a_listener_that_cannot_go_on_can_be_taken_back() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = hesitant(&backend);
        let (mut listener, address) = listen(&handle);
        let _peers = crowd(address, CROWD).await;
        faults.listening.store(true, Ordering::SeqCst);
        while timeout(PATIENCE, listener.accept()).await.expect("it hangs").is_ok() {}
        let listener = listener.unlisten().expect("it is there");
        assert_eq!(listener.local_addr().unwrap(), address);
    });
}
