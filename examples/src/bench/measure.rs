//! Servers compared with each other: each under the same load, in turns.
//!
//! All servers run throughout, with their connections open. A round loads each
//! of them for the same time, in an order that turns round every time, so that
//! whatever else the machine does meets all of them alike. CPU time is that of
//! the server's whole process, and ratios are taken within a round.

use super::cpu;
use super::load::Loader;
use super::options::size_name;
use super::place::Place;
use super::progress::Progress;
use super::server::{Account, Config, Server};
use super::statistics::Spread;
use serde::{Deserialize, Serialize};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// Bytes of responses.
    pub sizes: &'p [u64],
    /// Connections to each server.
    pub connections: usize,
    /// Rounds of each size.
    pub rounds: NonZero<u16>,
    /// How long all of it may take, but for preparations.
    pub time: Duration,
}

/// A server to be compared, and with which other.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// What it is called in progress.
    pub name: String,
    /// What it is like.
    pub config: Config,
    /// Which of the contestants its CPU time is to be compared with.
    pub baseline: Option<usize>,
}

/// What came of one contestant at one size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Figures {
    /// Bytes of a response.
    pub size: u64,
    /// Connections.
    pub connections: usize,
    /// Rounds.
    pub rounds: usize,
    /// Answers a second.
    pub requests_per_second: Spread,
    /// CPU time of the server for each, in microseconds.
    pub cpu_us: Spread,
    /// The same in relation to the baseline's.
    pub ratio: Option<Spread>,
    /// Bytes copied from memory to memory by the server, for each byte sent.
    pub copied: f64,
    /// The part of the bytes that zero copy was asked for in vain.
    pub refused: f64,
    /// The part of the bytes that went without a copy by the kernel.
    pub lent: f64,
}

impl Figures {
    /// Payload in MB (10^6 bytes) a second.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        self.requests_per_second.median * self.size as f64 / 1e6
    }

    /// CPU time in milliseconds for each MB (10^6 bytes).
    #[must_use]
    pub fn cpu_ms_per_megabyte(&self) -> Spread {
        self.cpu_us.times(1e3 / self.size as f64)
    }
}

/// The shortest time that says anything.
const SHORTEST: Duration = Duration::from_millis(10);
/// For what a server does after the last answer: acknowledgements that arrive.
const SETTLE: Duration = Duration::from_millis(5);

/// Compares `contestants` at `place`: for each of them, what came of each size.
///
/// # Errors
/// A line for people.
pub fn compare(
    place: &Place,
    contestants: &[Contestant],
    plan: Plan<'_>,
) -> Result<Vec<Vec<Figures>>, String> {
    let slice = slice(contestants.len(), plan)?;
    let mut contest = Contest::prepare(place, contestants, plan)?;
    let progress = Progress::new(plan.sizes.len());
    let mut all = vec![Vec::new(); contestants.len()];
    for &size in plan.sizes {
        progress.begin(&format!("{}, {} servers", size_name(size), contestants.len()));
        for (figures, all) in contest.rounds(size, slice)?.into_iter().zip(&mut all) {
            all.push(figures);
        }
    }
    Ok(all)
}

/// A row for each contestant and size.
pub fn rows<R>(
    contestants: &[Contestant],
    figures: Vec<Vec<Figures>>,
    row: impl Fn(&Config, Figures) -> R,
) -> Vec<R> {
    let of = contestants.iter().zip(figures);
    of.flat_map(|(one, all)| all.into_iter().map(|figures| row(&one.config, figures))).collect()
}

/// How long each server is loaded in a round; half as long to warm up.
fn slice(contestants: usize, plan: Plan<'_>) -> Result<Duration, String> {
    let rounds = f64::from(plan.rounds.get()) + 0.5;
    let slices = rounds * (contestants * plan.sizes.len()) as f64;
    let slice = plan.time.div_f64(slices.max(1.0));
    if slice < SHORTEST {
        return Err(format!(
            "{contestants} servers, {} sizes and {} rounds take {:.0} s at least: more --seconds or \
             less of the others is needed",
            plan.sizes.len(),
            plan.rounds,
            (SHORTEST.as_secs_f64() * slices).ceil()
        ));
    }
    Ok(slice)
}

