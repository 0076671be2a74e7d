//! Who the suite's servers are.

use std::sync::LazyLock;

/// A certificate that signs itself, and its key, as PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The name in it.
pub(crate) const NAME: &str = "localhost";

/// Made anew by each process; nobody else ever trusts it.
pub(crate) static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])
        .expect("a name and a fresh key make a certificate");
    Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
});
