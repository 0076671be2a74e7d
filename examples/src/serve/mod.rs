//! The reference server.
//!
//! A request goes `worker` (events of a driver) → `connection` (bytes to
//! requests, completions to log lines) → `respond` (requests to payloads), and
//! what is needed to know on the way is a module each.

pub mod body;
pub mod complain;
pub mod conditional;
pub mod connection;
pub mod date;
pub mod files;
pub mod generated;
pub mod host;
pub mod listen;
pub mod listing;
pub mod log;
pub mod metrics;
pub mod mime;
pub mod options;
pub mod outlet;
pub mod path;
pub mod places;
pub mod range;
pub mod request;
pub mod respond;
pub mod status;
pub mod tls;
pub mod worker;

use complain::complain;
use generated::Block;
use lastbyte::{Backend, DriverError, Facility, FileSource, Wake};
use lastbyte_backends::SealedMemory;
use log::Format;
use metrics::Metrics;
use options::{Certificate, Options};
use outlet::Outlet;
use path::Root;
use places::Places;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use worker::{Ended, Shared, Worker};

/// The server could not start.
const CANNOT_START: u8 = 2;

/// Descriptors that are neither connections nor of one thread: standard streams,
/// signals, with room to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// What a thread waits with, and is woken by.
const THREAD_DESCRIPTORS: u64 = 16;

/// How long the end of the log may take to be written when all time is up.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Runs the server as the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let options = match Options::from_command_line() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => return cannot_start(&options::one_line(&error)),
        Err(help) => {
            // Whoever closed standard output does not want to read it.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match Server::start(options) {
        Ok(server) => server.run(),
        Err(line) => cannot_start(&line),
    }
}

fn cannot_start(line: &str) -> ExitCode {
    complain(line);
    ExitCode::from(CANNOT_START)
}

/// All threads of a server that is up.
#[derive(Debug)]
struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<Result<Ended, DriverError>>>,
    wakers: Vec<Arc<dyn Wake>>,
    signals: Signals,
}

/// What the limit on open files has room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Room {
    /// Connections at once, over all threads.
    connections: u64,
    /// For each thread, those that may wait in the kernel to be accepted. They may all
    /// be accepted in one go, before anybody has seen that there is no place for them.
    backlog: u32,
}

impl Room {
    /// Raises the limit on open files as far as `options` take it, and divides it:
    /// who is connected has to be served, whatever crowd is at the door.
    fn new(options: &Options, threads: usize) -> Self {
        let all = Self { connections: options.max_connections().into(), backlog: listen::BACKLOG };
        let threads = threads as u64;
        let allowed = match rlimit::increase_nofile_limit(all.descriptors(threads)) {
            Ok(allowed) => allowed,
            Err(error) => {
                complain(format_args!("cannot raise RLIMIT_NOFILE: {error}"));
                return all;
            }
        };
        let room = all.within(allowed, threads);
        // What nobody asked for is not missed.
        if options.max_connections.is_some() && room.connections < all.connections {
            complain(format_args!(
                "only {allowed} files can be open (ulimit -Hn), which is room for {} of {} \
                 connections; those beyond will wait",
                room.connections, all.connections
            ));
        }
        room
    }

    /// As much of this as `allowed` descriptors are enough for. Where they are few,
    /// an eighth is for the crowd, and half of the rest for what is not a connection.
    fn within(self, allowed: u64, threads: u64) -> Self {
        if allowed >= self.descriptors(threads) {
            return self;
        }
        let backlog = u64::from(self.backlog).min((allowed / 8 / threads).saturating_sub(1));
        let backlog = u32::try_from(backlog).unwrap_or(self.backlog);
        let rest = allowed.saturating_sub(crowd(backlog, threads));
        let connections = rest - others(threads).min(rest / 2);
        Self { connections: self.connections.min(connections).max(1), backlog }
    }

    /// How many descriptors all of it takes.
    fn descriptors(self, threads: u64) -> u64 {
        self.connections + crowd(self.backlog, threads) + others(threads)
    }
}

