//! A subscriber: who may register and call.

use std::fmt;

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// A subscriber with what digest authentication needs, and never a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// User part of the address of record.
    pub user: String,
    /// Domain of the address of record, which is the digest realm too.
    pub domain: String,
    /// MD5(user:domain:password) in lower-case hexadecimal.
    pub ha1_md5: String,
    /// SHA-256(user:domain:password) in lower-case hexadecimal.
    pub ha1_sha256: String,
    /// Whether it may register and call.
    pub enabled: bool,
}

impl Subscriber {
    /// A subscriber from a password, which is hashed and forgotten. The realm is the domain.
    #[must_use]
    pub fn new(user: &str, domain: &str, password: &str) -> Self {
        let secret = format!("{user}:{domain}:{password}");
        Self {
            user: user.to_owned(),
            domain: domain.to_owned(),
            ha1_md5: hex::encode(Md5::digest(&secret)),
            ha1_sha256: hex::encode(Sha256::digest(&secret)),
            enabled: true,
        }
    }
}

/// Names nobody and shows no hash.
impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
