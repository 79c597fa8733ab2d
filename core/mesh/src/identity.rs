//! Who this node is and whom it believes: SPIFFE identities in X.509, mutual TLS 1.3, renewal at half-life.
//!
//! Leaf keys that this node issues to itself live in memory only; the one secret on disk is the authority's key.

mod authority;
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::IdentityConfig;
use crate::error::Error;
use crate::handle::Inner;
use crate::signals::HandshakeFailure;

/// The shortest pause between two renewals, whatever the certificate says about its life.
const RENEWAL_MIN: Duration = Duration::from_secs(10);

/// This node's certificate, renewed in place, and the TLS configurations that use it.
pub(crate) struct Identity {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    current: Arc<ArcSwap<CertifiedKey>>,
    source: Source,
}

enum Source {
    /// We issue our own certificates.
    Authority { authority: Box<authority::Authority>, id: String, lifetime: Duration },
    /// Somebody else writes these files.
    Files { config: IdentityConfig },
}

impl Identity {
    pub(crate) fn load(config: &IdentityConfig, trust_domain: &str, node: &str) -> Result<Self, Error> {
        let (source, roots) = match &config.directory {
            Some(directory) => {
                let authority = Box::new(authority::Authority::load_or_create(directory, trust_domain)?);
                let roots = vec![authority.certificate().clone()];
                let id = spiffe_id(trust_domain, node);
                (Source::Authority { authority, id, lifetime: config.lifetime }, roots)
            }
            None => {
                let path = named(config.authority.as_deref())?;
                (Source::Files { config: config.clone() }, read_certificates(path)?)
            }
        };
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| Error::Tls(error.to_string()))?;
        }
        let current = Arc::new(ArcSwap::from_pointee(source.issue()?));
        let (client, server) = tls::configurations(store, &current)?;
        Ok(Self { client, server, current, source })
    }

    fn renew(&self) -> Result<(), Error> {
        self.current.store(Arc::new(self.source.issue()?));
        Ok(())
    }

    /// Half of the present certificate's whole life.
    fn half_life(&self) -> Duration {
        let current = self.current.load();
        let validity = current.cert.first().and_then(|leaf| {
            let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
            let validity = certificate.validity();
            u64::try_from(validity.not_after.timestamp() - validity.not_before.timestamp()).ok()
        });
        Duration::from_secs(validity.unwrap_or(0) / 2).max(RENEWAL_MIN)
    }
}

impl Source {
    fn issue(&self) -> Result<CertifiedKey, Error> {
        let (chain, key) = match self {
            Self::Authority { authority, id, lifetime } => authority.issue(id, *lifetime)?,
            Self::Files { config } => {
                let key_path = named(config.key.as_deref())?;
                let key = PrivateKeyDer::from_pem_file(key_path).map_err(|_| Error::IdentityContent {
                    path: key_path.to_owned(),
                    what: "a private key in PEM",
                })?;
                (read_certificates(named(config.certificate.as_deref())?)?, key)
            }
        };
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| Error::Tls(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| Error::Tls(error.to_string()))?;
        Ok(certified)
    }
}

/// Renews the certificate at half of its life until the mesh drains; a failure keeps the old one and tries again.
pub(crate) async fn keep_fresh(inner: Arc<Inner>, identity: Arc<Identity>) {
    let mut pause = identity.half_life();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = inner.draining.cancelled() => return,
        }
        let renewing = Arc::clone(&identity);
        // Reading files and signing block for a moment: not on a thread that carries calls.
        let renewed = tokio::task::spawn_blocking(move || renewing.renew()).await;
        match renewed {
            Ok(Ok(())) => {
                inner.signals.identity_renewed();
                pause = identity.half_life();
            }
            Ok(Err(error)) => {
                inner.signals.identity_renewal_failed(error.reason());
                pause = (pause / 8).max(RENEWAL_MIN);
            }
            Err(_) => return,
        }
    }
}

/// The SPIFFE ID of a node (SPIFFE-ID section 2).
pub(crate) fn spiffe_id(trust_domain: &str, node: &str) -> String {
    format!("spiffe://{trust_domain}/node/{node}")
}

/// The node name that a peer's verified certificate proves: exactly one URI name (X509-SVID section 2), of our trust domain.
pub(crate) fn peer_name(
    chain: Option<&[CertificateDer<'_>]>,
    trust_domain: &str,
) -> Result<String, HandshakeFailure> {
    let leaf = chain.and_then(<[_]>::first).ok_or(HandshakeFailure::NoIdentity)?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| HandshakeFailure::NoIdentity)?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(HandshakeFailure::NoIdentity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(HandshakeFailure::NoIdentity) };
    let prefix = spiffe_id(trust_domain, "");
    let name = uri.strip_prefix(&prefix).ok_or(HandshakeFailure::NoIdentity)?;
    Ok(name.to_owned())
}

fn named(path: Option<&Path>) -> Result<&Path, Error> {
    path.ok_or_else(|| Error::Config {
        key: "identity".to_owned(),
        fault: "give either directory, or all of certificate, key and authority".to_owned(),
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let content = || Error::IdentityContent { path: path.to_owned(), what: "certificates in PEM" };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|_| content())?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|_| content())?;
    if certificates.is_empty() { Err(content()) } else { Ok(certificates) }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_is_new_and_proves_the_same_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let lifetime = Duration::from_hours(24);
        let config = IdentityConfig {
            directory: Some(directory.path().to_owned()),
            lifetime,
            certificate: None,
            key: None,
            authority: None,
        };
        let identity = Identity::load(&config, "belfry.local", "core-1").expect("made");
        let before = identity.current.load_full();
        identity.renew().expect("renewed");
        let after = identity.current.load_full();
        assert_ne!(before.cert, after.cert);
        assert_eq!(peer_name(Some(&after.cert), "belfry.local").ok().as_deref(), Some("core-1"));
        assert_eq!(peer_name(Some(&after.cert), "other.local"), Err(HandshakeFailure::NoIdentity));
        let half_life = identity.half_life();
        assert!(
            half_life >= lifetime / 2 && half_life < lifetime / 2 + Duration::from_mins(5),
            "{half_life:?}"
        );

        // Files that somebody else wrote work the same, and missing ones keep the old certificate.
        let (certificate, key) = (directory.path().join("node.pem"), directory.path().join("node.key"));
        let authority =
            authority::Authority::load_or_create(directory.path(), "belfry.local").expect("loaded");
        authority.write_for_test(&certificate, &key, "spiffe://belfry.local/node/edge-7");
        let config = IdentityConfig {
            directory: None,
            lifetime,
            certificate: Some(certificate.clone()),
            key: Some(key),
            authority: Some(directory.path().join("authority.pem")),
        };
        let identity = Identity::load(&config, "belfry.local", "edge-7").expect("loaded");
        std::fs::remove_file(certificate).expect("it was there");
        assert_eq!(identity.renew().err().map(|error| error.reason()), Some("identity_content"));
        let current = identity.current.load_full();
        assert_eq!(peer_name(Some(&current.cert), "belfry.local").ok().as_deref(), Some("edge-7"));
    }
}
