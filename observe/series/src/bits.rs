//! A stream of bits, most significant first.

/// Room that is made when there is none left.
const BYTES_GROWN: usize = 48;

/// Appends bits.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u8,
}

/// Reads bits; what lies past the end is `None`.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitWriter {
    /// Appends the low `count` bits of `value`, at most 64.
    pub(crate) fn push(&mut self, value: u64, count: u8) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                // A million of these grow side by side: room for a few samples, and not for as many again.
                if self.bytes.len() == self.bytes.capacity() {
                    self.bytes.reserve_exact(BYTES_GROWN);
                }
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            let bits = (value >> (left - taken)) & ((1 << taken) - 1);
            if let (Some(last), Ok(bits)) = (self.bytes.last_mut(), u8::try_from(bits)) {
                *last |= bits << (self.free - taken);
            }
            self.free -= taken;
            left -= taken;
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `count` bits, at most 64.
    pub(crate) fn take(&mut self, count: u8) -> Option<u64> {
        let mut value = 0;
        let mut left = usize::from(count);
        while left > 0 {
            let byte = u64::from(*self.bytes.get(self.position / 8)?);
            let here = 8 - self.position % 8;
            let taken = left.min(here);
            value = (value << taken) | ((byte >> (here - taken)) & ((1 << taken) - 1));
            self.position += taken;
            left -= taken;
        }
        Some(value)
    }

    /// The next bit.
    pub(crate) fn bit(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }
}
