//! Trust for simulated customers: the authority of the site under test and nobody else.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::Error;

/// Whom a customer trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// Trusts the authorities in this PEM text.
    ///
    /// # Errors
    /// When there is no usable certificate in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::Tls(format!("{error:?}")))?;
            roots.add(certificate).map_err(|error| Error::Tls(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(Error::Tls("no certificate in the authority's PEM text".to_owned()));
        }
        Ok(Self { roots: Arc::new(roots) })
    }
}

/// A TLS client that trusts these authorities and offers these application protocols, best first.
///
/// # Errors
/// When the cryptography provider lacks the default protocol versions.
pub fn client_config(trust: &Trust, protocols: &[&str]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_root_certificates(Arc::clone(&trust.roots))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
