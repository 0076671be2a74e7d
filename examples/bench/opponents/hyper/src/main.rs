//! What a Rust server without lastbyte costs: hyper over tokio-rustls, one thread, bodies from memory.
//!
//!     opponent-hyper PORT [CERT.pem KEY.pem]
//!
//! `GET /16kb`, `/1mb`: as `serve`'s generated bodies. Without a certificate it speaks plain HTTP.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The largest body.
const MEMORY: usize = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = arguments.first().ok_or("usage: opponent-hyper PORT [CERT.pem KEY.pem]")?.parse()?;
    let tls = match (arguments.get(1), arguments.get(2)) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(port, tls))
}

fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(port: u16, tls: Option<TlsAcceptor>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let memory = Bytes::from(vec![b'x'; MEMORY]);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (tls, memory) = (tls.clone(), memory.clone());
                tokio::task::spawn_local(async move {
                    // A connection that fails is the load generator's to report.
                    match tls {
                        None => talk(stream, memory).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, memory).await;
                            }
                        }
                    }
                });
            }
        })
        .await
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, memory: Bytes) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let body = length(request.uri().path()).map(|length| memory.slice(..length));
        async move {
            let mut response = Response::new(Full::new(body.clone().unwrap_or_default()));
            if body.is_none() {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// `/16kb` is 16,384.
fn length(path: &str) -> Option<usize> {
    let name = path.strip_prefix('/')?;
    let (digits, shift) = match (name.strip_suffix("kb"), name.strip_suffix("mb")) {
        (Some(digits), _) => (digits, 10),
        (_, Some(digits)) => (digits, 20),
        _ => (name, 0),
    };
    let length = digits.parse::<usize>().ok()?.checked_shl(shift)?;
    (length <= MEMORY).then_some(length)
}
