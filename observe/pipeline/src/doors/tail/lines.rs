//! The whole lines of a piece of a file. Pure.

use std::ops::Range;

use crate::doors::flow::FRAME_BYTES_MAX;

/// What a piece holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The lines, without their ends; empty ones are left out.
    pub(super) lines: Vec<Range<usize>>,
    /// Bytes that are done with.
    pub(super) taken: usize,
    /// Whether the line after them is passed over to its end.
    pub(super) is_passing: bool,
    /// The beginning of a line that is too long.
    pub(super) too_long: Option<Range<usize>>,
}

/// Cuts a piece; `is_passing` when it begins within a line that is passed over, `is_end` when no more will come.
pub(super) fn cut(bytes: &[u8], is_passing: bool, is_end: bool) -> Cut {
    let mut cut = Cut { is_passing, ..Cut::default() };
    while let Some(end) = memchr::memchr(b'\n', &bytes[cut.taken..]) {
        let line = cut.taken..cut.taken + end;
        cut.taken = line.end + 1;
        if !std::mem::take(&mut cut.is_passing) {
            let end = if bytes[line.clone()].ends_with(b"\r") { line.end - 1 } else { line.end };
            if end > line.start {
                cut.lines.push(line.start..end);
            }
        }
    }
    let rest = cut.taken..bytes.len();
    if cut.is_passing {
        cut.taken = bytes.len();
    } else if rest.len() > FRAME_BYTES_MAX {
        (cut.taken, cut.is_passing, cut.too_long) = (bytes.len(), true, Some(rest));
    } else if is_end && !rest.is_empty() {
        cut.taken = bytes.len();
        cut.lines.push(rest);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], is_passing: bool, is_end: bool, expected: &[&str], taken: usize, goes_on: bool) {
        let cut = cut(bytes, is_passing, is_end);
        let lines: Vec<_> =
            cut.lines.iter().map(|line| String::from_utf8_lossy(&bytes[line.clone()]).into_owned()).collect();
        assert_eq!(
            (lines, cut.taken, cut.is_passing),
            (expected.iter().map(|line| (*line).to_owned()).collect(), taken, goes_on)
        );
    }

    #[test]
    fn only_whole_lines_are_taken() {
        check(b"a\nb\r\n\nc", false, false, &["a", "b"], 6, false);
        check(b"a\nb", false, true, &["a", "b"], 3, false);
        check(b"tail\na\n", true, false, &["a"], 7, false);
        check(b"tail", true, false, &[], 4, true);
        check(b"", false, true, &[], 0, false);
        let long = vec![b'x'; FRAME_BYTES_MAX + 1];
        assert!(cut(&long, false, false).too_long.is_some());
        check(&long, false, false, &[], long.len(), true);
    }
}
