//! Handshakes by rustls 0.23. The only file that names one of its types: its
//! next version has another interface.

use super::handshake::{Established, Handshake, KeySchedule, Step, TlsProvider};
use lastbyte::{
    Backend, BackendKind, Facility, Support, TlsCipher, TlsRole, TlsVersion, TrafficKeys,
};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::kernel::KernelConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{
    CipherSuite, ClientConfig, ConnectionTrafficSecrets, ExtractedSecrets, RootCertStore,
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};
use std::fmt;
use std::sync::Arc;

/// What may be agreed on in a handshake.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsTerms {
    /// Protocol versions; all of [`TlsVersion`] if empty.
    pub versions: Vec<TlsVersion>,
    /// Record ciphers; all of [`TlsCipher`] if empty, in the library's order.
    pub ciphers: Vec<TlsCipher>,
    /// Application protocols (RFC 7301), the preferred first; none is
    /// negotiated if empty.
    pub protocols: Vec<Vec<u8>>,
}

impl TlsTerms {
    /// All that the kernel can take over behind `plain` in both directions, and
    /// nothing else: for servers that require kernel TLS.
    ///
    /// Where keys cannot be changed by the kernel, that is TLS 1.2.
    ///
    /// # Errors
    /// If there is nothing of the kind: what is lacking, in a line.
    pub fn in_kernel(plain: &dyn Backend) -> Result<Self, String> {
        let report = plain.report();
        if plain.kind() == BackendKind::Fallback {
            return Err("the fallback backend keeps to what every Unix has".to_owned());
        }
        let needed = [
            Facility::KernelTls,
            Facility::TlsTransmit,
            Facility::TlsReceive,
            Facility::TcpInfo,
            Facility::OutQueue,
        ];
        if let Some(lack) = report
            .capabilities()
            .iter()
            .find(|found| needed.contains(&found.facility) && found.support != Support::Have)
        {
            let line = lack.to_string();
            return Err(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let mut terms = Self { ciphers: vec![TlsCipher::Aes128Gcm], ..Self::default() };
        terms.versions.push(TlsVersion::Tls12);
        if report.has(Facility::TlsRekey) {
            terms.versions.push(TlsVersion::Tls13);
        }
        for (facility, cipher) in [
            (Facility::TlsAes256, TlsCipher::Aes256Gcm),
            (Facility::TlsChaCha20, TlsCipher::ChaCha20Poly1305),
        ] {
            if report.has(facility) {
                terms.ciphers.push(cipher);
            }
        }
        Ok(terms)
    }
}

/// Handshakes by rustls, with the cryptography of AWS-LC.
#[derive(Clone, Debug, Default)]
pub struct Rustls {
    server: Option<Arc<ServerConfig>>,
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
    /// If either cannot be read or they do not belong together.
    pub fn with_server(
        mut self,
        certificates: &[u8],
        key: &[u8],
        terms: &TlsTerms,
    ) -> Result<Self, TlsConfigError> {
        let chain = certificates_in(certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            TlsConfigError(match error {
                rustls::pki_types::pem::Error::NoItemsFound => "there is no private key".to_owned(),
                error => format!("the private key cannot be read: {error}"),
            })
        })?;
        let mut config = ServerConfig::builder_with_provider(provider(&terms.ciphers))
            .with_protocol_versions(&versions(&terms.versions))
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsConfigError(format!("the certificate cannot be used: {error}")))?;
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| TlsConfigError(error.to_string()))?;
        config.alpn_protocols.clone_from(&terms.protocols);
        config.enable_secret_extraction = true;
        self.server = Some(Arc::new(config));
        Ok(self)
    }

    /// The same, and a client that trusts the certificates in this PEM file's
    /// content and what they have signed.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn with_client(mut self, roots: &[u8], terms: &TlsTerms) -> Result<Self, TlsConfigError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates_in(roots)? {
            store.add(certificate).map_err(|error| {
                TlsConfigError(format!("a certificate cannot be trusted: {error}"))
            })?;
        }
        let mut config = ClientConfig::builder_with_provider(provider(&terms.ciphers))
            .with_protocol_versions(&versions(&terms.versions))
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&terms.protocols);
        config.enable_secret_extraction = true;
        self.client = Some(Arc::new(config));
        Ok(self)
    }
}

