//! What a handshake may lead to.

use lastbyte::{Backend, BackendKind, Facility, Support, TlsCipher, TlsVersion};

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
    /// What a server asks its clients to show.
    pub clients: ClientCertificates,
}

/// Whether clients have to show a certificate (RFC 8446, section 4.3.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    Unasked,
    /// They are asked, and may have none. One that is not signed by `roots` ends
    /// the handshake all the same.
    Wanted {
        /// Certificates to be trusted, and with them what they have signed: the
        /// content of a PEM file.
        roots: Vec<u8>,
    },
    /// Who has none that is signed by `roots` is turned away.
    Required {
        /// As above.
        roots: Vec<u8>,
    },
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
