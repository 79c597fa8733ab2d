//! Telling datagrams apart and reading RTP headers in place.
//!
//! Nothing is copied and nothing is decrypted: SRTP has the same header in clear (RFC 3711 section 3.1), so the
//! view serves for both.

use crate::error::Error;

/// The length of an RTP header without contributing sources or extension.
const HEADER_BYTES: usize = 12;

/// What a datagram on a media port is, by its first bytes (RFC 7983 and RFC 5761 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// A DTLS record.
    Dtls,
    /// A STUN message.
    Stun,
    /// None of them.
    Other,
}

impl Kind {
    /// Looks at the first two bytes.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            // RTCP packet types 192 to 223 are what RTP payload types 64 to 95 with the marker bit would be.
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            [20..=63, ..] => Self::Dtls,
            [0..=3, ..] => Self::Stun,
            _ => Self::Other,
        }
    }
}

/// An RTP packet, read in place.
#[derive(Clone, Copy, Debug)]
pub struct RtpView<'a> {
    bytes: &'a [u8],
    payload_start: usize,
    payload_end: usize,
}

impl<'a> RtpView<'a> {
    /// Checks the header and finds the payload.
    ///
    /// # Errors
    /// When the datagram is too short for what its header announces, or is not version 2.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() < HEADER_BYTES {
            return Err(Error::Packet("shorter than a header"));
        }
        if bytes[0] >> 6 != 2 {
            return Err(Error::Packet("not version 2"));
        }
        let mut payload_start = HEADER_BYTES + 4 * usize::from(bytes[0] & 0x0f);
        if bytes[0] & 0x10 != 0 {
            let Some(words) = bytes.get(payload_start + 2..payload_start + 4) else {
                return Err(Error::Packet("the header extension is cut off"));
            };
            payload_start += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        if payload_start > bytes.len() {
            return Err(Error::Packet("the header is cut off"));
        }
        let mut payload_end = bytes.len();
        // In SRTP the padding count is encrypted; a count that cannot be right is therefore not held against it.
        if bytes[0] & 0x20 != 0 {
            let padding = usize::from(bytes[bytes.len() - 1]);
            if padding > 0 && payload_start + padding <= bytes.len() {
                payload_end -= padding;
            }
        }
        Ok(Self { bytes, payload_start, payload_end })
    }

    /// Payload type, 0 to 127.
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7f
    }

    /// The marker bit: for speech, the first packet after silence.
    #[must_use]
    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// Timestamp in units of the payload's clock.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        self.word(4)
    }

    /// Synchronization source.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        self.word(8)
    }

    /// The payload without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_start..self.payload_end]
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use webrtc_util::marshal::Unmarshal;

    #[test]
    fn kinds_are_told_apart() {
        for (first_bytes, kind) in [
            (&[0x80, 0x00][..], Kind::Rtp),
            (&[0x80, 0xe0], Kind::Rtp),
            (&[0x80, 200], Kind::Rtcp),
            (&[0x81, 201], Kind::Rtcp),
            (&[0x80, 207], Kind::Rtcp),
            (&[22, 254], Kind::Dtls),
            (&[0x00, 0x01], Kind::Stun),
            (&[0x80], Kind::Other),
            (&[], Kind::Other),
            (b"INVITE", Kind::Other),
        ] {
            assert_eq!(Kind::of(first_bytes), kind, "{first_bytes:?}");
        }
    }

    #[test]
    fn a_header_with_everything_is_read() {
        let mut bytes = vec![0xb1, 0x80 | 8, 0x12, 0x34, 0, 0, 1, 0x40, 0xde, 0xad, 0xbe, 0xef];
        bytes.extend([0, 0, 0, 1]); // one contributing source
        bytes.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]); // one word of extension
        bytes.extend(b"sound");
        bytes.extend([0, 0, 3]); // padding
        let view = RtpView::parse(&bytes).expect("well formed");
        assert_eq!(view.payload_type(), 8);
        assert!(view.marker());
        assert_eq!((view.sequence(), view.timestamp(), view.ssrc()), (0x1234, 320, 0xdead_beef));
        assert_eq!(view.payload(), b"sound");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for bytes in [
            &[0x80u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert!(RtpView::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn we_agree_with_the_rtp_crate(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let ours = RtpView::parse(&bytes);
            let mut rest = Bytes::from(bytes.clone());
            // The crate does not check the version and reads extension profiles more strictly than a relay may.
            if let (Ok(view), Ok(theirs)) = (ours, rtp::header::Header::unmarshal(&mut rest)) {
                prop_assert_eq!(view.payload_type(), theirs.payload_type);
                prop_assert_eq!(view.marker(), theirs.marker);
                prop_assert_eq!(view.sequence(), theirs.sequence_number);
                prop_assert_eq!(view.timestamp(), theirs.timestamp);
                prop_assert_eq!(view.ssrc(), theirs.ssrc);
            }
        }
    }
}
