//! What stands in the log.
//!
//! Entries are JSON inside their frames: a spool may be read by the next version, which knows more fields, and in the
//! worst case by a person who has to bill from it.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

use crate::frame;
use crate::record::{Book, CallRecord};

/// One entry of the log.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry<'a> {
    /// A file begins. All that is open follows, up to [`Entry::Carried`].
    Head {
        /// The next numbers to give out.
        next_sequence: u64,
        next_book: u64,
        /// Records up to this one are in the database.
        delivered: u64,
    },
    /// All open calls stand above: files before this one are wanted for their records only.
    Carried,
    /// A call is open; this is its record, should nothing more be heard of it.
    Open {
        book: Book,
        record: Cow<'a, CallRecord>,
        /// Whether its core is gone: nothing more will be heard.
        is_lost: bool,
    },
    /// A call has no record to get: it goes on as another, or its record went another way.
    Gone { book: Book },
    /// The process lives.
    Alive { unix_nanos: u64 },
    /// A call is over.
    Closed { sequence: u64, book: Book, record: Cow<'a, CallRecord> },
    /// Records up to this one are in the database.
    Delivered { sequence: u64 },
}

impl Entry<'_> {
    /// Appends the entry's frame.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub(super) fn push(&self, salt: u32, into: &mut Vec<u8>) -> io::Result<()> {
        frame::push(salt, &serde_json::to_vec(self)?, into)
    }

    /// Whether a frame is surely a note of an open call, without reading it.
    pub(super) fn is_note(frame: &[u8]) -> bool {
        frame.starts_with(br#"{"open":"#)
    }

    /// The entry of a frame; `None` for one of a later version that means nothing to us.
    pub(super) fn read(frame: &[u8]) -> Option<Entry<'static>> {
        serde_json::from_slice(frame).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written_and_later_fields_are_no_harm() {
        let record = CallRecord::for_test("call-1");
        let entry = Entry::Closed { sequence: 7, book: Book(3), record: Cow::Owned(record) };
        let mut bytes = Vec::new();
        entry.push(1, &mut bytes).expect("short");
        let frame::Front::Whole(frame) = frame::front(1, &bytes) else { panic!("a whole frame") };
        assert_eq!(Entry::read(frame), Some(entry));
        assert!(!Entry::is_note(frame));
        let note =
            Entry::Open { book: Book(3), record: Cow::Owned(CallRecord::for_test("call-1")), is_lost: true };
        let mut bytes = Vec::new();
        note.push(1, &mut bytes).expect("short");
        let frame::Front::Whole(frame) = frame::front(1, &bytes) else { panic!("a whole frame") };
        assert!(Entry::is_note(frame));
        let later = br#"{"delivered":{"sequence":9,"by":"somebody"}}"#;
        assert_eq!(Entry::read(later), Some(Entry::Delivered { sequence: 9 }));
        assert_eq!(Entry::read(br#"{"invented_later":{}}"#), None);
    }
}
