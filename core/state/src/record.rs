//! A call record: what billing and disputes need to know of one call, written once.

use belfry_signal::record::Name;
use belfry_signal::{Pii, Region};
use serde::{Deserialize, Serialize};

use crate::billing::Charge;

/// Where a record is when its call's books are closed. It comes to the database from wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the spool, on the disk.
    Spooled,
    /// In the database, because the spool would not take it.
    Stored,
    /// In memory only, because neither took it: tried again until one does.
    InMemory,
}

/// Names the books of a call in the journal of open calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Book(pub(crate) u64);

/// One call. Its identity is Call-ID, both tags and the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The Call-ID.
    pub call_id: Pii<String>,
    /// The caller's tag.
    pub from_tag: String,
    /// The callee's tag; empty when nobody answered.
    pub to_tag: String,
    /// Tells calls apart that use one Call-ID and the same tags one after another: the call's start in nanoseconds.
    pub epoch: u64,
    /// The trace of the call, in hexadecimal.
    pub trace_id: String,
    /// When the INVITE came, in nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// When it was answered.
    pub answer_unix_nanos: Option<u64>,
    /// When it ended.
    pub end_unix_nanos: u64,
    /// Who called.
    pub caller: Pii<String>,
    /// Who was called.
    pub callee: Pii<String>,
    /// The caller's region.
    pub region: Region,
    /// The caller's country.
    pub country: Option<String>,
    /// The caller's transport, as `tls`.
    pub transport: Name,
    /// Whose customer's it is: the caller's tenant, or the called one's for calls from trunks.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The trunk that it came by.
    #[serde(default)]
    pub calling_trunk: Option<String>,
    /// The trunk that it left by: the one that answered, or was tried last.
    #[serde(default)]
    pub called_trunk: Option<String>,
    /// The called number in E.164 with `+`, when what was dialled is one: what the call is rated by.
    #[serde(default)]
    pub called_number: Option<Pii<String>>,
    /// Whether it called for help: such calls cost nothing.
    #[serde(default)]
    pub is_emergency: bool,
    /// Who pays for it in advance, and by which prices.
    #[serde(default)]
    pub prepaid: Option<Prepaid>,
    /// The final status code of the INVITE.
    pub status_code: u16,
    /// How it ended, from the vocabulary of [`belfry_signal::record::Call::outcome`].
    pub outcome: Name,
    /// Why, from a closed vocabulary.
    pub cause: Name,
    /// The node that owned the call.
    pub node: String,
    /// What it costs, once it is rated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
}

/// By whom and at which prices a call is paid for in advance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepaid {
    /// The account.
    pub account: Pii<String>,
    /// The billing profile that the call was let in by.
    pub profile: String,
    /// Its version.
    pub profile_version: u32,
}

/// Which records to read, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    /// The first end.
    pub from_unix_nanos: u64,
    /// The end after the last.
    pub to_unix_nanos: u64,
    /// How many at a time.
    pub limit: u32,
    /// Whose calls.
    pub whose: RecordWhose,
    /// The row of the last record that was read with its end being the page's first.
    pub(crate) after_id: i64,
}

/// Whose records to read: all that every given field fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordWhose {
    /// The tenant.
    pub tenant: Option<String>,
    /// The trunk that calls came by or left by.
    pub trunk: Option<String>,
    /// Why they ended.
    pub cause: Option<String>,
}

impl RecordPage {
    /// The same of these calls only.
    #[must_use]
    pub fn of(self, whose: RecordWhose) -> Self {
        Self { whose, ..self }
    }

    /// Records that ended in `from..to`, so many at a time.
    #[must_use]
    pub fn new(from_unix_nanos: u64, to_unix_nanos: u64, limit: u32) -> Self {
        Self { from_unix_nanos, to_unix_nanos, limit, whose: RecordWhose::default(), after_id: 0 }
    }
}

impl CallRecord {
    /// What the call is rated by: the called number, or the user part of the called address, or the number of a `tel:`
    /// URI.
    #[must_use]
    pub fn dialled(&self) -> &str {
        if let Some(number) = &self.called_number {
            return number.reveal();
        }
        let callee = self.callee.reveal();
        let address = callee.split_once(':').map_or(callee.as_str(), |(_, address)| address);
        address.split(['@', ';']).next().unwrap_or(address)
    }

    /// A record for tests.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a literal")]
    pub fn for_test(call_id: &str) -> Self {
        Self {
            call_id: call_id.to_owned().into(),
            from_tag: "a".to_owned(),
            to_tag: "b".to_owned(),
            epoch: 0,
            trace_id: "00".repeat(16),
            start_unix_nanos: 1_000_000_000,
            answer_unix_nanos: Some(2_000_000_000),
            end_unix_nanos: 3_000_000_000,
            caller: "sip:a@x".to_owned().into(),
            callee: "sip:b@x".to_owned().into(),
            region: Region::configured("test").expect("a plain name"),
            country: Some("GB".to_owned()),
            transport: "udp".into(),
            tenant: None,
            calling_trunk: None,
            called_trunk: None,
            called_number: None,
            is_emergency: false,
            prepaid: None,
            status_code: 200,
            outcome: "answered".into(),
            cause: "normal".into(),
            node: "node-1".to_owned(),
            charge: None,
        }
    }
}
