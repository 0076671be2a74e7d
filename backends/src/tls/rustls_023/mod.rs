//! Handshakes by rustls 0.23. The only module that names one of its types: its
//! next version has another interface.

mod certificates;
mod handshake;
mod keys;
mod terms;

use super::handshake::{Handshake, TlsProvider};
use certificates::{Shown, certificates_in, certified, key_in, roots_in};
use handshake::Shaking;
use lastbyte::{TlsCipher, TlsRole, TlsVersion};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::{CipherSuite, ClientConfig, ServerConfig, SupportedProtocolVersion};
use std::fmt;
use std::sync::Arc;
pub use terms::{ClientCertificates, TlsTerms};

/// Handshakes by rustls, with the cryptography of AWS-LC.
#[derive(Clone, Debug, Default)]
pub struct Rustls {
    server: Option<(Arc<ServerConfig>, Shown)>,
    client: Option<Arc<ClientConfig>>,
}

impl Rustls {
    /// Cannot take any role yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and a server with the certificate chain and the private key in
    /// these PEM files' contents. Sessions are resumed by tickets.
    ///
    /// # Errors
    /// If either cannot be read or they do not belong together, or if the
    /// certificates that clients are to be judged by cannot be read.
    pub fn with_server(
        mut self,
        certificates: &[u8],
        key: &[u8],
        terms: &TlsTerms,
    ) -> Result<Self, TlsConfigError> {
        let provider = provider(&terms.ciphers);
        let shown = Shown::new(certified(certificates, key, &provider)?)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(&terms.versions))
            .map_err(|error| TlsConfigError(error.to_string()))?;
        let builder = match verifier(&terms.clients, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(shown.clone()));
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| TlsConfigError(error.to_string()))?;
        config.alpn_protocols.clone_from(&terms.protocols);
        config.enable_secret_extraction = true;
        self.server = Some((Arc::new(config), shown));
        Ok(self)
    }

    /// The same, and the server shows this certificate to clients that ask for
    /// one of its names (RFC 6066, section 3). Who asks for a name that no
    /// certificate has, or for none, is shown that of [`Self::with_server`].
    ///
    /// # Errors
    /// As [`Self::with_server`]; if there is no server yet.
    pub fn with_certificate_for_its_names(
        mut self,
        certificates: &[u8],
        key: &[u8],
    ) -> Result<Self, TlsConfigError> {
        let Some((config, shown)) = &mut self.server else {
            return Err(TlsConfigError("there is no server that could show it".to_owned()));
        };
        shown.add(Arc::new(certified(certificates, key, config.crypto_provider())?))?;
        Arc::make_mut(config).cert_resolver = Arc::new(shown.clone());
        Ok(self)
    }

    /// The same, and a client that trusts the certificates in this PEM file's
    /// content and what they have signed, and shows none of its own.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn with_client(self, roots: &[u8], terms: &TlsTerms) -> Result<Self, TlsConfigError> {
        self.with_client_of(roots, None, terms)
    }

    /// As [`Self::with_client`]; servers that ask for it are shown the
    /// certificate chain in this PEM file's content, to which `key` belongs.
    ///
    /// # Errors
    /// If any of them cannot be read, or the two do not belong together.
    pub fn with_client_showing(
        self,
        roots: &[u8],
        certificates: &[u8],
        key: &[u8],
        terms: &TlsTerms,
    ) -> Result<Self, TlsConfigError> {
        self.with_client_of(roots, Some((certificates, key)), terms)
    }

    fn with_client_of(
        mut self,
        roots: &[u8],
        own: Option<(&[u8], &[u8])>,
        terms: &TlsTerms,
    ) -> Result<Self, TlsConfigError> {
        let builder = ClientConfig::builder_with_provider(provider(&terms.ciphers))
            .with_protocol_versions(&versions(&terms.versions))
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_root_certificates(roots_in(roots)?);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => builder
                .with_client_auth_cert(certificates_in(certificates)?, key_in(key)?)
                .map_err(|error| {
                    TlsConfigError(format!("the certificate cannot be used: {error}"))
                })?,
        };
        config.alpn_protocols.clone_from(&terms.protocols);
        config.enable_secret_extraction = true;
        self.client = Some(Arc::new(config));
        Ok(self)
    }
}

impl TlsProvider for Rustls {
    fn begin(&self, role: &TlsRole) -> Result<Box<dyn Handshake>, String> {
        match role {
            TlsRole::Server => {
                let (config, _) = self.server.as_ref().ok_or("there is no certificate to show")?;
                let connection = UnbufferedServerConnection::new(Arc::clone(config));
                Ok(Box::new(Shaking::new(connection.map_err(text)?)))
            }
            TlsRole::Client { server_name } => {
                let config = self.client.as_ref().ok_or("there are no certificates to trust")?;
                let name = ServerName::try_from(server_name.clone())
                    .map_err(|error| format!("'{server_name}': {error}"))?;
                let connection = UnbufferedClientConnection::new(Arc::clone(config), name);
                Ok(Box::new(Shaking::new(connection.map_err(text)?)))
            }
            _ => Err("there is no such part in TLS".to_owned()),
        }
    }
}

/// A certificate or a key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsConfigError(String);

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsConfigError {}

fn text(error: rustls::Error) -> String {
    error.to_string()
}

/// Who judges what clients show, if they are asked for it.
fn verifier(
    clients: &ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsConfigError> {
    let (roots, is_required) = match clients {
        ClientCertificates::Unasked => return Ok(None),
        ClientCertificates::Wanted { roots } => (roots, false),
        ClientCertificates::Required { roots } => (roots, true),
    };
    let store = Arc::new(roots_in(roots)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(store, provider);
    if !is_required {
        builder = builder.allow_unauthenticated();
    }
    let built = builder.build().map_err(|error| TlsConfigError(error.to_string()))?;
    Ok(Some(built))
}

/// The cryptography, with the suites of `ciphers` only.
fn provider(ciphers: &[TlsCipher]) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if !ciphers.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| cipher_of(suite.suite()).is_some_and(|own| ciphers.contains(&own)));
    }
    Arc::new(provider)
}

fn versions(versions: &[TlsVersion]) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::Tls13, &rustls::version::TLS13),
        (TlsVersion::Tls12, &rustls::version::TLS12),
    ];
    all.into_iter()
        .filter(|(version, _)| versions.is_empty() || versions.contains(version))
        .map(|(_, version)| version)
        .collect()
}

fn cipher_of(suite: CipherSuite) -> Option<TlsCipher> {
    Some(match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => TlsCipher::Aes128Gcm,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => TlsCipher::Aes256Gcm,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => TlsCipher::ChaCha20Poly1305,
        _ => return None,
    })
}
