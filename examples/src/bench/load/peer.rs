//! A load on another machine, which does what it is told over a connection: a
//! line of JSON each way.

use super::{Generator, Load, Loader};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longer than the other side waits for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// Load servers on another machine, which names this one with --peer. Whoever can
/// reach it can have it read what they send.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// End after one bench
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Command {
    Expect { connections: usize, certificate: Option<String> },
    Group,
    Run { group: usize, size: u64, millis: u64 },
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Expected,
    Group(usize),
    Load(Load),
    Failed(String),
}

/// Serves one bench after the other.
///
/// # Errors
/// A line for people.
pub fn serve(options: &Options) -> Result<(), String> {
    let listen = options.listen;
    let failed = |error: std::io::Error| format!("cannot listen on {listen}: {error}");
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    eprintln!("bench: waiting on {address} for bench --peer; stop it with Ctrl-C");
    loop {
        let (control, from) = listener.accept().map_err(failed)?;
        eprintln!("bench: {from} begins");
        let accepting = listener.try_clone().map_err(failed)?;
        let end = match Generator::on(accepting).and_then(|load| attend(load, control)) {
            Ok(()) => "is done".to_owned(),
            Err(line) => format!("gave up: {line}"),
        };
        eprintln!("bench: {from} {end}");
        // Accepting the next one may take as long as it likes.
        socket2::SockRef::from(&listener).set_read_timeout(None).map_err(failed)?;
        if options.once {
            return Ok(());
        }
    }
}

/// Does what is asked until the other side ends.
fn attend(mut load: Generator, control: TcpStream) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut answers = control.try_clone().map_err(failed)?;
    answers.set_nodelay(true).map_err(failed)?;
    for line in BufReader::new(control).lines() {
        let line = line.map_err(failed)?;
        let command = serde_json::from_str(&line).map_err(|_| "not a bench".to_owned())?;
        let done = match command {
            Command::Expect { connections, certificate } => {
                load.expect(connections, certificate.as_deref()).map(|()| Reply::Expected)
            }
            Command::Group => load.group().map(Reply::Group),
            Command::Run { group, size, millis } => {
                load.run(group, size, Duration::from_millis(millis)).map(Reply::Load)
            }
        };
        write(&mut answers, &done.unwrap_or_else(Reply::Failed))?;
    }
    Ok(())
}

fn write(to: &mut TcpStream, what: &impl Serialize) -> Result<(), String> {
    let mut line = serde_json::to_string(what).map_err(|error| error.to_string())?;
    line.push('\n');
    to.write_all(line.as_bytes()).map_err(|error| error.to_string())
}

/// A load on another machine, from this side.
#[derive(Debug)]
pub struct Remote {
    address: SocketAddr,
    control: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Remote {
    /// The one that waits at `address`.
    ///
    /// # Errors
    /// A line for people.
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the peer at {address}: {error}");
        let control = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
        control.set_nodelay(true).map_err(failed)?;
        control.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let replies = BufReader::new(control.try_clone().map_err(failed)?);
        Ok(Self { address, control, replies })
    }

    fn ask(&mut self, command: &Command) -> Result<Reply, String> {
        write(&mut self.control, command)?;
        let mut line = String::new();
        let failed =
            |error: &dyn std::fmt::Display| format!("the peer at {}: {error}", self.address);
        self.replies.read_line(&mut line).map_err(|error| failed(&error))?;
        match serde_json::from_str(&line) {
            Ok(Reply::Failed(why)) => Err(failed(&why)),
            Ok(reply) => Ok(reply),
            Err(_) if line.is_empty() => Err(failed(&"it is gone")),
            Err(_) => Err(failed(&"it is no bench")),
        }
    }

    fn surprised(&self) -> String {
        format!("the peer at {}: answers something else", self.address)
    }
}

impl Loader for Remote {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn expect(&mut self, connections: usize, certificate: Option<&str>) -> Result<(), String> {
        let certificate = certificate.map(str::to_owned);
        match self.ask(&Command::Expect { connections, certificate })? {
            Reply::Expected => Ok(()),
            _ => Err(self.surprised()),
        }
    }

    fn group(&mut self) -> Result<usize, String> {
        match self.ask(&Command::Group)? {
            Reply::Group(group) => Ok(group),
            _ => Err(self.surprised()),
        }
    }

    fn run(&mut self, group: usize, size: u64, time: Duration) -> Result<Load, String> {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The answer comes when all of that is over.
        let within = Some(PATIENCE.saturating_add(time));
        self.control
            .set_read_timeout(within)
            .map_err(|error| format!("the peer at {}: {error}", self.address))?;
        match self.ask(&Command::Run { group, size, millis })? {
            Reply::Load(load) => Ok(load),
            _ => Err(self.surprised()),
        }
    }
}
