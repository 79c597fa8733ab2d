//! Any bytes as a stream, in any pieces: framing never panics, never grows past its limits, loses no byte, and gives the
//! same frames however the stream came.
#![no_main]

use belfry_sip_proto::{Frame, Framer, Limits};

/// Small, so that the fuzzer finds its way past them.
const LIMITS: Limits = Limits { message_bytes_max: 600, line_bytes_max: 300, headers_max: 16 };

/// The frames, and whether the stream was lost.
fn cut<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, bool, usize) {
    let mut framer = Framer::new(LIMITS);
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(first) => {
                    let second = framer.next_frame().expect_err("it stays lost");
                    assert_eq!(first.fault.kind, second.fault.kind);
                    return (frames, true, 0);
                }
            }
        }
        assert!(framer.pending_bytes() <= LIMITS.message_bytes_max + piece.len());
    }
    (frames, false, framer.pending_bytes())
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The last bytes say how the rest comes in pieces.
    let Some((count, rest)) = input.split_last() else { return };
    let (bytes, sizes) = rest.split_at(rest.len() - usize::from(count % 8).min(rest.len()));
    let whole = cut(std::iter::once(bytes));
    let each = cut(bytes.chunks(1));
    assert_eq!((&whole.0, whole.1, whole.2), (&each.0, each.1, each.2), "byte by byte");
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = bytes;
    let pieces = std::iter::from_fn(|| {
        let size = usize::from(sizes.next().unwrap_or(255)).max(1).min(rest.len());
        let (piece, after) = rest.split_at(size);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(whole, cut(pieces), "in pieces");
    if !whole.1 {
        let messages: usize = whole.0.iter().map(|frame| if let Frame::Message(bytes) = frame { bytes.len() } else { 0 }).sum();
        assert!(messages + whole.2 <= bytes.len());
        for frame in &whole.0 {
            let Frame::Message(message) = frame else { continue };
            assert_eq!(cut(std::iter::once(message.as_slice())).0, [frame.clone()], "a frame is a stream of one");
        }
    }
});
