//! Which blocks to compact into one, next.
//!
//! Windows nest: those of one level are three of the level below. A block belongs to the smallest window that it lies in.
//! When a window is over, its blocks become one; blocks of samples that came late join it when they are many, so that a
//! trickle of them does not have months written anew every two hours.

use crate::block::Meta;

/// Each level's window is this many of the level below.
const WINDOWS_PER_LEVEL: i64 = 3;
/// Sealed pieces of the present window that are merged before it is over.
const PIECES_MAX: usize = 8;
/// Late blocks that a compacted one takes in at once, or so large a part of it.
const LATE_BLOCKS: usize = 4;
const LATE_SHARE: u64 = 20;

/// Blocks that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) ids: Vec<u64>,
    pub(crate) level: u8,
}

/// Lengths of the windows by level, in milliseconds.
pub(crate) fn windows(first_ms: i64, longest_ms: i64) -> Vec<i64> {
    let next = |window: &i64| window.checked_mul(WINDOWS_PER_LEVEL).filter(|next| *next <= longest_ms);
    std::iter::successors(Some(first_ms), next).collect()
}

/// What to compact next, oldest and smallest first; none when all is as it should be.
pub(crate) fn next(metas: &[Meta], windows: &[i64], newest_ms: i64) -> Option<Plan> {
    for (level, window_ms) in (0_u8..).zip(windows) {
        let mut groups: std::collections::BTreeMap<i64, Vec<&Meta>> = std::collections::BTreeMap::new();
        for meta in metas {
            let first = meta.min_ms.div_euclid(*window_ms);
            if first == meta.max_ms.div_euclid(*window_ms) {
                groups.entry(first).or_default().push(meta);
            }
        }
        for (window, group) in groups {
            let is_over = newest_ms.div_euclid(*window_ms) > window;
            if is_wanted(&group, level, is_over) {
                let ids = group.iter().map(|meta| meta.id).collect();
                // What is merged before its time is over is still a piece.
                return Some(Plan { ids, level: if is_over { level + 1 } else { 0 } });
            }
        }
    }
    None
}

fn is_wanted(group: &[&Meta], level: u8, is_over: bool) -> bool {
    let pieces = group.iter().filter(|meta| meta.level == 0).count();
    if !is_over {
        return level == 0 && pieces >= PIECES_MAX;
    }
    let Some(done) = group.iter().filter(|meta| meta.level > level).max_by_key(|meta| meta.bytes) else {
        return pieces > 0 || group.len() > 1;
    };
    let others = group.iter().filter(|meta| meta.id != done.id);
    let late_bytes: u64 = others.map(|meta| meta.bytes).sum();
    let late = group.len() - 1;
    late > 0 && (late >= LATE_BLOCKS || late_bytes.saturating_mul(LATE_SHARE) >= done.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: u64, level: u8, min_ms: i64, max_ms: i64, bytes: u64) -> Meta {
        Meta { id, first_id: id, level, min_ms, max_ms, series: 1, samples: 1, bytes, checkpoint: 0 }
    }

    #[test]
    fn windows_are_compacted_when_they_are_over() {
        let windows = windows(100, 1000);
        assert_eq!(windows, [100, 300, 900]);
        let check = |metas: &[Meta], newest_ms: i64, expected: Option<(&[u64], u8)>| {
            let expected = expected.map(|(ids, level)| Plan { ids: ids.to_vec(), level });
            assert_eq!(next(metas, &windows, newest_ms), expected);
        };
        let piece = meta(1, 0, 0, 99, 50);
        check(std::slice::from_ref(&piece), 99, None);
        check(std::slice::from_ref(&piece), 100, Some((&[1], 1)));
        check(&[meta(1, 1, 0, 99, 50)], 100, None);
        check(&[meta(1, 1, 0, 99, 50), meta(2, 0, 50, 60, 1)], 100, None);
        check(&[meta(1, 1, 0, 99, 50), meta(2, 0, 50, 60, 5)], 100, Some((&[1, 2], 1)));
        check(&[meta(1, 1, 0, 99, 50), meta(2, 1, 100, 199, 50)], 299, None);
        check(&[meta(1, 1, 0, 99, 50), meta(2, 1, 100, 199, 50)], 300, Some((&[1, 2], 2)));
        check(&[meta(3, 2, 0, 199, 100)], 2000, None);
        // Many pieces of the present window.
        let pieces: Vec<Meta> = (1..=8).map(|id| meta(id, 0, 0, 50, 5)).collect();
        check(&pieces, 60, Some((&[1, 2, 3, 4, 5, 6, 7, 8], 0)));
        // Brought in at once, over several windows.
        check(&[meta(1, 0, 0, 899, 50)], 5000, Some((&[1], 3)));
        check(&[meta(1, 0, 0, 1500, 50)], 5000, None);
    }
}
