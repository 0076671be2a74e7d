//! The server itself: lastbyte, through its trait objects.

use super::body::Store;
use super::protocol::{Account, Acked, Body, Command, Config, Ready, Said, Transfer, Transport};
use crate::bench::cpu;
use crate::bench::http::{self, Asked};
use crate::bench::transports;
use lastbyte::{
    AttachOptions, Backend, Completion, ConnectionId, Driver, DriverConfig, Event, EventQueue,
    Evidence, Method, Payload, Pool, Reached, Received, Socket,
};
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Time for a client to take what it asked for when the server closes.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The server under test, which is told everything on its standard input and
/// ends with it.
#[must_use]
pub fn main() -> ExitCode {
    let mut first = String::new();
    let config = match io::stdin().lock().read_line(&mut first) {
        Ok(_) => serde_json::from_str(&first).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let failed = config.and_then(|config| Child::start(&config)).and_then(Child::serve);
    match failed {
        Ok(never) => match never {},
        Err(line) => {
            say(&Said::Failed(line));
            ExitCode::FAILURE
        }
    }
}

/// Nobody comes back with one: the process ends with its standard input.
enum Never {}

/// One line to the bench, which may be gone; then this process is about to end.
fn say(what: &Said) {
    let mut line = serde_json::to_string(what).unwrap_or_default();
    line.push('\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

struct Child {
    driver: Box<dyn Driver>,
    queue: EventQueue,
    commands: Receiver<Command>,
    store: Store,
    heads: Pool,
    config: Config,
    /// By the driver's slot.
    clients: Vec<Client>,
    asked: u64,
    refused: u64,
}

/// What is known of a connection.
#[derive(Debug, Default)]
struct Client {
    port: u16,
    /// The beginning of a request.
    request: Vec<u8>,
    transfer: Transfer,
    /// Bytes of the response under way.
    size: u64,
}

impl Child {
    fn start(config: &Config) -> Result<Self, String> {
        if let Some(core) = config.core {
            cpu::stay_on(core)?;
        }
        let backend = open(config)?;
        let mut driver_config = DriverConfig::default();
        if let Some(threshold) = config.threshold {
            driver_config.zero_copy_threshold = threshold;
        }
        let queue = EventQueue::default();
        let mut driver = backend
            .driver(&driver_config, Box::new(queue.sink()))
            .map_err(|error| error.to_string())?;
        let address = match config.listen {
            Some(address) => Some(listen(&mut *driver, address)?),
            None => None,
        };
        let store = Store::new(config.body, config.largest)
            .map_err(|error| format!("{} bytes to send: {error}", config.largest))?;
        let (sender, commands) = channel();
        let waker = driver.waker();
        let listening = move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(command) = serde_json::from_str(&line) else { break };
                if sender.send(command).is_err() {
                    break;
                }
                waker.wake();
            }
            // Whoever started this is gone.
            std::process::exit(0);
        };
        thread::Builder::new()
            .name("commands".into())
            .spawn(listening)
            .map_err(|error| format!("a thread: {error}"))?;
        say(&Said::Ready(Ready { address, backend: backend.kind().name().to_owned() }));
        Ok(Self {
            driver,
            queue,
            commands,
            store,
            heads: Pool::new(128, 1024),
            config: config.clone(),
            clients: Vec::new(),
            asked: 0,
            refused: 0,
        })
    }

    fn serve(mut self) -> Result<Never, String> {
        loop {
            self.driver.turn(None).map_err(|error| error.to_string())?;
            while let Some(event) = self.queue.pop() {
                self.handle(event)?;
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Dial(address, times) => self.dial(address, times)?,
                    Command::Account => say(&Said::Account(self.account()?)),
                }
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Received { connection, received: Received::Data(bytes), at } => {
                let client = client(&mut self.clients, connection);
                if client.request.is_empty() {
                    client.transfer.received = at.monotonic.as_nanos();
                }
                let asked = match client.request.is_empty() {
                    true => http::asked(&bytes),
                    false => Asked::Nothing,
                };
                let asked = if asked == Asked::Nothing {
                    client.request.extend_from_slice(&bytes);
                    http::asked(&client.request)
                } else {
                    asked
                };
                drop(bytes);
                match asked {
                    Asked::Nothing => {}
                    Asked::For(size) if size <= self.config.largest => {
                        client.request.clear();
                        client.size = size;
                        self.respond(connection, size)?;
                    }
                    _ => return self.driver.abort(connection).map_err(|e| e.to_string()),
                }
                // It may have failed meanwhile, which is told by an event.
                let _ = self.driver.receive(connection);
            }
            Event::Received { connection, .. } => {
                let _ = self.driver.close(connection, CLOSE_WITHIN);
            }
            Event::Accepted { socket, .. } => self.attach(socket)?,
            Event::Transfer(done) => self.completed(&done),
            Event::AcceptPaused { errno, .. } => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(format!("cannot accept: {error}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn respond(&mut self, connection: ConnectionId, size: u64) -> Result<(), String> {
        let mut head = self.heads.take();
        head.fill_from(http::head(size).as_bytes());
        let mut payload = Payload::from(head);
        self.store.append(&mut payload, size);
        self.asked += size;
        match self.driver.submit(connection, payload, self.config.stages.watch()) {
            Ok(_) | Err(lastbyte::Refused { reason: lastbyte::RefuseReason::Closing, .. }) => {
                Ok(())
            }
            Err(refused) => Err(format!("a response was refused: {refused}")),
        }
    }

    fn completed(&mut self, done: &Completion) {
        let client = client(&mut self.clients, done.connection);
        // What is sealed here is released before it is sent.
        let last_word = match self.config.transport {
            Transport::UserTls => matches!(done.reached, Reached::Acked),
            _ => matches!(done.reached, Reached::Released(_)),
        };
        if last_word && done.method == Method::ZeroCopyRefused {
            self.refused += client.size;
        }
        if !self.config.tells {
            return;
        }
        let at = done.at.monotonic.as_nanos();
        match done.reached {
            Reached::Queued => client.transfer.queued = at,
            Reached::Acked => {
                let error = u64::try_from(done.at.error.as_nanos()).unwrap_or(u64::MAX);
                client.transfer.acked = match done.evidence {
                    Evidence::Kernel => Some(Acked { at, after: at, error }),
                    Evidence::Bracketed { after } => {
                        Some(Acked { at, after: after.as_nanos(), error })
                    }
                    _ => None,
                };
                say(&Said::Transfer(Transfer { port: client.port, ..client.transfer }));
            }
            _ => {}
        }
    }

    fn attach(&mut self, socket: Socket) -> Result<(), String> {
        let peer = socket.peer().or_else(|| socket.stream().peer_addr().ok());
        let attached = self
            .driver
            .attach(socket, &AttachOptions::default())
            .map_err(|refused| format!("a connection was refused: {refused}"))?;
        let fresh = Client { port: peer.map_or(0, |peer| peer.port()), ..Client::default() };
        *client(&mut self.clients, attached.connection) = fresh;
        let _ = self.driver.receive(attached.connection);
        Ok(())
    }

    fn dial(&mut self, address: SocketAddr, times: usize) -> Result<(), String> {
        for _ in 0..times {
            let stream = TcpStream::connect(address)
                .map_err(|error| format!("cannot connect to {address}: {error}"))?;
            self.attach(stream.into())?;
        }
        say(&Said::Dialled);
        Ok(())
    }

    fn account(&self) -> Result<Account, String> {
        let counters = self.driver.counters();
        let by = |method| counters.method(method);
        let (copied, lent) = (by(Method::Copy), by(Method::ZeroCopy) + by(Method::Sendfile));
        let read = match (self.config.body, self.config.transport) {
            // Out of the page cache, to be encrypted.
            (Body::File, Transport::UserTls) => counters.sealed_bytes,
            // Out of the page cache, to be sent.
            (Body::File, _) => copied,
            _ => 0,
        };
        Ok(Account {
            cpu_ns: cpu::used()?,
            copied: copied + self.refused + read + counters.copied_to_seal_bytes,
            refused: self.refused,
            lent: lent.saturating_sub(self.refused),
            asked: self.asked,
        })
    }
}

fn client(clients: &mut Vec<Client>, id: ConnectionId) -> &mut Client {
    let slot = id.slot() as usize;
    if slot >= clients.len() {
        clients.resize_with(slot + 1, Client::default);
    }
    &mut clients[slot]
}

fn open(config: &Config) -> Result<Arc<dyn Backend>, String> {
    let choice = config.backend.parse().map_err(|error| format!("{error}"))?;
    let restrictions = lastbyte_backends::restrictions_from_env().map_err(|e| e.to_string())?;
    let plain = lastbyte_backends::open(choice, &restrictions).map_err(|e| e.to_string())?;
    transports::over(plain, config)
}

fn listen(driver: &mut dyn Driver, address: SocketAddr) -> Result<SocketAddr, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).map_err(|error| failed(&error))?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    driver.listen(listener).map_err(|refused| failed(&refused))?;
    Ok(address)
}
