//! Certificates by server name: configured ones, or one of a local CA that is made on first start.
//!
//! What is in use is one snapshot behind a swap: a reload reaches the next handshake and no open connection.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{CertificateConfig, Config, TlsConfig};
use crate::error::Error;
use crate::files;
use crate::signals::Signals;

/// A certificate of the local CA is made anew at every start and reload, so it may be short-lived.
const LEAF_LIFE: Duration = Duration::from_secs(397 * 86_400);
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);
/// Clocks of phones are wrong: what is made now is valid a while before now.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// Names of a client's certificate that are passed on.
const PROVEN_NAMES_MAX: usize = 8;

/// The file that clients must trust when the local CA is used.
pub(crate) const AUTHORITY_FILE: &str = "ca.pem";
const AUTHORITY_KEY_FILE: &str = "ca.key";

/// Answers handshakes with the right certificate.
#[derive(Debug)]
pub(crate) struct Certificates {
    current: ArcSwap<Snapshot>,
}

/// All certificates of one configuration.
#[derive(Debug)]
pub(crate) struct Snapshot {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// By the part after `*.`.
    by_wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
    count: usize,
}

impl Certificates {
    pub(crate) fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(snapshot) })
    }

    /// Takes effect with the next handshake.
    pub(crate) fn swap(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().find(hello.server_name()))
    }
}

impl Snapshot {
    /// Reads or makes the certificates of a configuration.
    ///
    /// # Errors
    /// When a file is missing or is not a certificate and its key; the caller keeps what it had.
    pub(crate) fn load(config: &Config, signals: &Signals) -> Result<Self, Error> {
        let keys = if config.tls.certificates.is_empty() {
            vec![issue(&config.tls, certificate_names(config), signals)?]
        } else {
            config.tls.certificates.iter().map(read).collect::<Result<_, _>>()?
        };
        let snapshot = Self::of(keys)?;
        signals.certificates_loaded(snapshot.count);
        Ok(snapshot)
    }

    /// The first serves those who ask for no name, or for one that nobody has.
    fn of(keys: Vec<CertifiedKey>) -> Result<Self, Error> {
        let keys: Vec<Arc<CertifiedKey>> = keys.into_iter().map(Arc::new).collect();
        let none =
            || Error::Config { key: "tls.certificates".to_owned(), problem: "no certificate".to_owned() };
        let default = Arc::clone(keys.first().ok_or_else(none)?);
        let mut snapshot = Self { by_name: HashMap::new(), by_wildcard: HashMap::new(), default, count: 0 };
        for key in &keys {
            snapshot.add(key);
        }
        Ok(snapshot)
    }

    fn add(&mut self, key: &Arc<CertifiedKey>) {
        self.count += 1;
        for name in names_in(key) {
            let (map, name) = match name.strip_prefix("*.") {
                Some(domain) => (&mut self.by_wildcard, domain.to_owned()),
                None => (&mut self.by_name, name),
            };
            map.entry(name).or_insert_with(|| Arc::clone(key));
        }
    }

    fn find(&self, server_name: Option<&str>) -> Arc<CertifiedKey> {
        let name = server_name.unwrap_or_default().to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, domain)| self.by_wildcard.get(domain));
        let found = self.by_name.get(&name).or_else(wildcard);
        Arc::clone(found.unwrap_or(&self.default))
    }
}