impl TlsProvider for Rustls {
    fn begin(&self, role: &TlsRole) -> Result<Box<dyn Handshake>, String> {
        let text = |error: rustls::Error| error.to_string();
        match role {
            TlsRole::Server => {
                let config = self.server.as_ref().ok_or("there is no certificate to show")?;
                let connection = UnbufferedServerConnection::new(Arc::clone(config));
                Ok(Box::new(Server(connection.map_err(text)?)))
            }
            TlsRole::Client { server_name } => {
                let config = self.client.as_ref().ok_or("there are no certificates to trust")?;
                let name = ServerName::try_from(server_name.clone())
                    .map_err(|error| format!("'{server_name}': {error}"))?;
                let connection = UnbufferedClientConnection::new(Arc::clone(config), name);
                Ok(Box::new(Client(connection.map_err(text)?)))
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

fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsConfigError(format!("the certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(TlsConfigError("there is no certificate".to_owned()));
    }
    Ok(chain)
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

struct Server(UnbufferedServerConnection);

impl Handshake for Server {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        advance(
            records,
            out,
            self,
            |own, records, out| one_step(own.0.process_tls_records(records), out),
            |own| !own.0.is_handshaking(),
        )
    }

    fn establish(self: Box<Self>) -> Result<Established, String> {
        let (secrets, connection) =
            self.0.dangerous_into_kernel_connection().map_err(|error| error.to_string())?;
        established(secrets, ServerKeys(connection))
    }
}

struct Client(UnbufferedClientConnection);

impl Handshake for Client {
    fn advance(&mut self, records: &mut [u8], out: &mut Vec<u8>) -> Result<Step, String> {
        advance(
            records,
            out,
            self,
            |own, records, out| one_step(own.0.process_tls_records(records), out),
            |own| !own.0.is_handshaking(),
        )
    }

    fn establish(self: Box<Self>) -> Result<Established, String> {
        let (secrets, connection) =
            self.0.dangerous_into_kernel_connection().map_err(|error| error.to_string())?;
        established(secrets, ClientKeys(connection))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What came of one state of the library.
enum Moved {
    /// It goes on with what remains of the input.
    On,
    /// Nothing more comes of this input.
    Blocked,
    Failed(String),
}

/// Lets the library work until it needs more.
fn advance<C>(
    mut records: &mut [u8],
    out: &mut Vec<u8>,
    connection: &mut C,
    step: impl Fn(&mut C, &mut [u8], &mut Vec<u8>) -> (usize, Moved),
    is_done: impl Fn(&C) -> bool,
) -> Result<Step, String> {
    loop {
        let (used, moved) = step(connection, records, out);
        records = &mut records[used..];
        match moved {
            Moved::On => {}
            Moved::Blocked if is_done(connection) => return Ok(Step::Done),
            Moved::Blocked => return Ok(Step::Blocked),
            Moved::Failed(reason) => {
                // The alert that says so is waiting to be encoded, followed by
                // the same error again.
                while let (_, Moved::On) = step(connection, &mut [], out) {}
                return Err(reason);
            }
        }
    }
}

fn one_step<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, Moved) {
    let moved = match status.state {
        Err(error) => Moved::Failed(error.to_string()),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = out.len();
            let mut encoded = data.encode(&mut []);
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                encoded
            {
                out.resize(start + required_size, 0);
                encoded = data.encode(&mut out[start..]);
            }
            match encoded {
                Ok(_) => Moved::On,
                Err(error) => Moved::Failed(error.to_string()),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // The caller sends `out` before it does anything else.
            data.done();
            Moved::On
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Moved::Blocked,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
            Moved::Failed("the peer closed the connection".to_owned())
        }
        // Early data is not offered, and no more than one record is given in,
        // so there is none of these.
        Ok(_) => Moved::Failed("there is data before the end of the handshake".to_owned()),
    };
    (status.discard, moved)
}

fn established<K: Keys + 'static>(
    secrets: ExtractedSecrets,
    schedule: K,
) -> Result<Established, String> {
    let suite = schedule.suite();
    let version = match suite {
        SupportedCipherSuite::Tls12(_) => TlsVersion::Tls12,
        SupportedCipherSuite::Tls13(_) => TlsVersion::Tls13,
    };
    let record_limit = match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    };
    Ok(Established {
        version,
        cipher: cipher_of(suite.suite()).ok_or("the cipher is not known here")?,
        transmit: keys(secrets.tx)?,
        receive: keys(secrets.rx)?,
        record_limit,
        schedule: Box::new(schedule),
    })
}

/// The library's secrets as ours. Its own copies are wiped when dropped.
fn keys((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<TrafficKeys, String> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            Ok(TrafficKeys::new(key.as_ref().to_vec(), iv.as_ref().to_vec(), sequence))
        }
        _ => Err("the cipher is not known here".to_owned()),
    }
}

trait Keys: KeySchedule {
    fn suite(&self) -> SupportedCipherSuite;
}

struct ServerKeys(KernelConnection<ServerConnectionData>);
struct ClientKeys(KernelConnection<ClientConnectionData>);

impl Keys for ServerKeys {
    fn suite(&self) -> SupportedCipherSuite {
        self.0.negotiated_cipher_suite()
    }
}

impl Keys for ClientKeys {
    fn suite(&self) -> SupportedCipherSuite {
        self.0.negotiated_cipher_suite()
    }
}

impl KeySchedule for ServerKeys {
    fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_tx_secret().map_err(|error| error.to_string())?)
    }

    fn next_receive(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_rx_secret().map_err(|error| error.to_string())?)
    }

    fn ticket(&mut self, _: &[u8]) -> Result<(), String> {
        Err("a server takes no tickets".to_owned())
    }
}

impl KeySchedule for ClientKeys {
    fn next_transmit(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_tx_secret().map_err(|error| error.to_string())?)
    }

    fn next_receive(&mut self) -> Result<TrafficKeys, String> {
        keys(self.0.update_rx_secret().map_err(|error| error.to_string())?)
    }

    fn ticket(&mut self, message: &[u8]) -> Result<(), String> {
        self.0.handle_new_session_ticket(message).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerKeys").field(&self.0.negotiated_cipher_suite()).finish()
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientKeys").field(&self.0.negotiated_cipher_suite()).finish()
    }
}
