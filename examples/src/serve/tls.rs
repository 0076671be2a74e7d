//! TLS for the server: where its certificate comes from.

use super::options::{Certificate, KernelTls, Options};
use lastbyte::{Backend, OffloadWish};
use lastbyte_backends::tls::{Rustls, TlsBackend, TlsOptions, TlsTerms};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// What is spoken over TLS (RFC 7301; RFC 9112 is its name's home).
const PROTOCOL: &[u8] = b"http/1.1";

/// `plain`, or TLS over it if the options say so. The error is a line for people.
///
/// # Errors
/// If the certificate or the key cannot be read or used.
pub fn over(plain: Arc<dyn Backend>, options: &Options) -> Result<Arc<dyn Backend>, String> {
    let (what, certificate, key) = match (&options.tls_cert, &options.tls_key, options.tls) {
        (Some(certificate), Some(key), _) => {
            let what = format!("--tls-cert {} --tls-key {}", certificate.display(), key.display());
            (what, read(certificate)?, read(key)?)
        }
        (_, _, Some(Certificate::SelfSigned)) => {
            let (certificate, key) = self_signed(options)?;
            ("--tls self-signed".to_owned(), certificate, key)
        }
        _ if options.ktls.is_some() => {
            return Err("--ktls needs a certificate: --tls self-signed, or --tls-cert and \
                        --tls-key"
                .to_owned());
        }
        _ => return Ok(plain),
    };
    let mut terms = TlsTerms::default();
    let mut tls = TlsOptions::default();
    match options.ktls {
        None | Some(KernelTls::Never) => {}
        Some(KernelTls::Prefer) => tls.offload = OffloadWish::Prefer,
        Some(KernelTls::Require) => {
            tls.offload = OffloadWish::Require;
            // Who agrees on something else would only be turned away later.
            terms = TlsTerms::in_kernel(&*plain).map_err(|why| format!("--ktls require: {why}"))?;
        }
    }
    tls.unchanging_files = options.ktls_unchanging_files;
    terms.protocols = vec![PROTOCOL.to_vec()];
    let provider = Rustls::new()
        .with_server(&certificate, &key, &terms)
        .map_err(|error| format!("{what}: {error}"))?;
    Ok(Arc::new(TlsBackend::new(plain, Arc::new(provider), tls)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// A key and a certificate for the address to listen on, made here and kept
/// nowhere.
fn self_signed(options: &Options) -> Result<(Vec<u8>, Vec<u8>), String> {
    let names = vec!["localhost".to_owned(), options.listen.ip().to_string()];
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| format!("cannot make a certificate: {error}"))?;
    Ok((made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes()))
}