/// The TLS settings of a listener: TLS 1.2 and 1.3, tickets, and a cache for those who resume by id. With a verifier,
/// clients are asked for a certificate and need not have one.
///
/// # Errors
/// When rustls refuses them.
pub(crate) fn server_config(
    certificates: &Arc<Certificates>,
    protocols: &[&[u8]],
    sessions_max: usize,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, Error> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(certificates);
    let clients = clients.unwrap_or_else(|| Arc::new(NoClientAuth));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = ServerSessionMemoryCache::new(sessions_max);
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Verifies certificates of SIP peers that connect to us, against the configured CAs; none when there are none. Only
/// SIP listeners ask, because browsers would ask their users.
///
/// # Errors
/// When a configured CA file cannot be read.
pub(crate) fn client_verifier(config: &TlsConfig) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    let Some(first) = config.peer_ca_files.first() else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for path in &config.peer_ca_files {
        for certificate in read_chain(path)? {
            roots.add(certificate).map_err(|error| bad(path, &error.to_string()))?;
        }
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = builder.allow_unauthenticated().build();
    verifier.map(|verifier| Some(verifier as _)).map_err(|error| bad(first, &error.to_string()))
}

/// The DNS names that a verified certificate proves, in lower case.
pub(crate) fn proven_names(chain: &[CertificateDer<'_>]) -> Vec<String> {
    let Some(leaf) = chain.first() else { return Vec::new() };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.take(PROVEN_NAMES_MAX).collect()
}

/// The TLS settings for connections that the edge opens to SIP peers: it trusts the local CA and configured ones.
///
/// # Errors
/// When a configured CA file cannot be read.
pub(crate) fn client_config(config: &TlsConfig) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let own = config.directory.join(AUTHORITY_FILE);
    let own = own.exists().then_some(own);
    for path in config.peer_ca_files.iter().chain(own.as_ref()) {
        for certificate in read_chain(path)? {
            roots.add(certificate).map_err(|error| bad(path, &error.to_string()))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Every name that customers may use for this edge.
fn certificate_names(config: &Config) -> BTreeSet<String> {
    let hosts = config.listeners.iter().filter_map(|listener| listener.public_host.as_deref());
    let addresses = config.listeners.iter().map(|listener| listener.address.ip());
    let addresses = addresses.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .chain(hosts)
        .chain(config.tls.names.iter().map(String::as_str))
        .map(|name| name.trim_matches(['[', ']']).to_owned())
        .chain(addresses)
        .collect()
}

/// A fresh certificate from the local CA, whose key never leaves memory.
fn issue(config: &TlsConfig, names: BTreeSet<String>, signals: &Signals) -> Result<CertifiedKey, Error> {
    let (authority_pem, authority_key) = authority(&config.directory, signals)?;
    let issuer = Issuer::from_ca_cert_pem(&authority_pem, authority_key)?;
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "Belfry edge");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + LEAF_LIFE).into();
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    let chain = vec![leaf.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

/// The local CA from its directory, or a new one.
fn authority(directory: &Path, signals: &Signals) -> Result<(String, KeyPair), Error> {
    let (pem_path, key_path) = (directory.join(AUTHORITY_FILE), directory.join(AUTHORITY_KEY_FILE));
    if pem_path.exists() && key_path.exists() {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })
        };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|error| bad(&key_path, &error.to_string()))?;
        return Ok((read(&pem_path)?, key));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Belfry local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    // The key first: a certificate without its key would be trusted and useless.
    files::write_secret(&key_path, key.serialize_pem().as_bytes())?;
    files::write_public(&pem_path, pem.as_bytes())?;
    signals.authority_created(&pem_path);
    Ok((pem, key))
}

/// A configured chain and key, which must belong together.
fn read(config: &CertificateConfig) -> Result<CertifiedKey, Error> {
    let chain = read_chain(&config.chain_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .map_err(|error| bad(&config.key_file, &error.to_string()))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        bad(&config.chain_file, &format!("does not fit {}: {error}", config.key_file.display()))
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let problem = |error: &dyn std::fmt::Display| bad(path, &error.to_string());
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(|error| problem(&error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| problem(&error))?;
    if chain.is_empty() { Err(bad(path, "holds no certificate")) } else { Ok(chain) }
}

fn bad(path: &Path, problem: &str) -> Error {
    Error::Certificate { path: path.to_owned(), problem: problem.to_owned() }
}

/// The names in the leaf's subject alternative names, in lower case.
fn names_in(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests;
