//! A server in a process of its own, and a client that sees every byte.

use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test is considered stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with a JSON log.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn serve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
    command.env_remove("LASTBYTE_BACKEND").env_remove("LASTBYTE_DISABLE");
    command
}

impl Server {
    pub(crate) fn start(backend: &str, dir: &Path, arguments: &[&str]) -> Self {
        let mut command = serve();
        command.args(["--listen", "127.0.0.1:0", "--log", "json", "--backend", backend, "--dir"]);
        Self::from(command.arg(dir).args(arguments))
    }

    /// With `ulimit` set as `limit` says.
    pub(crate) fn start_with_limit(limit: &str, backend: &str, dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_serve")).args(["--threads", "1", "--backend", backend]);
        command.args(["--max-connections", "1000"]);
        Self::from(command.args(["--listen", "127.0.0.1:0", "--log", "json", "--dir"]).arg(dir))
    }

    pub(crate) fn from(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = collect(child.stdout.take().unwrap());
        let complaints = collect(child.stderr.take().unwrap());
        let mut server = Self { child, address: "127.0.0.1:0".parse().unwrap(), lines, complaints };
        let greeting = wait_for("the greeting", || server.json().into_iter().next());
        assert_eq!(greeting["event"], "listening");
        server.address = greeting["address"].as_str().unwrap().parse().unwrap();
        server
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Begins to connect, and does not wait until the server's kernel has room.
    pub(crate) fn knock(&self) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        if let Err(error) = socket.connect(&self.address.into()) {
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
        }
        socket
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        let mut client = self.connect();
        client.get(target);
        client.response()
    }

    /// Log lines of transfers so far.
    pub(crate) fn transfers(&self) -> Vec<serde_json::Value> {
        self.json().into_iter().filter(|line| line["event"] == "transfer").collect()
    }

    /// The lines of transfers when there are `count`.
    pub(crate) fn wait_for_transfers(&self, count: usize) -> Vec<serde_json::Value> {
        wait_for("log lines", || Some(self.transfers()).filter(|lines| lines.len() >= count))
    }

    pub(crate) fn wait_for_complaint(&self, part: &str) -> String {
        wait_for(part, || self.complaint(part))
    }

    /// The first line on standard error that contains `part`.
    pub(crate) fn complaint(&self, part: &str) -> Option<String> {
        let complaints = self.complaints.lock().unwrap();
        complaints.iter().find(|line| line.contains(part)).cloned()
    }

    /// The value of a metric, named with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        wait_for("the end of the server", || self.child.try_wait().unwrap())
    }

    fn json(&self) -> Vec<serde_json::Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let complaints = self.complaints.lock().unwrap();
        let panicked = complaints.iter().find(|line| line.contains("panicked"));
        if !thread::panicking() {
            assert_eq!(panicked, None, "the server panicked: {complaints:?}");
        }
    }
}

fn collect(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let filled = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            filled.lock().unwrap().push(line);
        }
    });
    lines
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A connection to the server.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Whether the server takes it or not.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    pub(crate) fn request(&mut self, method: &str, target: &str, fields: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    }

    pub(crate) fn get(&mut self, target: &str) {
        self.request("GET", target, "");
    }

    pub(crate) fn head(&mut self) -> Response {
        let line = self.line();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{line:?}"));
        let status = status[..3].parse().unwrap();
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Response { status, fields, body: Vec::new() }
    }

    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        if response.status != 304 {
            response.body = self.read(response.len());
        }
        response
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whatever comes until the end of the stream, or its reset.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        bytes
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.field("content-length").unwrap().parse().unwrap()
    }
}

/// The body of a generated response, from `offset` on.
pub(crate) fn generated(offset: usize, len: usize) -> Vec<u8> {
    let block = lastbyte_examples::serve::generated::content();
    block.iter().copied().cycle().skip(offset % block.len()).take(len).collect()
}
