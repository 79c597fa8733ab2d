//! Where one message of a stream ends (RFC 6587): counted octets, or a line. Each message may have its own way, because
//! senders exist that change theirs.

use memchr::memchr2;

use crate::doors::flow::{FRAME_BYTES_MAX, Frame, Passing};

/// Digits of a count.
const DIGITS_MAX: usize = 10;

/// What stands at the front of the buffer.
pub(super) fn frame(passing: &mut Passing, buffer: &[u8], is_end: bool) -> Frame {
    match *passing {
        Passing::Nothing => {}
        Passing::Bytes(left) => {
            let taken = left.min(buffer.len());
            *passing = if left == taken { Passing::Nothing } else { Passing::Bytes(left - taken) };
            return if taken == 0 { Frame::More } else { Frame::PassOver { taken, is_new: false } };
        }
        Passing::Line => {
            let end = line_end(buffer);
            if end.is_some() {
                *passing = Passing::Nothing;
            }
            let taken = end.map_or(buffer.len(), |end| end + 1);
            return if taken == 0 { Frame::More } else { Frame::PassOver { taken, is_new: false } };
        }
    }
    let Some(first) = buffer.first() else { return Frame::More };
    // Ends of lines between messages, as after counted ones.
    if matches!(first, b'\n' | b'\r' | 0) {
        return Frame::PassOver { taken: 1, is_new: false };
    }
    match count(buffer) {
        Count::Of { digits, octets } => counted(passing, buffer, digits, octets),
        Count::Maybe if !is_end => Frame::More,
        Count::Maybe | Count::No => line(passing, buffer, is_end),
    }
}

enum Count {
    No,
    /// It may become one.
    Maybe,
    Of {
        digits: usize,
        octets: usize,
    },
}

/// A count is digits that do not begin with zero, and a space.
fn count(buffer: &[u8]) -> Count {
    let digits = buffer.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > DIGITS_MAX || buffer[0] == b'0' {
        return Count::No;
    }
    match buffer.get(digits) {
        None => Count::Maybe,
        Some(b' ') => {
            let octets = std::str::from_utf8(&buffer[..digits]).ok().and_then(|text| text.parse().ok());
            octets.map_or(Count::No, |octets| Count::Of { digits, octets })
        }
        Some(_) => Count::No,
    }
}

fn counted(passing: &mut Passing, buffer: &[u8], digits: usize, octets: usize) -> Frame {
    let start = digits + 1;
    if octets > FRAME_BYTES_MAX {
        let taken = buffer.len().min(start.saturating_add(octets));
        let left = octets - (taken - start);
        *passing = if left == 0 { Passing::Nothing } else { Passing::Bytes(left) };
        return Frame::PassOver { taken, is_new: true };
    }
    let end = start + octets;
    if buffer.len() < end { Frame::More } else { Frame::Message { at: start..end, taken: end } }
}

fn line(passing: &mut Passing, buffer: &[u8], is_end: bool) -> Frame {
    match line_end(buffer) {
        Some(end) if end <= FRAME_BYTES_MAX => Frame::Message { at: 0..end, taken: end + 1 },
        Some(end) => Frame::PassOver { taken: end + 1, is_new: true },
        None if buffer.len() > FRAME_BYTES_MAX => {
            *passing = Passing::Line;
            Frame::PassOver { taken: buffer.len(), is_new: true }
        }
        // A last line without an end, as a sender that was cut off leaves it.
        None if is_end => Frame::Message { at: 0..buffer.len(), taken: buffer.len() },
        None => Frame::More,
    }
}

/// Some senders end messages with NUL (RFC 6587 section 3.4.2).
fn line_end(buffer: &[u8]) -> Option<usize> {
    memchr2(b'\n', 0, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every message of a stream that comes in pieces of so many bytes, and how many were refused.
    fn read(stream: &[u8], piece: usize) -> (Vec<String>, usize) {
        let (mut buffer, mut passing) = (Vec::new(), Passing::default());
        let (mut found, mut refused) = (Vec::new(), 0);
        let pieces = stream.chunks(piece).map(|piece| (piece, false)).chain([(&[][..], true)]);
        for (piece, is_end) in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match frame(&mut passing, &buffer, is_end) {
                    Frame::Message { at, taken } => {
                        found.push(String::from_utf8_lossy(&buffer[at]).into_owned());
                        buffer.drain(..taken);
                    }
                    Frame::PassOver { taken, is_new } => {
                        refused += usize::from(is_new);
                        buffer.drain(..taken);
                    }
                    Frame::More => break,
                    Frame::Broken(why) => panic!("{why}"),
                }
            }
            assert!(buffer.len() <= FRAME_BYTES_MAX + piece.len() + 16, "{} bytes wait", buffer.len());
        }
        (found, refused)
    }

    fn check(stream: &[u8], expected: &[&str], refused: usize) {
        for piece in [1, 3, 7, 1000, 1 << 20] {
            if stream.len() / piece < 10_000 {
                let (found, times) = read(stream, piece);
                assert_eq!(
                    (found.iter().map(String::as_str).collect::<Vec<_>>(), times),
                    (expected.to_vec(), refused)
                );
            }
        }
    }

    #[test]
    fn counted_and_lines_may_be_mixed() {
        check(b"<13>a\n<13>b\n", &["<13>a", "<13>b"], 0);
        check(b"6 <13>a\n5 <13>b", &["<13>a\n", "<13>b"], 0);
        check(b"5 <13>a\n5 <13>b\n<13>c\n", &["<13>a", "<13>b", "<13>c"], 0);
        check(b"<13>a\r\n\r\n<13>b\0<13>c", &["<13>a\r", "<13>b", "<13>c"], 0);
        check(b"2026-11-20 a line\n", &["2026-11-20 a line"], 0);
        check(b"12", &["12"], 0);
        check(b"10 <13>short", &[], 0);
        check(b"", &[], 0);
    }

    #[test]
    fn what_is_too_long_is_passed_over_and_the_next_is_read() {
        let long = "x".repeat(3 << 20);
        check(format!("<13>a\n<13>{long}\n<13>b\n").as_bytes(), &["<13>a", "<13>b"], 1);
        check(format!("{} <13>{long}5 <13>b", long.len() + 4).as_bytes(), &["<13>b"], 1);
        check(format!("9999999999 <13>{long}").as_bytes(), &[], 1);
    }
}
