//! The same answer to every request, on tokio: by `write_all`, or through lastbyte.
//!
//! `opponent-tokio PORT BYTES plain`, or `… BYTES unwatched|acked BACKEND`

use bytes::Bytes;
use lastbyte::{AttachOptions, Choice, DriverConfig, Payload, Restrictions, Watch};
use lastbyte_backends::tokio::{Connection, Transfer, spawn};
use std::error::Error;
use std::net::TcpListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const END: &[u8] = b"\r\n\r\n";
const USAGE: &str = "opponent-tokio PORT BYTES plain|unwatched|acked [BACKEND]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, bytes, how, backend) = match &arguments[..] {
        [port, bytes, how] => (port, bytes, how, None),
        [port, bytes, how, backend] => (port, bytes, how, Some(backend.parse()?)),
        _ => return Err(USAGE.into()),
    };
    let bytes: usize = bytes.parse()?;
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + bytes, b'.');
    let answer = Bytes::from(answer);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match (how.as_str(), backend) {
        ("plain", None) => runtime.block_on(plain(listener, answer)),
        ("unwatched", Some(backend)) => {
            runtime.block_on(through(listener, answer, backend, Watch::NONE))
        }
        ("acked", Some(backend)) => {
            runtime.block_on(through(listener, answer, backend, Watch::ACKED))
        }
        _ => Err(USAGE.into()),
    }
}

async fn plain(listener: TcpListener, answer: Bytes) -> Result<(), Box<dyn Error>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(write_to(socket, answer.clone()));
    }
}

async fn write_to(mut socket: TcpStream, answer: Bytes) -> std::io::Result<()> {
    let mut request = vec![0; 16 << 10];
    loop {
        let len = socket.read(&mut request).await?;
        if !request[..len].ends_with(END) {
            return Ok(());
        }
        socket.write_all(&answer).await?;
    }
}

async fn through(
    listener: TcpListener,
    answer: Bytes,
    backend: Choice,
    watch: Watch,
) -> Result<(), Box<dyn Error>> {
    let backend = lastbyte_backends::open(backend, &Restrictions::none())?;
    let handle = spawn(&*backend, &DriverConfig::default())?;
    let mut listener = handle.listen(listener)?;
    loop {
        let socket = listener.accept().await?;
        let connection = handle.attach(socket, &AttachOptions::default())?;
        tokio::spawn(send_to(connection, answer.clone(), watch));
    }
}

/// Hears of each answer's acknowledgement before it sends the next.
async fn send_to(mut connection: Connection, answer: Bytes, watch: Watch) {
    let mut before: Option<Transfer> = None;
    while let Ok(Some(request)) = connection.receive().await {
        let is_whole = request.ends_with(END);
        drop(request);
        if let Some(mut transfer) = before.take()
            && watch == Watch::ACKED
            && transfer.acked().await.is_err()
        {
            return;
        }
        match connection.send(Payload::from(answer.clone()), watch) {
            Ok(transfer) if is_whole => before = Some(transfer),
            _ => return,
        }
    }
}
