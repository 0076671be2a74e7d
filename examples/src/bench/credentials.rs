//! A certificate for one run: made here, told to server and client, kept nowhere.

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, RootCertStore};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name that the certificate is for.
const NAME: &str = "bench";

/// A server's certificate and key, as PEM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Credentials {
    /// What a client trusts.
    pub certificate: String,
    /// What only the server knows.
    pub key: String,
}

impl Credentials {
    /// New ones.
    ///
    /// # Errors
    /// A line for people.
    pub fn new() -> Result<Self, String> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])
            .map_err(|error| format!("cannot make a certificate: {error}"))?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }
}

/// A TLS client that is not lastbyte's: rustls as it comes.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// One that trusts `certificate`, in PEM.
    ///
    /// # Errors
    /// A line for people.
    pub fn trusting(certificate: &str) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the certificate: {error}");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificate.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        Ok(Self(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }

    /// A connection that is to be made secure.
    ///
    /// # Errors
    /// A line for people.
    pub fn connection(&self) -> Result<ClientConnection, String> {
        let name = ServerName::try_from(NAME).map_err(|error| format!("{NAME}: {error}"))?;
        ClientConnection::new(Arc::clone(&self.0), name).map_err(|error| format!("TLS: {error}"))
    }
}
