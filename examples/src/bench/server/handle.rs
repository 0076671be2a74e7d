//! The bench's side of a server.

use super::protocol::{Account, Command, Config, Ready, Said, Transfer};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{self, Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take for anything but a transfer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, which ends when this is dropped, or when the bench ends in
/// any other way.
#[derive(Debug)]
pub struct Server {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<Said>,
    ready: Ready,
}

impl Server {
    /// Starts one in the calling thread's network namespace, and waits until it
    /// serves.
    ///
    /// # Errors
    /// A line for people.
    pub fn start(config: &Config) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let mut child = process::Command::new(&program)
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a server without pipes".to_owned());
        };
        let (sender, said) = channel();
        let reading = move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(what) = serde_json::from_str(&line) else { break };
                if sender.send(what).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("server".into())
            .spawn(reading)
            .map_err(|error| format!("a thread: {error}"))?;
        let ready = Ready { address: None, backend: String::new() };
        let mut server = Self { child, stdin, said, ready };
        server.write(config)?;
        server.ready = server.wait(PATIENCE, "to serve", |said| match said {
            Said::Ready(ready) => Some(ready),
            _ => None,
        })?;
        Ok(server)
    }

    /// What it said when it began.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Has it connect to `address`, `times` times. It may be done before it has
    /// shaken hands.
    ///
    /// # Errors
    /// A line for people.
    pub fn dial(&mut self, address: SocketAddr, times: usize) -> Result<(), String> {
        self.write(&Command::Dial(address, times))?;
        self.wait(PATIENCE, "to connect", |said| matches!(said, Said::Dialled).then_some(()))
    }

    /// What it has done so far.
    ///
    /// # Errors
    /// A line for people.
    pub fn account(&mut self) -> Result<Account, String> {
        self.write(&Command::Account)?;
        self.wait(PATIENCE, "to give an account", |said| match said {
            Said::Account(account) => Some(account),
            _ => None,
        })
    }

    /// The next transfer that is done, if one is in time.
    ///
    /// # Errors
    /// A line for people.
    pub fn transfer(&mut self, within: Duration) -> Result<Transfer, String> {
        self.wait(within, "to tell of a transfer", |said| match said {
            Said::Transfer(transfer) => Some(transfer),
            _ => None,
        })
    }

    fn write(&mut self, what: &impl serde::Serialize) -> Result<(), String> {
        let mut line = serde_json::to_string(what).map_err(|error| error.to_string())?;
        line.push('\n');
        // If it is gone, what it said last says why.
        let _ = self.stdin.write_all(line.as_bytes()).and_then(|()| self.stdin.flush());
        Ok(())
    }

    fn wait<T>(
        &mut self,
        within: Duration,
        what: &str,
        mut wanted: impl FnMut(Said) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + within;
        loop {
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Failed(line)) => return Err(line),
                Ok(said) => {
                    if let Some(found) = wanted(said) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the server takes more than {within:?} {what}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                    return Err(format!("the server ended: {ended}"));
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
