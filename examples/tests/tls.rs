//! The reference server over TLS, as curl sees it, on each backend.

#[allow(dead_code, reason = "this file needs only a part of it")]
mod harness;

use harness::{Server, generated, serve};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::tempdir;

const BACKENDS: [&str; 3] = ["auto", "epoll", "fallback"];

/// What curl gets from the server, or `None` if there is no curl.
fn curl(server: &Server, target: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let url = format!("https://{}{target}", server.address);
    let done = Command::new("curl").args(["-sS", "--http1.1"]).args(arguments).arg(url).output();
    let Ok(done) = done else {
        println!("n/a: there is no curl here");
        return None;
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(done.stdout)
}

#[test]
fn curl_gets_everything_in_both_versions() {
    let site = tempdir().unwrap();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(site.path().join("large.bin"), &large).unwrap();
    for backend in BACKENDS {
        let server = Server::start(backend, site.path(), &["--tls", "self-signed"]);
        let mut transfers = 0;
        for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            for (target, expected) in [
                ("/large.bin", large.clone()),
                ("/0", Vec::new()),
                ("/16384", generated(0, 16_384)),
                ("/3mb", generated(0, 3 << 20)),
            ] {
                let arguments = [&["-k"], version].concat();
                let Some(body) = curl(&server, target, &arguments) else { return };
                assert!(body == expected, "{backend} {version:?} {target} came out different");
                transfers += 1;
            }
        }
        for line in server.wait_for_transfers(transfers) {
            assert_eq!(
                (&line["transport"], &line["outcome"]),
                (&"user-tls".into(), &"acked".into())
            );
            assert!(line["acked_ms"].is_number() && line["released_ms"].is_number(), "{line}");
        }
        let page = String::from_utf8(curl(&server, "/metrics", &["-k"]).unwrap()).unwrap();
        for line in [
            format!("lastbyte_transfers_by_transport_total{{transport=\"user-tls\"}} {transfers}"),
            "lastbyte_transfers_by_transport_total{transport=\"plain\"} 0".to_owned(),
            "lastbyte_tls_handshakes_failed_total 0".to_owned(),
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        let secured = ["-k", "--request-target", "https://h/16384"];
        assert!(curl(&server, "/", &secured) == Some(generated(0, 16_384)), "{backend}");
        // Without or with the one that asks: it is counted at the end of its turn.
        let handshakes = number(&page, "lastbyte_tls_handshakes_total");
        assert!((transfers..=transfers + 1).contains(&handshakes), "{handshakes}");
    }
}

#[test]
fn files_can_hold_the_certificate() {
    let site = tempdir().unwrap();
    let (certificate, key) = make(site.path(), "own");
    let server =
        Server::start("epoll", site.path(), &["--tls-cert", &certificate, "--tls-key", &key]);
    let port = server.address.port();
    let resolve = format!("localhost:{port}:127.0.0.1");
    let url = format!("https://localhost:{port}/5");
    let done = Command::new("curl")
        .args(["-sSv", "--cacert", &certificate, "--resolve", &resolve, &url])
        .output();
    let Ok(done) = done else {
        println!("n/a: there is no curl here");
        return;
    };
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert_eq!(done.stdout, generated(0, 5));
    assert!(said.contains("ALPN: server accepted http/1.1"), "{said}");
}

#[test]
fn certificates_are_shown_by_name_and_asked_for() {
    let site = tempdir().unwrap();
    let (first, first_key) = make(site.path(), "first");
    let (other, other_key) = make_for(site.path(), "other", "other.example");
    let (client, client_key) = make(site.path(), "client");
    let mut arguments = vec!["--tls-cert", &first, "--tls-key", &first_key];
    arguments.extend(["--tls-cert", &other, "--tls-key", &other_key, "--tls-client-ca", &client]);
    let server = Server::start("epoll", site.path(), &arguments);
    let port = server.address.port();
    for (name, certificate) in [("localhost", &first), ("other.example", &other)] {
        for is_known in [true, false] {
            let resolve = format!("{name}:{port}:127.0.0.1");
            let url = format!("https://{name}:{port}/5");
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--cacert", certificate, "--resolve", &resolve, &url]);
            if is_known {
                curl.args(["--cert", &client, "--key", &client_key]);
            }
            let Ok(done) = curl.output() else {
                println!("n/a: there is no curl here");
                return;
            };
            let said = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.success(), is_known, "{name}: {said}");
            assert_eq!(done.stdout == generated(0, 5), is_known, "{name}");
        }
    }
}

