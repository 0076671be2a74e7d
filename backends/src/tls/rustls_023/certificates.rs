//! Certificates: read, and chosen by the name that a client asks for.

use super::TlsConfigError;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// What a server shows: to clients that ask for a name that it has a certificate
/// for, that one, and to all others the first.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    first: Arc<CertifiedKey>,
    /// By name in small letters; `*.` stands for one label (RFC 9525, section 6.3).
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Shown {
    pub(super) fn new(first: CertifiedKey) -> Result<Self, TlsConfigError> {
        let first = Arc::new(first);
        let mut shown = Self { first: Arc::clone(&first), by_name: HashMap::new() };
        shown.add(first)?;
        Ok(shown)
    }

    /// Where two have the same name, the earlier is shown.
    pub(super) fn add(&mut self, key: Arc<CertifiedKey>) -> Result<(), TlsConfigError> {
        let end_entity = key.end_entity_cert().map_err(|error| unusable(&error))?;
        let parsed = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|error| TlsConfigError(format!("the certificate cannot be read: {error}")))?;
        for name in parsed.valid_dns_names() {
            self.by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&key));
        }
        Ok(())
    }

    fn for_name(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let exact = self.by_name.get(&name);
        let wild = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        exact.or_else(wild).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().map_or(&self.first, |name| self.for_name(name));
        Some(Arc::clone(key))
    }
}

/// A chain and the key that belongs to it, from the contents of PEM files.
pub(super) fn certified(
    certificates: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsConfigError> {
    let (chain, key) = (certificates_in(certificates)?, key_in(key)?);
    CertifiedKey::from_der(chain, key, provider).map_err(|error| unusable(&error))
}

fn unusable(error: &rustls::Error) -> TlsConfigError {
    TlsConfigError(format!("the certificate cannot be used: {error}"))
}

pub(super) fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsConfigError(format!("the certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(TlsConfigError("there is no certificate".to_owned()));
    }
    Ok(chain)
}

pub(super) fn key_in(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        TlsConfigError(match error {
            pem::Error::NoItemsFound => "there is no private key".to_owned(),
            error => format!("the private key cannot be read: {error}"),
        })
    })
}

/// Certificates to trust.
pub(super) fn roots_in(pem: &[u8]) -> Result<RootCertStore, TlsConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates_in(pem)? {
        store
            .add(certificate)
            .map_err(|error| TlsConfigError(format!("a certificate cannot be trusted: {error}")))?;
    }
    Ok(store)
}
