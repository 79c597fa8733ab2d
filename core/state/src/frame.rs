//! How a record stands in a file: its length and its CRC-32C, four bytes each and little endian, then its bytes.
//!
//! Shared by the bindings' journal and the books. The checksum starts from a seed: a file with a random seed in its
//! name cannot be made to hold a record of somebody else's choosing inside the bytes of another.

use std::io;

/// No record comes near this; a larger length is a torn one.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Bytes before those of the record.
pub(crate) const HEADER_BYTES: usize = 8;

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front<'a> {
    /// A whole record.
    Whole(&'a [u8]),
    /// What may become a record with more bytes.
    Partial,
    /// No record, whatever follows.
    Damaged,
}

/// Appends a record.
///
/// # Errors
/// When it is longer than [`BYTES_MAX`]: it could not be read back.
pub(crate) fn push(seed: u32, record: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
    push_with(seed, into, |into| {
        into.extend_from_slice(record);
        Ok(())
    })
}

/// Appends the record that `write` appends, which is written in its place at once.
///
/// # Errors
/// Those of `write`, and when the record is longer than [`BYTES_MAX`]; nothing is appended then.
pub(crate) fn push_with(
    seed: u32,
    into: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let start = into.len();
    into.extend_from_slice(&[0; HEADER_BYTES]);
    let pushed = write(into).and_then(|()| finish(seed, into.get_mut(start..).unwrap_or_default()));
    if pushed.is_err() {
        into.truncate(start);
    }
    pushed
}

/// Fills in the length and the checksum of a frame.
fn finish(seed: u32, frame: &mut [u8]) -> io::Result<()> {
    let too_long = || io::Error::other("the record is too long");
    let (header, record) = frame.split_first_chunk_mut::<HEADER_BYTES>().ok_or_else(too_long)?;
    let length =
        u32::try_from(record.len()).ok().filter(|_| record.len() <= BYTES_MAX).ok_or_else(too_long)?;
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c_append(seed, record).to_le_bytes());
    Ok(())
}

/// Looks at the front of some bytes; a whole record takes [`HEADER_BYTES`] more than its own length.
pub(crate) fn front(seed: u32, bytes: &[u8]) -> Front<'_> {
    let Some((length, after)) = bytes.split_first_chunk::<4>() else { return Front::Partial };
    let Ok(length) = usize::try_from(u32::from_le_bytes(*length)) else { return Front::Damaged };
    if length > BYTES_MAX {
        return Front::Damaged;
    }
    let Some((sum, after)) = after.split_first_chunk::<4>() else { return Front::Partial };
    let Some(record) = after.get(..length) else { return Front::Partial };
    if crc32c::crc32c_append(seed, record) != u32::from_le_bytes(*sum) {
        return Front::Damaged;
    }
    Front::Whole(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_it_is_none() {
        let mut bytes = Vec::new();
        push(7, b"first", &mut bytes).expect("short");
        push(7, b"", &mut bytes).expect("short");
        assert_eq!(front(7, &bytes), Front::Whole(b"first"));
        assert_eq!(front(7, &bytes[13..]), Front::Whole(b""));
        assert_eq!(front(8, &bytes), Front::Damaged, "another file's seed");
        for end in 0..13 {
            assert_eq!(front(7, &bytes[..end]), Front::Partial, "{end}");
        }
        for at in 4..13 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(front(7, &damaged), Front::Damaged, "{at}");
        }
        assert_eq!(front(7, b"text is no length"), Front::Damaged);
        assert!(push(7, &vec![0; BYTES_MAX + 1], &mut bytes).is_err());
    }
}
