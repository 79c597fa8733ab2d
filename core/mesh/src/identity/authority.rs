//! A certificate authority in a directory: made on first start, shared by copying, one secret on disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{read_certificates, unix_now};
use crate::error::Error;

const CERTIFICATE_FILE: &str = "authority.pem";
const KEY_FILE: &str = "authority.key";
const LOCK_FILE: &str = "authority.lock";
/// Replacing an authority means visiting every node: it lives ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// Peers' clocks may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Loads the authority, or makes it when the directory has none. Safe against two nodes that start at once.
    pub(super) fn load_or_create(directory: &Path, trust_domain: &str) -> Result<Self, Error> {
        let file_fault = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::IdentityFile { path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(file_fault(directory))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(file_fault(&lock_path))?;
        lock.lock().map_err(file_fault(&lock_path))?;
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        // The certificate is written last: where it is, the key is whole.
        if !certificate_path.exists() {
            let (certificate, key) = create(trust_domain)?;
            write_secret(&key_path, &key).map_err(file_fault(&key_path))?;
            write_secret(&certificate_path, &certificate).map_err(file_fault(&certificate_path))?;
            File::open(directory).and_then(|file| file.sync_all()).map_err(file_fault(directory))?;
        }
        let certificate = read_certificates(&certificate_path)?.swap_remove(0);
        let key = std::fs::read_to_string(&key_path).map_err(file_fault(&key_path))?;
        let key = KeyPair::from_pem(&key)
            .map_err(|_| Error::IdentityContent { path: key_path, what: "a private key in PEM" })?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Issues a certificate for `id` with a new key.
    pub(super) fn issue(
        &self,
        id: &str,
        lifetime: Duration,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, lifetime);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|text| Error::Tls(text.to_owned()))?;
        Ok((vec![certificate.der().clone()], key))
    }

    #[cfg(test)]
    pub(super) fn write_for_test(&self, certificate_path: &Path, key_path: &Path, id: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a URI"))];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        write_secret(key_path, &key.serialize_pem()).expect("written");
        write_secret(certificate_path, &certificate.pem()).expect("written");
    }
}

/// A new self-signed authority: certificate and key in PEM.
fn create(trust_domain: &str) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Belfry mesh authority of {trust_domain}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, AUTHORITY_LIFETIME);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn set_life(params: &mut CertificateParams, lifetime: Duration) {
    let now = date_time_ymd(1970, 1, 1) + unix_now();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + lifetime;
}

/// Writes a file whole and readable by its owner only, by way of a neighbour, so that a crash leaves no half.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let new_path = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new_path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new_path, path)
}
