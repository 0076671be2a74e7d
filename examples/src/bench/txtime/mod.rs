//! Transaction time: how wrong is a server that does not ask when its client
//! had the last byte, and how right is one that does?
//!
//! Two clocks measure the same span. The client's runs from before it sends its
//! request until it has read the last byte of the response; the server's from
//! when it saw the request until the acknowledgement of the last byte arrived.
//! Both spans hold one trip each way besides the response itself.

mod client;
mod row;

pub use row::{Habit, Row, Sample};

use super::about::About;
use super::credentials::{self, Credentials};
use super::options::{self, Output};
use super::outcome::Outcome;
use super::progress::Progress;
use super::server::{Body, Config, Server, Stages, Transfer, Transport};
use super::transports;
use client::{Client, Seen};
use lastbyte_conformance::{Apart, LinkOptions};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one transaction may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the beginnings of two transactions, so that they do not run in step.
const STAGGER: Duration = Duration::from_millis(7);

/// How long a response takes by three clocks: the server's without notification,
/// the server's with it, and the client's, over a slow and lossy link between
/// two network namespaces (needs root).
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Sizes of responses
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = options::size,
          default_value = "128k,256k,512k,1024k")]
    sizes: Vec<u64>,

    /// Backends: their names, or all
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all")]
    backend: Vec<options::Backends>,

    /// Transports: plain, user-tls, kernel-tls [default: those this kernel has]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    transport: Vec<Transport>,

    /// Round trip of the link
    #[arg(long, value_name = "TIME", default_value = "320ms", value_parser = options::duration)]
    rtt: Duration,

    /// Packets lost in a hundred, each way; several are measured one after the other
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = options::percent,
          default_value = "0,1")]
    loss: Vec<f64>,

    /// Bytes a second that the link carries each way; transactions are then made
    /// one at a time [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = options::size)]
    rate: Option<u64>,

    /// Transactions of each kind
    #[arg(long, value_name = "N", default_value = "5")]
    samples: NonZero<u16>,

    /// What the client does when it has the last byte, which decides how soon its
    /// kernel acknowledges that
    #[arg(long, value_enum, value_name = "HABIT", default_value = "keeps")]
    client: Habit,

    /// Small requests that each client makes first on the same connection
    #[arg(long, value_name = "N", default_value = "0")]
    warm: u16,

    /// Time after which no transaction is begun any more
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = options::duration)]
    seconds: Duration,

    #[command(flatten)]
    output: Output,
}

/// Measures as the options say.
///
/// # Errors
/// A line for people.
pub fn run(options: &Options) -> Result<(), String> {
    options.output.check()?;
    let deadline = Instant::now() + options.seconds;
    let report = options::report()?;
    let backends = options::backends(&options.backend, &report)?;
    let (chosen, mut notes) = transports::choose(&options.transport, &report)?;
    let credentials = Credentials::new()?;
    let mut rows = Vec::new();
    let mut wires = Vec::new();
    let servers: Vec<(&String, Transport)> = backends
        .iter()
        .flat_map(|backend| {
            let all = transports::of(backend, &chosen, &mut notes);
            all.into_iter().map(move |transport| (backend, transport))
        })
        .collect();
    let progress = Progress::new(options.loss.len() * servers.len());
    for &loss in &options.loss {
        let apart = Apart::new(link(options, loss))
            .map_err(|lack| format!("no link between two network namespaces: {lack}"))?;
        let wire = format!(
            "{}, round trip {} ms, loss {loss} %{}",
            apart.wire(),
            options.rtt.as_secs_f64() * 1e3,
            options.rate.map_or(String::new(), |rate| format!(", {rate} bytes/s")),
        );
        wires.push(wire);
        for &(backend, transport) in &servers {
            progress.begin(&format!("loss {loss} %, {backend}, {transport}"));
            let config = config(options, backend, transport, &credentials);
            let batch = Batch { options, apart: &apart, config: &config, deadline };
            let samples = batch.run()?;
            rows.extend(options.sizes.iter().filter_map(|&size| {
                let samples = samples.get(&size)?.clone();
                Some(Row {
                    backend: backend.clone(),
                    transport,
                    size,
                    rtt_ms: options.rtt.as_secs_f64() * 1e3,
                    loss_percent: loss,
                    habit: options.client,
                    warm: options.warm,
                    samples,
                })
            }));
        }
    }
    if Instant::now() >= deadline {
        notes.push(format!("stopped after {:?} (--seconds)", options.seconds));
    }
    let about = About::now(&report, wires.join("; "));
    options.output.show(&Outcome::new(about, notes, rows))
}

