//! Drivers that fail: for a moment, for good, and at going on to listen.

use crate::faulty::{ERRNO, Faults, Faulty};
use crate::{CROWD, PATIENCE, crowd, everywhere, handle, hesitant, listen, pair, tracked};
use lastbyte::{CloseOutcome, FailReason, RefuseReason, Watch};
use lastbyte_backends::tokio::Ended;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle as Runtime, RuntimeFlavor};
use tokio::time::timeout;

/// Of a clock that is turned.
const LONG: Duration = Duration::from_secs(3600);

/// Runs `test` on each backend, with a runtime of one thread, whose clock it may
/// turn.
fn on_each_faulty_backend(test: impl AsyncFn(Faulty, Arc<Faults>)) {
    for (backend, runtime) in everywhere() {
        if runtime.handle().runtime_flavor() == RuntimeFlavor::CurrentThread {
            let backend = Faulty::over(backend);
            let faults = Arc::clone(&backend.faults);
            runtime.block_on(test(backend, faults));
        }
    }
}

#[test]
fn a_driver_that_fails_for_a_moment_goes_on() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = handle(&backend);
        let (connection, _peer) = pair(&handle).await;
        faults.turning.store(true, Ordering::SeqCst);
        let mut transfer = connection.send(b"hello".to_vec().into(), Watch::ACKED).unwrap();
        while faults.failed.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        faults.turning.store(false, Ordering::SeqCst);
        let acked = timeout(PATIENCE, transfer.acked()).await.expect("it goes on");
        drop(acked.unwrap());
        assert_eq!(handle.failure(), None);
    });
}

#[test]
fn a_driver_that_only_fails_ends_and_says_why() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = handle(&backend);
        let (mut connection, _peer) = pair(&handle).await;
        let (payload, dropped) = tracked(64 << 20);
        let mut transfer = connection.send(payload, Watch::ACKED).unwrap();
        faults.turning.store(true, Ordering::SeqCst);
        // From here on time passes as fast as everybody waits for it.
        tokio::time::pause();
        let acked = timeout(LONG, transfer.acked()).await.expect("it is given up");
        let Err(Ended::Failed(failure)) = acked else { panic!("it is over") };
        assert_eq!(failure.reason, FailReason::Closed);
        drop(transfer.released().await.unwrap());
        assert!(dropped.load(Ordering::SeqCst));
        let closed = CloseOutcome::Failed(FailReason::Closed);
        assert_eq!(connection.receive().await.unwrap_err(), closed);
        let refused = connection.send(vec![1].into(), Watch::NONE).unwrap_err();
        assert_eq!(refused.reason, RefuseReason::DriverGone);
        let failure = handle.failure().expect("it says why");
        assert_eq!((failure.doing, failure.errno), ("a test's turn", ERRNO));
        // It was tried more than once, and not all the time.
        let failed = faults.failed.load(Ordering::SeqCst);
        assert!((10..1000).contains(&failed), "given up after {failed} turns");
    });
}

/// What submitting has brought about is delivered by a turn that does not look at
/// the kernel, and so cannot fail.
#[test]
fn a_driver_that_only_delivers_ends_too() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = handle(&backend);
        let (connection, _peer) = pair(&handle).await;
        faults.waiting.store(true, Ordering::SeqCst);
        tokio::time::pause();
        while connection.send(b"alive".to_vec().into(), Watch::QUEUED).is_ok() {
            tokio::time::sleep(Duration::from_millis(90)).await;
            let failed = faults.failed.load(Ordering::SeqCst);
            assert!(failed < 1000, "nothing but what is sent is told, and it goes on");
        }
        assert_eq!(handle.failure().expect("it says why").errno, ERRNO);
    });
}

#[test]
fn a_driver_that_only_fails_ends_without_users_too() {
    on_each_faulty_backend(async |backend, faults| {
        let handle = handle(&backend);
        let (connection, _peer) = pair(&handle).await;
        let (payload, dropped) = tracked(64 << 20);
        drop(connection.send(payload, Watch::ACKED).unwrap());
        faults.turning.store(true, Ordering::SeqCst);
        drop((connection, handle));
        tokio::time::pause();
        while Runtime::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let failed = faults.failed.load(Ordering::SeqCst);
            assert!(failed < 1000, "nobody needs it, and it goes on failing");
        }
        assert!(dropped.load(Ordering::SeqCst));
    });
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
