//! Bodies of several parts (RFC 2046 section 5.1, RFC 5621): where the part of a media type stands.
//!
//! Only what an intermediary needs: one part is found so that it can be replaced, everything else stays as it is.
//! Parts within parts are looked into once, as `multipart/mixed` around `multipart/alternative` needs it.

use std::ops::Range;

use crate::text::trim;

/// Parts of a body that are looked at.
const PARTS_MAX: usize = 16;

/// Boundaries within boundaries that are followed.
const DEPTH_MAX: usize = 2;

/// Where in `body` the content of the first part of this media type stands; the whole body when it is of that type
/// itself. `content_type` is the message's Content-Type value.
#[must_use]
pub fn part_of(content_type: &str, body: &[u8], media_type: &str) -> Option<Range<usize>> {
    find(content_type, body, media_type, 0)
}

fn find(content_type: &str, body: &[u8], media_type: &str, depth: usize) -> Option<Range<usize>> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(media_type) {
        return (!body.is_empty()).then_some(0..body.len());
    }
    let is_multipart = kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    if !is_multipart || depth >= DEPTH_MAX {
        return None;
    }
    let boundary = boundary(content_type)?;
    parts(body, boundary).into_iter().take(PARTS_MAX).find_map(|part| {
        let (head, content) = split_head(&body[part.clone()])?;
        let inner_type = part_type(&body[part.clone()][head]);
        let start = part.start + content.start;
        let found = find(&inner_type, &body[start..part.end], media_type, depth + 1)?;
        Some(start + found.start..start + found.end)
    })
}

/// The `boundary` parameter without its quotes.
fn boundary(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|param| {
        let (name, value) = param.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let is_boundary = name.trim().eq_ignore_ascii_case("boundary");
        (is_boundary && !value.is_empty() && value.len() <= 70).then_some(value)
    })
}

/// The parts between the delimiter lines, without the line end that belongs to the delimiter after them.
fn parts(body: &[u8], boundary: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begun: Option<usize> = None;
    let mut at = 0;
    while at < body.len() && found.len() < PARTS_MAX {
        let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |end| at + end + 1);
        let line = trim(&body[at..end]);
        let after = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
        if let Some(after) = after.filter(|after| after.is_empty() || *after == b"--") {
            if let Some(start) = begun.take() {
                let content = &body[start..at];
                let content = content.strip_suffix(b"\n").unwrap_or(content);
                let content = content.strip_suffix(b"\r").unwrap_or(content);
                found.push(start..start + content.len());
            }
            if after.is_empty() {
                begun = Some(end);
            } else {
                return found;
            }
        }
        at = end;
    }
    found
}

/// The header lines of a part and its content.
fn split_head(part: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let mut at = 0;
    while at < part.len() {
        let end = at + memchr::memchr(b'\n', &part[at..])? + 1;
        if trim(&part[at..end]).is_empty() {
            return Some((0..at, end..part.len()));
        }
        at = end;
    }
    None
}

/// The Content-Type among the header lines of a part, its folds joined; RFC 2046 section 5.1 says what it is without.
fn part_type(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head).replace("\r\n ", " ").replace("\r\n\t", " ");
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        let is_type = name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("c");
        is_type.then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| "text/plain".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(content_type: &str, body: &str, expected: Option<&str>) {
        let found = part_of(content_type, body.as_bytes(), "application/sdp").map(|range| &body[range]);
        assert_eq!(found, expected, "{content_type}: {body}");
    }

    #[test]
    fn the_description_is_found() {
        check("application/sdp", "v=0\r\n", Some("v=0\r\n"));
        check("Application/SDP ; charset=utf-8", "v=0\r\n", Some("v=0\r\n"));
        check("application/sdp", "", None);
        check("text/plain", "v=0\r\n", None);
        let mixed = "--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n\r\n--b1\r\n\
                     Content-Type: application/isup;version=nxv3\r\n\r\n\u{1}\r\n--b1--\r\n";
        check("multipart/mixed;boundary=b1", mixed, Some("v=0\r\ns=-\r\n"));
        check("Multipart/Mixed; x=y; BOUNDARY=\"b1\"", mixed, Some("v=0\r\ns=-\r\n"));
        check("multipart/mixed;boundary=b2", mixed, None);
        check("multipart/mixed", mixed, None);
        let second = "preamble\r\n--b1\r\n\r\nplain\r\n--b1 \r\nc:\r\n application/sdp\r\nContent-ID: <1>\r\n\r\nv=0\r\n--b1--";
        check("multipart/mixed;boundary=b1", second, Some("v=0"));
    }

    #[test]
    fn parts_within_parts_are_found_once() {
        let inner = "--in\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--in--\r\n";
        let outer =
            format!("--out\r\nContent-Type: multipart/alternative;boundary=in\r\n\r\n{inner}--out--\r\n");
        check("multipart/mixed;boundary=out", &outer, Some("v=0\r\n"));
        let third = format!("--x\r\nContent-Type: multipart/mixed;boundary=out\r\n\r\n{outer}--x--\r\n");
        check("multipart/mixed;boundary=x", &third, None);
    }

    #[test]
    fn broken_bodies_have_no_part() {
        for body in [
            "--b",
            "--b\r\n",
            "--b\r\nContent-Type: application/sdp",
            "--b--\r\n--b\r\n\r\nv\r\n--b--",
            "\r\n",
        ] {
            check("multipart/mixed;boundary=b", body, None);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(body in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'b'), Just(b'\r'), Just(b'\n'), Just(b':'), any::<u8>()], 0..200)) {
            let found = part_of("multipart/mixed;boundary=b", &body, "application/sdp");
            prop_assert!(found.is_none_or(|range| range.end <= body.len()));
        }
    }
}
