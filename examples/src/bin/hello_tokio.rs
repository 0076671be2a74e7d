//! A server on tokio that greets whoever connects, and says when they had it.
//!
//! ```sh
//! cargo run --bin hello_tokio &
//! curl http://127.0.0.1:8081/
//! ```

use lastbyte::{AttachOptions, Choice, DriverConfig, Payload, Restrictions, Watch};
use lastbyte_backends::tokio::Connection;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const GREETING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = lastbyte_backends::open(Choice::Auto, &Restrictions::none())?;
    let handle = lastbyte_backends::tokio::spawn(&*backend, &DriverConfig::default())?;
    let listener = TcpListener::bind("127.0.0.1:8081")?;
    println!("http://{}/ on {}", listener.local_addr()?, backend.kind());
    let mut listener = handle.listen(listener)?;
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("cannot accept for now: {error}");
                continue;
            }
        };
        let connection = handle.attach(socket, &AttachOptions::default())?;
        tokio::spawn(async move {
            if let Err(error) = greet(connection).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn greet(mut connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
    // Whatever the request is, this is the answer.
    if !matches!(connection.receive().await, Ok(Some(_))) {
        return Ok(());
    }
    let began = Instant::now();
    let mut transfer = connection.send(Payload::from(GREETING), Watch::ACKED)?;
    let acked = transfer.acked().await?;
    println!("acknowledged within {:?} (evidence: {})", began.elapsed(), acked.evidence);
    println!("closed: {:?}", connection.close(Duration::from_secs(5)).await);
    Ok(())
}
