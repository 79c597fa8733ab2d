//! Making the catalogue again from the splits' own footers, when it is missing or damaged.
//!
//! A split's footer says all that its row said. What only the catalogue knew is which splits count: one that is merged
//! into another does not, and the last publication counts only if all splits of it are there. What does not count is
//! in the log, or in the split that replaced it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::bundle::read_footer;
use crate::catalogue::{Catalogue, Contents, SplitRow};
use crate::error::Error;
use crate::signals::Signals;
use crate::store::{SPLIT_EXTENSION, sync_directory};

/// Where splits go whose footers cannot be read, for a person to look at.
const ASIDE: &str = "damaged";

/// Makes a new catalogue of the splits that are there. It gets its name only when it is whole: a crash meanwhile
/// leaves the start of before.
pub(crate) fn rebuild(directory: &Path, catalogue: &Path, signals: &Signals) -> Result<(), Error> {
    let splits = directory.join("splits");
    let (rows, damaged) = read_rows(&splits)?;
    let rows = what_counts(rows);
    let partial = catalogue.with_extension("partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::disk("remove", &partial, error));
        }
        _ => {}
    }
    let position = rows.iter().map(|row| row.position).max().unwrap_or_default();
    let sequence_next = rows.iter().map(|row| row.sequence_next).max().unwrap_or_default();
    {
        let (new, Contents { .. }) = Catalogue::open(&partial)?;
        new.publish(&rows.iter().collect::<Vec<_>>(), position, sequence_next)?;
    }
    // Set aside only now: until here, a crash left everything where it was.
    for path in &damaged {
        set_aside(directory, path)?;
    }
    fs::rename(&partial, catalogue).map_err(|source| Error::disk("rename", &partial, source))?;
    sync_directory(directory)?;
    let records = rows.iter().map(|row| row.records).sum();
    signals.catalogue_rebuilt(rows.len(), records, damaged.len());
    Ok(())
}

/// The rows of all splits that can be read, and the files of those that cannot.
fn read_rows(splits: &Path) -> Result<(Vec<SplitRow>, Vec<PathBuf>), Error> {
    let failed = |source| Error::disk("list", splits, source);
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(splits).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != SPLIT_EXTENSION) {
            continue;
        }
        let read = File::open(&path).and_then(|file| read_footer(&file));
        match read {
            Ok(footer) => rows.push(footer.row),
            Err(_) => damaged.push(path),
        }
    }
    Ok((rows, damaged))
}

/// Leaves out what is merged into another, and a publication that is not whole.
fn what_counts(mut rows: Vec<SplitRow>) -> Vec<SplitRow> {
    let replaced: HashSet<u64> = rows.iter().flat_map(|row| row.replaces.iter().copied()).collect();
    let known: HashSet<u64> = rows.iter().map(|row| row.id).chain(replaced.iter().copied()).collect();
    let last = rows.iter().map(|row| row.position).max().unwrap_or_default();
    rows.retain(|row| !replaced.contains(&row.id));
    let is_torn = |row: &SplitRow| {
        row.position == last && row.level == 0 && row.published_with.iter().any(|id| !known.contains(id))
    };
    rows.retain(|row| !is_torn(row));
    rows
}

/// Moves a file into a directory of its own beside the splits. Nothing is deleted.
fn set_aside(directory: &Path, path: &Path) -> Result<(), Error> {
    let aside = directory.join(ASIDE);
    fs::create_dir_all(&aside).map_err(|source| Error::disk("create", &aside, source))?;
    let target = aside.join(path.file_name().unwrap_or_default());
    fs::rename(path, &target).map_err(|source| Error::disk("set aside", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Stream;

    fn row(id: u64, position: u64, published_with: &[u64], replaces: &[u64]) -> SplitRow {
        SplitRow {
            level: u32::from(!replaces.is_empty()),
            published_with: published_with.to_vec(),
            replaces: replaces.to_vec(),
            ..SplitRow::new(id, Stream::Calls, position, position)
        }
    }

    #[test]
    fn merged_parts_and_torn_publications_do_not_count() {
        let check = |rows: Vec<SplitRow>, expected: &[u64]| {
            let ids: Vec<u64> = what_counts(rows).iter().map(|row| row.id).collect();
            assert_eq!(ids, expected);
        };
        check(vec![], &[]);
        check(vec![row(1, 5, &[1, 2], &[]), row(2, 5, &[1, 2], &[])], &[1, 2]);
        check(vec![row(1, 5, &[1, 2], &[]), row(3, 9, &[3, 4], &[])], &[1]);
        check(vec![row(1, 5, &[1], &[]), row(2, 6, &[2], &[]), row(3, 6, &[], &[1, 2])], &[3]);
        // Retention took a part of an earlier publication.
        check(vec![row(1, 5, &[1, 2], &[]), row(3, 9, &[3], &[])], &[1, 3]);
    }
}