/// The most that is accepted in one go: the kernel lets one more wait than it is told
/// (include/net/sock.h, `sk_acceptq_is_full`).
fn crowd(backlog: u32, threads: u64) -> u64 {
    threads * (u64::from(backlog) + 1)
}

/// Descriptors of `threads` that are no connections.
fn others(threads: u64) -> u64 {
    threads * (files::MAX_OPEN as u64 + THREAD_DESCRIPTORS) + OTHER_DESCRIPTORS
}

/// Closes the signals when the last thread lets go of it, however it ends.
#[derive(Debug)]
struct LastOne(Handle);

impl Drop for LastOne {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Server {
    /// Starts the threads. The error is a line for people.
    fn start(mut options: Options) -> Result<Self, String> {
        if options.zero_copy_threshold.is_none() {
            options.zero_copy_threshold =
                lastbyte_backends::zero_copy_threshold_from_env().map_err(|e| e.to_string())?;
        }
        let root = Root::new(&options.dir)
            .map_err(|error| format!("cannot serve {}: {error}", options.dir.display()))?;
        let backend = open_backend(&options)?;
        let block = block(&*backend);
        let threads = options
            .threads
            .map(|n| usize::from(n.get()))
            .or_else(|| thread::available_parallelism().ok().map(NonZero::get))
            .unwrap_or(1);
        let busy = |error| format!("cannot listen on {}: {error}", options.listen);
        let room = Room::new(&options, threads);
        let listeners = listen::bind(options.listen, threads, room.backlog).map_err(busy)?;
        let address =
            listeners.first().map_or(Ok(options.listen), TcpListener::local_addr).map_err(busy)?;
        let signals = Signals::new([SIGTERM, SIGINT])
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
        let outlet = Outlet::new(options.log).start();
        let outlet = outlet.map_err(|error| format!("cannot start a thread: {error}"))?;
        let places = Arc::new(Places::new(room.connections, threads));
        let shared = Arc::new(Shared {
            options,
            outlet,
            backend,
            root,
            block,
            metrics: Metrics::new(threads),
            stop: AtomicBool::new(false),
            places,
            backlog: room.backlog,
            accepted: AtomicU64::new(0),
        });
        let last_one = Arc::new(LastOne(signals.handle()));
        let (ready, started) = channel();
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let (shared, last_one) = (Arc::clone(&shared), Arc::clone(&last_one));
                let ready = ready.clone();
                thread::Builder::new().name(format!("serve-{index}")).spawn(move || {
                    let _last_one = last_one;
                    work(shared, index, listener, ready)
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        drop(ready);
        let wakers = started
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("cannot start a driver: {error}"))?;
        Ok(Self { shared, address, threads, wakers, signals })
    }

    /// Serves until told to stop.
    fn run(mut self) -> ExitCode {
        let greeting = self.greeting();
        self.shared.outlet.put(greeting.as_bytes(), 1);
        let mut is_first = true;
        for signal in self.signals.forever() {
            if !is_first {
                std::process::exit(128 + signal);
            }
            is_first = false;
            self.shared.stop.store(true, Ordering::Relaxed);
            for waker in &self.wakers {
                waker.wake();
            }
        }
        let mut code = ExitCode::SUCCESS;
        let mut cut_off = 0;
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(ended)) => cut_off += ended.cut_off,
                Ok(Err(error)) => {
                    complain(error);
                    code = ExitCode::FAILURE;
                }
                // The panic has been reported where it happened.
                Err(_) => code = ExitCode::FAILURE,
            }
        }
        if !self.shared.outlet.finish(LAST_LINES) {
            complain("the log was not read in time, and its end is lost");
        }
        if cut_off > 0 {
            complain(format_args!(
                "time was up, and {cut_off} responses were cut off or not begun"
            ));
            code = ExitCode::FAILURE;
        }
        code
    }

    /// Says where the server is, what it uses, and what to try.
    fn greeting(&self) -> String {
        let Self { address, shared, .. } = self;
        let Shared { backend, root, .. } = &**shared;
        let (scheme, insecure) = match (shared.options.is_tls(), shared.options.tls) {
            (false, _) => ("http", ""),
            (true, None) => ("https", ""),
            (true, Some(Certificate::SelfSigned)) => ("https", "-k "),
        };
        let curl = format!("curl {insecure}-o /dev/null {scheme}://{address}/128kb");
        if shared.options.log == Format::Json {
            let facilities: serde_json::Map<_, _> = backend
                .report()
                .capabilities()
                .iter()
                .map(|c| (c.facility.to_string(), backend.report().has(c.facility).into()))
                .collect();
            let line = serde_json::json!({
                "event": "listening",
                "address": address.to_string(),
                "tls": shared.options.is_tls(),
                "directory": root.path().to_string_lossy(),
                "threads": self.threads.len(),
                "backend": backend.kind().name(),
                "kernel": backend.report().kernel(),
                "facilities": facilities,
                "try": curl,
            });
            format!("{line}\n")
        } else {
            let threads = match self.threads.len() {
                1 => "1 thread".to_owned(),
                n => format!("{n} threads"),
            };
            format!(
                "listening on {scheme}://{address}/\n\
                 serving {} and /N, /Nkb, /Nmb, /metrics\n\
                 backend {}, {threads}, on {}\
                 try     {curl}\n",
                root.path().display(),
                backend.kind(),
                backend.report(),
            )
        }
    }
}