struct Contest<'c> {
    loader: Box<dyn Loader>,
    contestants: &'c [Contestant],
    plan: Plan<'c>,
    servers: Vec<(Server, usize)>,
}

/// One server in one round.
struct Turn {
    requests: f64,
    seconds: f64,
    did: Account,
}

impl<'c> Contest<'c> {
    fn prepare(
        place: &Place,
        contestants: &'c [Contestant],
        plan: Plan<'c>,
    ) -> Result<Self, String> {
        let cores = cpu::two_cores();
        if let Some((_, load)) = cores.filter(|_| !matches!(place, Place::Peer(_))) {
            cpu::stay_on(load)?;
        }
        let mut loader = place.loader()?;
        let mut servers = Vec::new();
        for Contestant { config, name, .. } in contestants {
            let config = Config { core: cores.map(|(server, _)| server), ..config.clone() };
            let failed = |line: String| format!("{name}: {line}");
            let mut server = place.server(&config).map_err(failed)?;
            let certificate = config.credentials.as_ref().map(|c| c.certificate.as_str());
            loader.expect(plan.connections, certificate).map_err(failed)?;
            server.dial(loader.address(), plan.connections).map_err(failed)?;
            servers.push((server, loader.group().map_err(failed)?));
        }
        Ok(Self { loader, contestants, plan, servers })
    }

    fn rounds(&mut self, size: u64, slice: Duration) -> Result<Vec<Figures>, String> {
        let count = self.servers.len();
        let mut turns: Vec<Vec<Turn>> = (0..count).map(|_| Vec::new()).collect();
        for contestant in 0..count {
            self.turn(contestant, size, slice / 2)?;
        }
        for round in 0..usize::from(self.plan.rounds.get()) {
            for n in 0..count {
                let contestant = if round % 2 == 0 { n } else { count - 1 - n };
                turns[contestant].push(self.turn(contestant, size, slice)?);
            }
        }
        Ok((0..count).filter_map(|n| self.figures(n, size, &turns)).collect())
    }

    fn turn(&mut self, contestant: usize, size: u64, time: Duration) -> Result<Turn, String> {
        let (server, group) = &mut self.servers[contestant];
        let name = &self.contestants[contestant].name;
        let failed = |line: String| format!("{name}: {line}");
        let before = server.account().map_err(failed)?;
        let load = self.loader.run(*group, size, time).map_err(|line| {
            // The server's own words say more, if it has any.
            failed(server.account().err().unwrap_or(line))
        })?;
        thread::sleep(SETTLE);
        let did = server.account().map_err(failed)?.since(before);
        Ok(Turn { requests: load.requests as f64, seconds: load.seconds, did })
    }

    fn figures(&self, contestant: usize, size: u64, turns: &[Vec<Turn>]) -> Option<Figures> {
        let cpu = |turn: &Turn| turn.did.cpu_ns as f64 / 1e3 / turn.requests;
        let own = &turns[contestant];
        let sum = |what: &dyn Fn(&Account) -> u64| {
            own.iter().map(|turn| what(&turn.did) as f64).sum::<f64>()
        };
        let asked = sum(&|did| did.asked).max(1.0);
        let ratio = self.contestants[contestant].baseline.and_then(|baseline| {
            Spread::of(own.iter().zip(&turns[baseline]).map(|(own, other)| cpu(own) / cpu(other)))
        });
        Some(Figures {
            size,
            connections: self.plan.connections,
            rounds: own.len(),
            requests_per_second: Spread::of(own.iter().map(|turn| turn.requests / turn.seconds))?,
            cpu_us: Spread::of(own.iter().map(cpu))?,
            ratio,
            copied: sum(&|did| did.copied) / asked,
            refused: sum(&|did| did.refused) / asked,
            lent: sum(&|did| did.lent) / asked,
        })
    }
}
