//! A TCP proxy: each byte that it passes on stays where the kernel has put it, until
//! the kernel has it again.
//!
//! ```sh
//! cargo run --bin proxy 127.0.0.1:8081 127.0.0.1:8080 &
//! curl http://127.0.0.1:8081/
//! ```

use lastbyte::{
    AttachOptions, Choice, CloseOutcome, Completion, ConnectionId, Driver, DriverConfig, Event,
    EventQueue, Payload, Reached, Received, RefuseReason, Restrictions, Socket, Watch,
};
use lastbyte_examples::serve::complain::say;
use std::collections::HashMap;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

/// Longer than anybody takes: a peer that reads gets everything, however slowly, and one
/// that does not is given up by the connection's `stall_timeout`.
const CLOSE_WITHIN: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = arguments.as_slice() else {
        return Err("usage: proxy <address to listen on> <address to pass on to>".into());
    };
    let address = |text: &str| text.parse().map_err(|_| format!("'{text}' is no IP:PORT"));
    let listener = TcpListener::bind(address(listen)?).map_err(|e| format!("{listen}: {e}"))?;
    let choice = lastbyte_backends::choice_from_env()?.unwrap_or(Choice::Auto);
    let backend = lastbyte_backends::open(choice, &Restrictions::none())?;
    let queue = EventQueue::default();
    let mut driver = backend.driver(&DriverConfig::default(), Box::new(queue.sink()))?;
    tell(&format!("{} to {upstream} on {}", listener.local_addr()?, backend.kind()));
    driver.listen(listener)?;
    let mut proxy = Proxy { upstream: address(upstream)?, sides: HashMap::new() };
    loop {
        driver.turn(None)?;
        while let Some(event) = queue.pop() {
            proxy.handle(&mut *driver, event);
        }
    }
}

/// A line of what happens. It waits for nobody who reads it, and goes on if nobody does.
fn tell(what: &str) {
    say(std::io::stdout().lock(), format!("{what}\n").as_bytes());
}

fn complain(what: &str) {
    say(std::io::stderr().lock(), format!("proxy: {what}\n").as_bytes());
}

struct Proxy {
    upstream: SocketAddr,
    sides: HashMap<ConnectionId, Side>,
}

/// One of the two connections of a pair.
struct Side {
    other: ConnectionId,
    received: u64,
    /// It sends no more.
    ended: bool,
}

impl Proxy {
    fn handle(&mut self, driver: &mut dyn Driver, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                if let Err(error) = self.pair(driver, socket) {
                    complain(&format!("nobody to pass on to: {error}"));
                }
            }
            Event::Received { connection, received, .. } => {
                let passed_on = self.pass_on(driver, connection, received);
                if passed_on.is_err() {
                    // The other one is gone, and this one has to learn of it.
                    let _ = driver.abort(connection);
                }
            }
            // The kernel has the bytes, so there is room for the next.
            Event::Transfer(Completion { connection, reached: Reached::Released(_), .. }) => {
                if let Some(side) = self.sides.get(&connection) {
                    // Refused if that one is gone, which is told by itself.
                    let _ = driver.receive(side.other);
                }
            }
            Event::Closed { connection, outcome, .. } => self.closed(driver, connection, &outcome),
            Event::AcceptPaused { errno, .. } => {
                let error = std::io::Error::from_raw_os_error(errno);
                complain(&format!("cannot accept: {error}"));
            }
            _ => {}
        }
    }

    /// Connects a new client with a connection of its own to the other side.
    fn pair(&mut self, driver: &mut dyn Driver, socket: Socket) -> Result<(), Box<dyn Error>> {
        let options = AttachOptions::default();
        let upstream = lastbyte_backends::connect(self.upstream)?;
        let upstream = driver.attach(upstream, &options)?.connection;
        let client = match driver.attach(socket, &options) {
            Ok(attached) => attached.connection,
            Err(refused) => {
                driver.abort(upstream)?;
                return Err(refused.into());
            }
        };
        for (one, other) in [(client, upstream), (upstream, client)] {
            self.sides.insert(one, Side { other, received: 0, ended: false });
            // Refused if it has ended, which is told by itself.
            let _ = driver.receive(one);
        }
        Ok(())
    }

    fn pass_on(
        &mut self,
        driver: &mut dyn Driver,
        from: ConnectionId,
        received: Received,
    ) -> Result<(), RefuseReason> {
        let Some(side) = self.sides.get_mut(&from) else { return Ok(()) };
        let to = side.other;
        if let Received::Data(bytes) = received {
            side.received += bytes.len() as u64;
            driver
                .submit(to, Payload::from(bytes), Watch::NONE)
                .map_err(|refused| refused.reason)?;
            return Ok(());
        }
        side.ended = true;
        if self.sides.get(&to).is_some_and(|other| other.ended) {
            driver.close(from, CLOSE_WITHIN)?;
            return driver.close(to, CLOSE_WITHIN);
        }
        driver.finish(to)
    }

    fn closed(&mut self, driver: &mut dyn Driver, id: ConnectionId, outcome: &CloseOutcome) {
        let Some(Side { other, received, .. }) = self.sides.remove(&id) else { return };
        tell(&format!("{id} {outcome}, after it had sent {received} bytes"));
        if matches!(outcome, CloseOutcome::Failed(_)) {
            // What was cut off here must not look complete there.
            let _ = driver.abort(other);
        }
    }
}
