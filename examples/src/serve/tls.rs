//! TLS for the server: where its certificate comes from.

use super::options::{Certificate, KernelTls, Options};
use lastbyte::{Backend, OffloadWish};
use lastbyte_backends::tls::{ClientCertificates, Rustls, TlsBackend, TlsOptions, TlsTerms};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// What is spoken over TLS (RFC 7301; RFC 9112 is its name's home).
const PROTOCOL: &[u8] = b"http/1.1";

/// `plain`, or TLS over it if the options say so. The error is a line for people.
///
/// # Errors
/// If a certificate or a key cannot be read or used.
pub fn over(plain: Arc<dyn Backend>, options: &Options) -> Result<Arc<dyn Backend>, String> {
    let mut shown = shown(options)?.into_iter();
    let Some(first) = shown.next() else {
        for (flag, is_set) in [
            ("--ktls", options.ktls.is_some()),
            ("--tls-client-ca", options.tls_client_ca.is_some()),
        ] {
            if is_set {
                return Err(format!(
                    "{flag} needs a certificate: --tls self-signed, or --tls-cert and --tls-key"
                ));
            }
        }
        return Ok(plain);
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
    let mut what = first.what;
    if let Some(authorities) = &options.tls_client_ca {
        terms.clients = ClientCertificates::Required { roots: read(authorities)? };
        what = format!("{what} --tls-client-ca {}", authorities.display());
    }
    let mut provider = Rustls::new()
        .with_server(&first.certificate, &first.key, &terms)
        .map_err(|error| format!("{what}: {error}"))?;
    for other in shown {
        provider = provider
            .with_certificate_for_its_names(&other.certificate, &other.key)
            .map_err(|error| format!("{}: {error}", other.what))?;
    }
    Ok(Arc::new(TlsBackend::new(plain, Arc::new(provider), tls)))
}

/// A certificate chain with its key, as PEM.
struct Shown {
    /// The options that it is from.
    what: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// All that is to be shown: none without TLS.
fn shown(options: &Options) -> Result<Vec<Shown>, String> {
    if options.tls == Some(Certificate::SelfSigned) {
        let (certificate, key) = self_signed(options)?;
        return Ok(vec![Shown { what: "--tls self-signed".to_owned(), certificate, key }]);
    }
    let (certificates, keys) = (&options.tls_cert, &options.tls_key);
    if certificates.len() != keys.len() {
        return Err(format!(
            "each --tls-cert needs its --tls-key: there are {} and {}",
            certificates.len(),
            keys.len()
        ));
    }
    let pairs = certificates.iter().zip(keys);
    pairs
        .map(|(certificate, key)| {
            let what = format!("--tls-cert {} --tls-key {}", certificate.display(), key.display());
            Ok(Shown { what, certificate: read(certificate)?, key: read(key)? })
        })
        .collect()
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
