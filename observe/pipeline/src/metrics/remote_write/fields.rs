//! The fields of a protobuf message, as they lie in its bytes.
//!
//! Our own, because a request of remote write is mostly labels that came before: prost would copy all of them into lists
//! of lists, and an empty message of two bytes would take a hundred in memory before anything could be counted.
//! <https://protobuf.dev/programming-guides/encoding/>

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a field is longer than its message")]
    Short,
    #[error("a number does not end")]
    Number,
    #[error("a field is not of the type that the message has")]
    Type,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Number(u64),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    Four,
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Broken> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Broken::Type) }
    }

    pub(super) fn number(self) -> Result<u64, Broken> {
        if let Self::Number(number) = self { Ok(number) } else { Err(Broken::Type) }
    }

    pub(super) fn signed(self) -> Result<i64, Broken> {
        self.number().map(u64::cast_signed)
    }

    /// As protobuf cuts an `int32` or `uint32`.
    pub(super) fn short(self) -> Result<u32, Broken> {
        self.number().map(low)
    }

    pub(super) fn double(self) -> Result<f64, Broken> {
        if let Self::Eight(bytes) = self { Ok(f64::from_le_bytes(bytes)) } else { Err(Broken::Type) }
    }
}

/// The low half, which is what a 32-bit field keeps of a longer number.
#[expect(clippy::cast_possible_truncation, reason = "protobuf says that the rest is cut off")]
fn low(number: u64) -> u32 {
    number as u32
}

/// Reads one field after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(Broken::Number)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Broken> {
        let key = low(self.varint()?);
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Eight(self.take(8)?.try_into().map_err(|_| Broken::Short)?),
            2 => {
                let count = usize::try_from(self.varint()?).map_err(|_| Broken::Short)?;
                Value::Bytes(self.take(count)?)
            }
            5 => {
                self.take(4)?;
                Value::Four
            }
            _ => return Err(Broken::Type),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The bytes of the first fields, as long as they are messages or texts of this number, and the bytes after them.
pub(super) fn leading(bytes: &[u8], number: u32) -> Result<(&[u8], &[u8]), Broken> {
    let mut fields = Fields(bytes);
    loop {
        let rest = fields.0;
        match fields.next() {
            Some(Ok((found, Value::Bytes(_)))) if found == number => {}
            Some(Err(broken)) => return Err(broken),
            _ => return Ok((&bytes[..bytes.len() - rest.len()], rest)),
        }
    }
}

/// Numbers of which only the first are kept, and the others counted.
#[derive(Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) kept: Vec<u32>,
    pub(super) count: usize,
    kept_max: usize,
}

impl Numbers {
    pub(super) fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), count: 0, kept_max }
    }

    /// Whether some were left out.
    pub(super) fn is_cut(&self) -> bool {
        self.count > self.kept.len()
    }

    fn push(&mut self, number: u32) {
        self.count += 1;
        if self.kept.len() < self.kept_max {
            self.kept.push(number);
        }
    }

    /// Adds those of a field of `repeated uint32`, packed or not.
    pub(super) fn add(&mut self, value: Value<'_>) -> Result<(), Broken> {
        match value {
            Value::Bytes(packed) => {
                let mut packed = Fields(packed);
                while !packed.0.is_empty() {
                    self.push(low(packed.varint()?));
                }
            }
            one => self.push(one.short()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_that_prost_writes_and_damage_is_told() {
        let read =
            |bytes: &[u8]| Fields(bytes).map(|field| format!("{field:?}")).collect::<Vec<_>>().join(" ");
        assert_eq!(read(b"\x08\x96\x01\x12\x02hi"), "Ok((1, Number(150))) Ok((2, Bytes([104, 105])))");
        assert_eq!(read(b"\x09\0\0\0\0\0\0\xf0\x3f"), "Ok((1, Eight([0, 0, 0, 0, 0, 0, 240, 63])))");
        assert_eq!(read(b"\x0d\0\0\0\0\x08\x01"), "Ok((1, Four)) Ok((1, Number(1)))");
        assert_eq!(read(b"\x12\x05hi"), "Err(Short)");
        assert_eq!(read(b"\x08\xff"), "Err(Number)");
        assert_eq!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "Err(Number)");
        assert_eq!(read(b"\x0b"), "Err(Type)");
        assert_eq!(
            leading(b"\x0a\x01a\x0a\0\x10\x05\x0a\x01b", 1),
            Ok((&b"\x0a\x01a\x0a\0"[..], &b"\x10\x05\x0a\x01b"[..]))
        );
        let mut numbers = Numbers::new(3);
        numbers.add(Value::Bytes(b"\x01\x80\x01")).expect("good");
        numbers.add(Value::Number(7)).expect("good");
        assert!(numbers.kept == [1, 128, 7] && !numbers.is_cut());
        numbers.add(Value::Bytes(b"\x05\x06")).expect("good");
        assert_eq!(numbers, Numbers { kept: vec![1, 128, 7], count: 5, kept_max: 3 });
        assert!(numbers.is_cut());
    }
}
