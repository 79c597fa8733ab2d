//! The secrets that open a door: a file with a token on each line, so that one can be replaced while both are good.
//!
//! We keep hashes: their comparison takes the same time whatever was sent, its length included.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// More than any token file needs.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Tokens that are good at once.
const TOKENS_MAX: usize = 16;
/// A token of fewer characters could be guessed.
const TOKEN_CHARS_MIN: usize = 16;
/// Others than owner and group may not read.
const WORLD: u32 = 0o007;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(
        "cannot read the token file {path}: {source}; make one with: openssl rand -hex 32 > {path} && chmod 600 {path}"
    )]
    Unreadable {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Everybody on the machine can read it.
    #[error(
        "the token file {path} has mode {mode:03o}, so that everybody on this machine may use it: chmod 600 {path}"
    )]
    Exposed {
        /// Which.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// A line is not a token.
    #[error("{path}:{line}: {message}")]
    Line {
        /// Which.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// No line has a token, or too many have.
    #[error("the token file {path} holds {tokens} tokens; allowed are 1 to {TOKENS_MAX}, one on a line")]
    Count {
        /// Which.
        path: String,
        /// How many there are.
        tokens: usize,
    },
}

/// Tokens of a file, in force until the file is read again.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    hashes: ArcSwap<Vec<Hash>>,
}

#[derive(Clone, Copy)]
struct Hash([u8; 32]);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash([secret])")
    }
}

impl Tokens {
    /// The tokens of this file.
    ///
    /// # Errors
    /// When it cannot be read, everybody may read it, or it does not hold tokens.
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        let hashes = hashes(&Self::read(path)?);
        Ok(Self { path: path.to_owned(), hashes: ArcSwap::new(Arc::new(hashes)) })
    }

    /// The tokens as they stand in a file, for whoever shows one to a door.
    ///
    /// # Errors
    /// When it cannot be read, everybody may read it, or it does not hold tokens.
    pub fn read(path: &Path) -> Result<Vec<String>, TokenError> {
        let name = || path.display().to_string();
        let unreadable = |source| TokenError::Unreadable { path: name(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & WORLD != 0 {
            return Err(TokenError::Exposed { path: name(), mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let token = line.trim();
            if token.is_empty() || token.starts_with('#') {
                continue;
            }
            if let Some(message) = unfit(token) {
                return Err(TokenError::Line { path: name(), line: number + 1, message });
            }
            tokens.push(token.to_owned());
        }
        match tokens.len() {
            1..=TOKENS_MAX => Ok(tokens),
            tokens => Err(TokenError::Count { path: name(), tokens }),
        }
    }

    /// Reads the file again; when it cannot be used, the old tokens stay in force. Returns how many there are.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reread(&self) -> Result<usize, TokenError> {
        let hashes = hashes(&Self::read(&self.path)?);
        let count = hashes.len();
        self.hashes.store(Arc::new(hashes));
        Ok(count)
    }

    /// Whether this is one of them. It takes the same time whatever it is.
    #[must_use]
    pub fn has(&self, token: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(token).into();
        let found = self
            .hashes
            .load()
            .iter()
            .fold(Choice::from(0), |found, Hash(hash)| found | hash.as_slice().ct_eq(shown.as_slice()));
        found.into()
    }
}

fn hashes(tokens: &[String]) -> Vec<Hash> {
    tokens.iter().map(|token| Hash(Sha256::digest(token.as_bytes()).into())).collect()
}

fn unfit(token: &str) -> Option<String> {
    let chars = token.chars().count();
    if chars < TOKEN_CHARS_MIN {
        return Some(format!("a token of {chars} characters can be guessed; use {TOKEN_CHARS_MIN} or more"));
    }
    let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_sendable).then(|| "a token has visible ASCII characters only, without blanks".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.token");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        (folder, path)
    }

    #[test]
    fn every_token_of_the_file_is_good_until_it_is_read_again() {
        let (_folder, path) =
            file("# two, while clients change over\nold-token-old-token\n\nnew-token-new-token\n", 0o640);
        let tokens = Tokens::open(&path).expect("good");
        for (token, is_good) in [
            ("old-token-old-token", true),
            ("new-token-new-token", true),
            ("old-token-old-toke", false),
            ("old-token-old-tokenx", false),
            ("", false),
        ] {
            assert_eq!(tokens.has(token.as_bytes()), is_good, "{token:?}");
        }
        fs::write(&path, "short").expect("written");
        assert!(tokens.reread().is_err());
        assert!(tokens.has(b"old-token-old-token"), "a bad file changes nothing");
        fs::write(&path, "new-token-new-token\n").expect("written");
        assert_eq!(tokens.reread().expect("good"), 1);
        assert!(!tokens.has(b"old-token-old-token"));
        assert!(!format!("{tokens:?}").contains("new-token"));
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        let check = |text: &str, mode: u32, word: &str| {
            let (_folder, path) = file(text, mode);
            let error = Tokens::read(&path).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        };
        check("a-token-that-is-fine\n", 0o644, "chmod 600");
        check("a-token-that-is-fine\n", 0o602, "mode 602");
        check("a-token-that-is-fine\nshort\n", 0o600, "api.token:2: a token of 5 characters");
        check("a token with blanks in it\n", 0o600, "without blanks");
        check("\n# nothing\n", 0o600, "holds 0 tokens");
        check(&"a-token-that-is-fine\n".repeat(17), 0o600, "holds 17 tokens");
        let error = Tokens::read(Path::new("/nowhere/api.token")).expect_err("missing").to_string();
        assert!(error.contains("openssl rand"), "{error}");
    }
}
