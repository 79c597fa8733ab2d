//! Making the catalogue again from the splits' own footers, when it is missing or damaged.
//!
//! A split's footer says all that its row said. What only the catalogue knew is which splits count: one that is merged
//! into another does not, of several tries at one thing the last does, and the last publication counts only if all splits
//! of it are there, damaged or not. What does not count is in the log, or in another split, and its file is set aside.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::bundle::read_footer;
use crate::catalogue::{Catalogue, Contents, SplitRow};
use crate::error::Error;
use crate::signals::Signals;
use crate::store::{SPLIT_EXTENSION, file_name, sync_directory};

/// Where splits go whose footers cannot be read or that do not count, for a person to look at.
const ASIDE: &str = "damaged";

/// Makes a new catalogue of the splits that are there. It gets its name only when it is whole: a crash meanwhile
/// leaves the start of before.
pub(crate) fn rebuild(directory: &Path, catalogue: &Path, signals: &Signals) -> Result<(), Error> {
    let splits = directory.join("splits");
    let (rows, damaged) = read_rows(&splits)?;
    let mut damaged_ids: HashSet<u64> = damaged.iter().filter_map(|path| id_of(path)).collect();
    // None yet is none.
    let earlier = fs::read_dir(directory.join(ASIDE)).into_iter().flatten().flatten();
    damaged_ids.extend(earlier.filter_map(|entry| id_of(&entry.path())));
    let found: Vec<SplitRow> = rows.clone();
    let rows = what_counts(rows, &damaged_ids);
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
    // What was merged into a split that counts is there twice and may go; anything else a person may want.
    let counted: HashSet<u64> =
        rows.iter().flat_map(|row| row.replaces.iter().copied().chain([row.id])).collect();
    for row in found.iter().filter(|row| !counted.contains(&row.id)) {
        set_aside(directory, &splits.join(file_name(row.id)))?;
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

/// Leaves out what is merged into another, all but the last try at one thing, and a publication that is not whole.
///
/// A write of the catalogue that failed leaves the splits of one try, or of several: later ones have higher numbers.
/// `damaged` are splits that are there but cannot be read.
fn what_counts(mut rows: Vec<SplitRow>, damaged: &HashSet<u64>) -> Vec<SplitRow> {
    rows.sort_unstable_by_key(|row| row.id);
    let last = rows.iter().map(|row| row.position).max().unwrap_or_default();
    let mut known: HashSet<u64> = rows.iter().map(|row| row.id).chain(damaged.iter().copied()).collect();
    known.extend(rows.iter().flat_map(|row| &row.replaces));
    // From the last to the first: what is in a later one counts there, and of two that have a part in common one does.
    let mut covered: HashSet<u64> = HashSet::new();
    let mut is_covered = |row: &SplitRow| {
        if covered.contains(&row.id) || row.replaces.iter().any(|id| covered.contains(id)) {
            return true;
        }
        covered.extend(&row.replaces);
        false
    };
    let mut counted: Vec<SplitRow> = rows.into_iter().rev().filter(|row| !is_covered(row)).collect();
    counted.reverse();
    let is_whole = |row: &SplitRow| row.published_with.iter().all(|id| known.contains(id));
    // Of the tries at one publication the last whole one; of what retention took a part of, the last.
    let mut tries: HashMap<u64, (bool, Vec<u64>)> = HashMap::new();
    for row in counted.iter().filter(|row| row.replaces.is_empty()) {
        let own = (is_whole(row), row.published_with.clone());
        let best = tries.entry(row.position).or_insert_with(|| own.clone());
        if own > *best {
            *best = own;
        }
    }
    counted.retain(|row| {
        let Some((is_whole, ids)) = tries.get(&row.position).filter(|_| row.replaces.is_empty()) else {
            return true;
        };
        *ids == row.published_with && (*is_whole || row.position != last)
    });
    counted
}

/// The number that a file's name says.
fn id_of(path: &Path) -> Option<u64> {
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
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
            let ids: Vec<u64> = what_counts(rows, &HashSet::from([77])).iter().map(|row| row.id).collect();
            assert_eq!(ids, expected);
        };
        check(vec![], &[]);
        check(vec![row(1, 5, &[1, 2], &[]), row(2, 5, &[1, 2], &[])], &[1, 2]);
        check(vec![row(1, 5, &[1, 2], &[]), row(3, 9, &[3, 4], &[])], &[1]);
        check(vec![row(1, 5, &[1], &[]), row(2, 6, &[2], &[]), row(3, 6, &[], &[1, 2])], &[3]);
        // Retention took a part of an earlier publication.
        check(vec![row(1, 5, &[1, 2], &[]), row(3, 9, &[3], &[])], &[1, 3]);
        // Several tries at one publication; the last is not whole; an earlier one of which a part is gone.
        check(vec![row(1, 5, &[1, 2], &[]), row(2, 5, &[1, 2], &[]), row(3, 5, &[3], &[])], &[3]);
        check(vec![row(1, 5, &[1], &[]), row(2, 5, &[2, 3], &[])], &[1]);
        check(vec![row(1, 5, &[1], &[]), row(2, 5, &[2], &[]), row(4, 9, &[4], &[])], &[2, 4]);
        // Several tries at one merge, and at two that have a part in common.
        check(vec![row(1, 5, &[1], &[]), row(3, 6, &[], &[1, 2]), row(4, 6, &[], &[1, 2])], &[4]);
        check(
            vec![
                row(1, 5, &[1], &[]),
                row(2, 6, &[2], &[]),
                row(4, 6, &[], &[1, 2]),
                row(5, 7, &[], &[1, 3]),
            ],
            &[2, 5],
        );
        // A sibling that cannot be read makes a publication no less whole.
        check(vec![row(1, 5, &[1, 77], &[])], &[1]);
    }
}
