//! Secrets on disk: written whole or not at all, readable by nobody else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::Error;

/// Writes a file with mode 0600, making its directory.
///
/// # Errors
/// With the path, when anything about it fails.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> Result<(), Error> {
    write(path, content, 0o600)
}

/// Writes a file that everybody may read, making its directory.
///
/// # Errors
/// With the path, when anything about it fails.
pub(crate) fn write_public(path: &Path, content: &[u8]) -> Result<(), Error> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let file_error = |source: io::Error| Error::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(file_error)?;
    }
    // A crash between the two steps leaves the old file, or none, never half of one.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let write_all = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write_all().map_err(file_error)
}