/// One thread.
fn work(
    shared: Arc<Shared>,
    index: usize,
    listener: TcpListener,
    ready: Sender<Result<Arc<dyn Wake>, DriverError>>,
) -> Result<Ended, DriverError> {
    let worker = match Worker::new(shared, index, listener) {
        Ok(worker) => worker,
        Err(error) => {
            // If nobody listens, the process is ending anyway.
            let _ = ready.send(Err(error.clone()));
            return Err(error);
        }
    };
    let _ = ready.send(Ok(worker.waker()));
    drop(ready);
    worker.run()
}

fn open_backend(options: &Options) -> Result<Arc<dyn Backend>, String> {
    let choice = match options.backend {
        Some(choice) => choice,
        None => {
            lastbyte_backends::choice_from_env().map_err(|e| e.to_string())?.unwrap_or_default()
        }
    };
    let restrictions = lastbyte_backends::restrictions_from_env().map_err(|e| e.to_string())?;
    let plain = lastbyte_backends::open(choice, &restrictions).map_err(|e| e.to_string())?;
    tls::over(plain, options)
}

/// What generated bodies are made of: a sealed memory file if there is one, or else one
/// that nobody else has a name for, so that they are sent without being copied and
/// count as no memory.
fn block(backend: &dyn Backend) -> Block {
    let content = generated::content();
    if backend.report().has(Facility::SealedMemory)
        && let Ok(memory) = SealedMemory::new(&content)
    {
        let file: Arc<dyn FileSource> = Arc::new(memory);
        return Block::File(file);
    }
    if let Ok(mut file) = tempfile::tempfile()
        && file.write_all(&content).is_ok()
    {
        let file: Arc<dyn FileSource> = Arc::new(file);
        return Block::File(file);
    }
    Block::Memory(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Room = Room { connections: 50_000, backlog: 4096 };

    #[test]
    fn a_high_limit_leaves_room_for_everything() {
        for threads in [1, 2, 64] {
            assert_eq!(ALL.within(ALL.descriptors(threads), threads), ALL);
        }
    }

    proptest! {
        #[test]
        fn what_there_is_room_for_fits(allowed in 64..1_000_000_u64, threads in 1..8_u64) {
            let room = ALL.within(allowed, threads);
            let crowd = crowd(room.backlog, threads);
            prop_assert!(room.connections + crowd + others(threads).min(allowed / 3) <= allowed);
        }
    }
}
