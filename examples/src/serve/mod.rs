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

/// How many connections there can be at once. Raises the limit on open files as far
/// as that takes, and keeps from it what `threads` need for files of their own: who
/// is connected has to be served.
fn room(options: &Options, threads: usize) -> u64 {
    let connections = u64::from(options.max_connections());
    let others = threads as u64 * (files::MAX_OPEN as u64 + THREAD_DESCRIPTORS) + OTHER_DESCRIPTORS;
    let allowed = match rlimit::increase_nofile_limit(connections + others) {
        Ok(allowed) => allowed,
        Err(error) => {
            complain(format_args!("cannot raise RLIMIT_NOFILE: {error}"));
            return connections;
        }
    };
    let room = connections.min(allowed.saturating_sub(others.min(allowed / 2))).max(1);
    // What nobody asked for is not missed.
    if options.max_connections.is_some() && room < connections {
        complain(format_args!(
            "only {allowed} files can be open (ulimit -Hn), which is room for {room} of \
             {connections} connections; those beyond will wait"
        ));
    }
    room
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
        let listeners = listen::bind(options.listen, threads).map_err(busy)?;
        let address =
            listeners.first().map_or(Ok(options.listen), TcpListener::local_addr).map_err(busy)?;
        let signals = Signals::new([SIGTERM, SIGINT])
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
        let outlet = Outlet::new(options.log).start();
        let outlet = outlet.map_err(|error| format!("cannot start a thread: {error}"))?;
        let places = Arc::new(Places::new(room(&options, threads), threads));
        let shared = Arc::new(Shared {
            options,
            outlet,
            backend,
            root,
            block,
            metrics: Metrics::new(threads),
            stop: AtomicBool::new(false),
            places,
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

/// What generated bodies are made of: a sealed memory file if there is one, so
/// that they are sent without being copied.
fn block(backend: &dyn Backend) -> Block {
    let content = generated::content();
    if backend.report().has(Facility::SealedMemory)
        && let Ok(memory) = SealedMemory::new(&content)
    {
        let file: Arc<dyn FileSource> = Arc::new(memory);
        return Block::File(file);
    }
    Block::Memory(content.into())
}
