//! Both sides of a handshake: the provider for the backend under test, and the
//! TLS library that its peers use.

use super::identity::{IDENTITY, NAME};
use crate::Failure;
use lastbyte::{TlsCipher, TlsVersion};
use lastbyte_backends::tls::{Rustls, TlsProvider, TlsTerms};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use std::sync::{Arc, LazyLock};

/// What a backend's side agrees to; a peer agrees to everything. Whatever is
/// `None` is left to the libraries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Terms {
    pub(crate) version: Option<TlsVersion>,
    pub(crate) cipher: Option<TlsCipher>,
}

/// Handshakes in both roles, with [`IDENTITY`].
pub(crate) fn provider(terms: Terms) -> Result<Arc<dyn TlsProvider>, Failure> {
    let terms = TlsTerms {
        versions: terms.version.into_iter().collect(),
        ciphers: terms.cipher.into_iter().collect(),
        protocols: vec![PROTOCOL.to_vec()],
        ..TlsTerms::default()
    };
    let (certificate, key) = (IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes());
    let provider = Rustls::new().with_server(certificate, key, &terms)?;
    Ok(Arc::new(provider.with_client(certificate, &terms)?))
}

/// Clients that know [`IDENTITY`] and show the tickets that they got before.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<ClientConfig>);

impl Clients {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate()?)?;
        let mut config = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(VERSIONS)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// One that has not said anything yet.
    pub(crate) fn next(&self) -> Result<ClientConnection, Failure> {
        Ok(ClientConnection::new(Arc::clone(&self.0), ServerName::try_from(NAME)?)?)
    }
}

/// A client that knows [`IDENTITY`].
pub(crate) fn client() -> Result<ClientConnection, Failure> {
    static CLIENTS: LazyLock<Result<Clients, String>> =
        LazyLock::new(|| Clients::new().map_err(|failure| failure.to_string()));
    CLIENTS.as_ref().map_err(|failure| Failure::new(failure.as_str()))?.next()
}

/// A server with [`IDENTITY`], which sends tickets.
pub(crate) fn server() -> Result<ServerConnection, Failure> {
    let key = PrivateKeyDer::from_pem_slice(IDENTITY.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate()?], key)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(ServerConnection::new(Arc::new(config))?)
}

/// What is spoken over TLS, as far as that matters (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificate() -> Result<CertificateDer<'static>, rustls::pki_types::pem::Error> {
    CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes())
}
