//! A server on tokio that greets whoever connects, and says when they had it.
//!
//! ```sh
//! cargo run --bin hello_tokio &
//! curl http://127.0.0.1:8081/
//! ```

use lastbyte::{AttachOptions, Choice, DriverConfig, Payload, Restrictions, Watch};
use lastbyte_backends::tokio::{Connection, Handle, Listener};
use lastbyte_examples::serve::complain::say;
use std::error::Error;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const GREETING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";

const ADDRESS: &str = "127.0.0.1:8081";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello_tokio: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
    let handle = lastbyte_backends::tokio::spawn(&*backend, &DriverConfig::default())?;
    let listener = TcpListener::bind(ADDRESS)
        .map_err(|error| format!("cannot listen on {ADDRESS}: {error}"))?;
    tell(&format!("http://{ADDRESS}/ on {}", backend.kind()));
    let mut listener = handle.listen(listener)?;
    serve(&handle, &mut listener).await
}

/// Greets everybody until that is impossible.
async fn serve(handle: &Handle, listener: &mut Listener) -> Result<(), Box<dyn Error>> {
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            // This is said for ever from now on.
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                return Err("the driver is gone, and nothing can be accepted any more".into());
            }
            Err(error) => {
                complain(&format!("cannot accept for now: {error}"));
                continue;
            }
        };
        let connection = match handle.attach(socket, &AttachOptions::default()) {
            Ok(connection) => connection,
            Err(refused) => {
                complain(&format!("a connection cannot be taken over: {}", refused.reason));
                continue;
            }
        };
        tokio::spawn(async move {
            if let Err(error) = greet(connection).await {
                complain(&error.to_string());
            }
        });
    }
}

async fn greet(mut connection: Connection) -> Result<(), Box<dyn Error>> {
    // Whatever the request is, this is the answer.
    if !matches!(connection.receive().await, Ok(Some(_))) {
        return Ok(());
    }
    let began = Instant::now();
    let mut transfer = connection.send(Payload::from(GREETING), Watch::ACKED)?;
    let acked = transfer.acked().await?;
    tell(&format!("acknowledged within {:?} (evidence: {})", began.elapsed(), acked.evidence));
    tell(&connection.close(Duration::from_secs(5)).await.to_string());
    Ok(())
}

/// A line of what happens. It waits for nobody who reads it, and goes on if nobody does.
fn tell(what: &str) {
    say(std::io::stdout().lock(), format!("{what}\n").as_bytes());
}

fn complain(what: &str) {
    say(std::io::stderr().lock(), format!("hello_tokio: {what}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn it_ends_with_the_driver() {
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let other = runtime();
        let (handle, mut listener) = other.block_on(async {
            let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none()).unwrap();
            let config = DriverConfig::default();
            let handle = lastbyte_backends::tokio::spawn(&*backend, &config).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let listener = handle.listen(listener).unwrap();
            (handle, listener)
        });
        drop(other);
        let error = runtime().block_on(serve(&handle, &mut listener)).unwrap_err();
        assert!(error.to_string().contains("the driver is gone"), "{error}");
    }
}