fn link(options: &Options, loss: f64) -> LinkOptions {
    LinkOptions {
        delay: options.rtt / 2,
        // Of a thousand; the option's parser has seen to the range.
        loss: (loss * 10.0).round() as u32,
        rate: options.rate,
    }
}

fn config(
    options: &Options,
    backend: &str,
    transport: Transport,
    credentials: &Credentials,
) -> Config {
    Config {
        backend: backend.to_owned(),
        transport,
        credentials: (transport != Transport::Plain).then(|| credentials.clone()),
        body: Body::Memory,
        stages: Stages::QueuedAndAcked,
        threshold: None,
        largest: options.sizes.iter().copied().max().unwrap_or(0),
        listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        tells: true,
        core: None,
    }
}

/// Transactions with one server.
struct Batch<'b> {
    options: &'b Options,
    apart: &'b Apart,
    config: &'b Config,
    deadline: Instant,
}

impl Batch<'_> {
    /// All of them, by size.
    fn run(&self) -> Result<HashMap<u64, Vec<Sample>>, String> {
        let outside = |error| format!("a network namespace: {error}");
        let mut server =
            self.apart.server().run(|| Server::start(self.config)).map_err(outside)??;
        let port = server.ready().address.map_or(0, |address| address.port());
        let tls = match &self.config.credentials {
            Some(credentials) => Some(credentials::Client::trusting(&credentials.certificate)?),
            None => None,
        };
        let client = Client {
            server: SocketAddr::from((Apart::SERVER, port)),
            tls,
            habit: self.options.client,
            warm: self.options.warm,
            patience: PATIENCE,
        };
        let seen = self.apart.client().run(|| self.transactions(&client)).map_err(outside)??;
        let mut told = HashMap::new();
        for _ in 0..seen.len() * (1 + usize::from(self.options.warm)) {
            let transfer = server.transfer(PATIENCE)?;
            // The last one of a connection is the one that counts.
            told.insert(transfer.port, transfer);
        }
        let mut samples: HashMap<u64, Vec<Sample>> = HashMap::new();
        for Seen { port, size, took, .. } in seen {
            let transfer: &Transfer =
                told.get(&port).ok_or("the server tells of somebody else's transfer")?;
            samples.entry(size).or_default().push(Sample::new(transfer, took));
        }
        Ok(samples)
    }

    /// The client's side, several at once.
    fn transactions(&self, client: &Client) -> Result<Vec<Seen>, String> {
        let samples = usize::from(self.options.samples.get());
        let jobs: VecDeque<u64> =
            (0..samples).flat_map(|_| self.options.sizes.iter().copied()).collect();
        let at_once = if self.options.rate.is_some() { 1 } else { jobs.len() };
        let jobs = Mutex::new(jobs);
        let take = || {
            let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.pop_front().filter(|_| Instant::now() < self.deadline)
        };
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for n in 0..at_once {
                let work = || {
                    let mut seen = Vec::new();
                    while let Some(size) = take() {
                        seen.push(client.transaction(size)?);
                    }
                    Ok(seen)
                };
                if n > 0 {
                    thread::sleep(STAGGER);
                }
                let worker = thread::Builder::new().name(format!("client-{n}"));
                workers
                    .push(worker.spawn_scoped(scope, work).map_err(|e| format!("a thread: {e}"))?);
            }
            let mut all = Vec::new();
            for worker in workers {
                let seen: Result<Vec<Seen>, String> =
                    worker.join().map_err(|_| "a client panicked".to_owned())?;
                all.extend(seen?);
            }
            Ok(all)
        })
    }
}
