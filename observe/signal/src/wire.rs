//! Records and whatever holds them as bytes, in postcard, at the end of a buffer that is used again and again.
//!
//! postcard's own way to extend a vector goes byte by byte; most of a record is a message, which wants to be copied whole.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Adds a value's bytes to the buffer.
///
/// # Errors
/// When the value cannot be serialised; the buffer may then hold a part of it.
pub fn append<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(buffer))
}

/// Adds bytes with their length, as postcard reads `&[u8]`.
///
/// # Errors
/// Never in practice.
pub fn append_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) -> postcard::Result<()> {
    append(buffer, &bytes.len())?;
    buffer.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_writes_what_postcard_writes() {
        let value = ("text", 300_u64, vec![1_u8, 2, 3], -0.5_f64);
        let mut buffer = vec![7];
        append(&mut buffer, &value).expect("written");
        assert_eq!(buffer[1..], postcard::to_allocvec(&value).expect("written"));
        assert_eq!(buffer[0], 7);
        buffer.clear();
        append_bytes(&mut buffer, b"some bytes").expect("written");
        assert_eq!(postcard::from_bytes::<&[u8]>(&buffer).expect("read"), b"some bytes");
    }
}
