//! Which transports there are here, and how a server gets one.

use super::server::{Config, Transport};
use lastbyte::{Backend, BackendKind, Facility, OffloadWish, Report, Support};
use lastbyte_backends::tls::{Rustls, TlsBackend, TlsOptions, TlsTerms};
use std::io;
use std::sync::Arc;

/// `plain`, or TLS over it as the configuration says. The error is a line for
/// people.
///
/// # Errors
/// If the certificate cannot be used.
pub fn over(plain: Arc<dyn Backend>, config: &Config) -> Result<Arc<dyn Backend>, String> {
    let Some(credentials) = config.credentials.as_ref() else {
        return match config.transport {
            Transport::Plain => Ok(plain),
            _ => Err("TLS needs a certificate".to_owned()),
        };
    };
    let (mut terms, mut options) = (TlsTerms::default(), TlsOptions::default());
    if config.transport == Transport::KernelTls {
        // Whatever is measured under its name is that: TLS 1.2 where the kernel cannot
        // change keys.
        terms = TlsTerms::in_kernel(&*plain).map_err(|why| format!("kernel-tls: {why}"))?;
        options.offload = OffloadWish::Require;
    }
    let provider = Rustls::new()
        .with_server(credentials.certificate.as_bytes(), credentials.key.as_bytes(), &terms)
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(TlsBackend::new(plain, Arc::new(provider), options)))
}

/// Why `transport` cannot be had here; `None` if it can.
#[must_use]
pub fn lacking(transport: Transport, report: &Report) -> Option<String> {
    if transport != Transport::KernelTls {
        return None;
    }
    let needed = [Facility::KernelTls, Facility::TlsTransmit, Facility::TlsReceive];
    match report.support(needed.into_iter().find(|&facility| !report.has(facility))?) {
        Support::Lack { errno, what } => {
            let answer = errno.map(|errno| format!(": {}", io::Error::from_raw_os_error(errno)));
            Some(format!("kernel-tls: {what}{}", answer.unwrap_or_default()))
        }
        _ => Some("kernel-tls: disabled".to_owned()),
    }
}

/// Those of `wanted` that there are here, all if none is named, and a line for
/// each that there is not.
///
/// # Errors
/// If none is left.
pub fn choose(
    wanted: &[Transport],
    report: &Report,
) -> Result<(Vec<Transport>, Vec<String>), String> {
    let wanted = if wanted.is_empty() { &Transport::ALL[..] } else { wanted };
    let (mut chosen, mut lacks) = (Vec::new(), Vec::new());
    for transport in wanted {
        match lacking(*transport, report) {
            Some(line) => lacks.push(line),
            None if chosen.contains(transport) => {}
            None => chosen.push(*transport),
        }
    }
    match (chosen.is_empty(), lacks.first()) {
        (true, Some(line)) => Err(line.clone()),
        _ => Ok((chosen, lacks)),
    }
}

/// Those of `chosen` that `backend` has, and a note for one that it has not.
#[must_use]
pub fn of(backend: &str, chosen: &[Transport], notes: &mut Vec<String>) -> Vec<Transport> {
    let mut all = chosen.to_vec();
    if backend == BackendKind::Fallback.name() && chosen.contains(&Transport::KernelTls) {
        all.retain(|transport| *transport != Transport::KernelTls);
        notes.push(format!("kernel-tls: {backend} makes portable calls only"));
    }
    all
}

/// Whether that backend can send without copying here.
#[must_use]
pub fn lends(backend: &str, report: &Report) -> bool {
    let facilities = [Facility::ZeroCopy, Facility::Sendfile];
    backend != BackendKind::Fallback.name() && facilities.iter().any(|one| report.has(*one))
}