#[test]
fn a_drain_over_tls_is_complete() {
    let site = tempdir().unwrap();
    for backend in BACKENDS {
        let mut server = Server::start(backend, site.path(), &["--tls", "self-signed"]);
        let url = format!("https://{}/20mb", server.address);
        let peer = Command::new("curl")
            .args(["-skS", "--limit-rate", "20M", &url])
            .stdout(Stdio::piped())
            .spawn();
        let Ok(peer) = peer else {
            println!("n/a: there is no curl here");
            return;
        };
        harness::wait_for("the download", || {
            let page = String::from_utf8(curl(&server, "/metrics", &["-k"])?).ok()?;
            (number(&page, "lastbyte_tls_sealed_bytes_total") > 1_000_000).then_some(())
        });
        server.signal("TERM");
        let got = peer.wait_with_output().unwrap();
        assert!(got.status.success() && got.stdout == generated(0, 20 << 20));
        assert_eq!(server.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn bad_certificates_give_one_line() {
    let dir = tempdir().unwrap();
    let (certificate, key) = make(dir.path(), "one");
    let (_, other) = make(dir.path(), "other");
    let text = dir.path().join("text");
    fs::write(&text, "no PEM").unwrap();
    let text = text.to_str().unwrap();
    let unequal = ["--tls-cert", &certificate, "--tls-cert", &certificate, "--tls-key", &key];
    for (arguments, part) in [
        (&unequal[..], "each --tls-cert needs its --tls-key: there are 2 and 1"),
        (&["--tls-client-ca", &certificate], "--tls-client-ca needs a certificate"),
        (&["--tls", "self-signed", "--tls-client-ca", "/nowhere"], "cannot read /nowhere"),
        (&["--tls", "self-signed", "--tls-client-ca", text], "there is no certificate"),
    ] {
        let done = serve().args(arguments).args(["--listen", "127.0.0.1:0"]).output().unwrap();
        let line = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{line}");
        assert!(line.contains(part) && line.lines().count() == 1, "{line}");
    }
    for (certificate, key, part) in [
        ("/nowhere", &*key, "cannot read /nowhere: No such file"),
        (&*certificate, "/nowhere", "cannot read /nowhere: No such file"),
        (text, &*key, "there is no certificate"),
        (&*certificate, text, "there is no private key"),
        (&*certificate, &*other, "the certificate cannot be used"),
    ] {
        let arguments = ["--tls-cert", certificate, "--tls-key", key, "--listen", "127.0.0.1:0"];
        let done = serve().args(arguments).output().unwrap();
        let line = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{line}");
        assert!(line.contains(part) && line.lines().count() == 1, "{line}");
        assert!(done.stdout.is_empty());
    }
}

/// With kernel TLS wherever this kernel has it; and `require` refuses to start
/// where it cannot be had, in a line that says why.
#[test]
fn kernel_tls_is_had_or_its_lack_is_told() {
    let site = tempdir().unwrap();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(site.path().join("large.bin"), &large).unwrap();
    let report = lastbyte_backends::report(&lastbyte::Restrictions::none());
    for backend in BACKENDS {
        let arguments = ["--tls", "self-signed", "--ktls", "require", "--listen", "127.0.0.1:0"];
        let can = backend != "fallback" && report.has(lastbyte::Facility::TlsReceive);
        if !can {
            let done = serve().args(["--backend", backend]).args(arguments).output().unwrap();
            let line = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(2), "{line}");
            let why = if backend == "fallback" { "fallback" } else { "kernel-tls lacks" };
            assert!(line.contains("--ktls require: ") && line.contains(why), "{line}");
            assert!(line.lines().count() == 1 && done.stdout.is_empty(), "{line}");
        }
        let wish = if can { "require" } else { "prefer" };
        let arguments = ["--tls", "self-signed", "--ktls", wish];
        let server = Server::start(backend, site.path(), &arguments);
        for (target, expected) in [("/large.bin", &large), ("/16384", &generated(0, 16_384))] {
            let Some(body) = curl(&server, target, &["-k"]) else { return };
            assert!(body == *expected, "{backend} {target} came out different");
        }
        let transport = if can { "kernel-tls" } else { "user-tls" };
        for line in server.wait_for_transfers(2) {
            assert_eq!(line["transport"], transport);
            assert_eq!(line["receive_transport"], transport);
            assert_eq!(line["outcome"], "acked");
        }
        let page = String::from_utf8(curl(&server, "/metrics", &["-k"]).unwrap()).unwrap();
        for direction in ["transmit", "receive"] {
            let name = format!(
                "lastbyte_tls_connections_total{{direction=\"{direction}\",transport=\"{transport}\"}}"
            );
            assert!((2..=3).contains(&number(&page, &name)), "{page}");
        }
    }
}

/// The value of a metric.
fn number(page: &str, name: &str) -> usize {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

/// A certificate and its key in files of their own.
fn make(dir: &Path, name: &str) -> (String, String) {
    make_for(dir, name, "localhost")
}

/// The same for another host.
fn make_for(dir: &Path, name: &str, host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let path = |kind| dir.join(format!("{name}.{kind}")).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert"), path("key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

/// A response that is sealed as a whole, and of which the kernel has a part only,
/// is not one that its client can do without the server.
#[test]
fn without_stamps_a_drain_waits_for_what_is_sealed_and_not_sent() {
    let site = tempdir().unwrap();
    let (certificate, key) = make(site.path(), "own");
    let mut arguments = vec!["--tls-cert", &certificate, "--tls-key", &key];
    arguments.extend(["--stamps", "off", "--drain-timeout", "60s"]);
    // Each with a server: none is to keep another's drain waiting.
    let cases = BACKENDS.iter().flat_map(|&backend| [350, 450, 550].map(|kb| (backend, kb)));
    let mut stalled: Vec<_> = cases
        .map(|(backend, kb)| {
            let server = Server::start(backend, site.path(), &arguments);
            let mut client = narrow_client(server.address, Path::new(&certificate));
            let request = format!("GET /{kb}kb HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            (backend, kb, server, client)
        })
        .collect();
    for (_, _, _, client) in &mut stalled {
        client.read_exact(&mut [0]).unwrap();
    }
    for (_, _, server, _) in &stalled {
        server.signal("TERM");
    }
    // Longer than a server waits for clients that have got everything to close.
    std::thread::sleep(Duration::from_secs(2));
    for (backend, kb, mut server, mut client) in stalled {
        let mut response = Vec::new();
        // Whether TLS ends in order is not what this is about.
        let _ = client.read_to_end(&mut response);
        let body = generated(0, kb << 10);
        assert!(response.ends_with(&body), "{backend}: {} B of {kb} kb", response.len());
        drop(client);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        let line = server.wait_for_transfers(1).remove(0);
        assert_eq!(line["outcome"], "unconfirmed", "{line}");
        assert!(line["queued_ms"].is_number() && line["acked_ms"].is_null(), "{line}");
    }
}

/// A client for which the other side's kernel takes little at a time.
fn narrow_client(
    address: SocketAddr,
    certificate: &Path,
) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    socket.set_tcp_mss(1400).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(trusted).with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket.into())
}
