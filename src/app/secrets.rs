//! Secrets of the site, made on first start: files that only the owner may read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

/// Reads 32 secret bytes, or makes them.
///
/// # Errors
/// When the file cannot be read or made, or does not hold 32 bytes.
pub fn key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let context = || format!("read the key {}", path.display());
    match std::fs::File::open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).with_context(context)?;
            let length = bytes.len();
            match bytes.try_into() {
                Ok(key) => Ok(key),
                Err(_) => bail!(
                    "{} holds {length} bytes and not 32; restore it, or remove it to get a new one",
                    path.display()
                ),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        Err(error) => Err(error).with_context(context),
    }
}

fn make(path: &Path) -> anyhow::Result<[u8; 32]> {
    let context = || format!("make the key {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(context)?;
    }
    let key: [u8; 32] = rand::random();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(context)?;
    file.write_all(&key).and_then(|()| file.sync_all()).with_context(context)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets/trace.key");
        let first = key(&path).expect("made");
        assert_eq!(key(&path).expect("read"), first);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace.key");
        std::fs::write(&path, b"short").expect("written");
        let error = key(&path).expect_err("refused");
        assert!(error.to_string().contains("holds 5 bytes"), "{error}");
    }
}
