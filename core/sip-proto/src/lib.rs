//! SIP without I/O: the wire layer, headers, transactions and digest of Belfry's signalling.
//!
//! Bytes go in and answers come out; sockets, clocks, random numbers and telemetry stay with the caller.
//! The wire layer is our own because carrier traffic needs compact names, folding, `tel:` URIs, IPv6 and quoted
//! parameters; `rsip` supplies the vocabulary of methods and is a second opinion in the tests.
//! Forwarding edits the bytes that came ([`Edit`]); only messages that we originate are built ([`build`]).
//!
//! Not here: dialogs and routing decisions (the signalling crate), SDP rewriting (the relay side).

pub mod build;
pub mod digest;
mod edit;
mod fault;
pub mod forking;
mod frame;
mod header;
pub mod locate;
mod message;
pub mod multipart;
mod name_addr;
mod params;
mod scan;
pub mod session_timer;
mod text;
pub mod timer;
pub mod transaction;
mod uri;
mod verdict;
mod via;

pub use edit::Edit;
pub use fault::{Answer, Fault, FaultKind};
pub use frame::{Frame, FrameFault, Framer};
pub use header::{CSeq, Contact, HeaderName, Values, split_list};
pub use message::{Field, Message, OwnedMessage, Parsed, known_method};
pub use name_addr::NameAddr;
pub use params::{Param, Params};
pub use rsip::Method;
pub use scan::Limits;
pub use uri::{Scheme, Uri, escape_param, escape_user};
pub use verdict::{Verdict, admit, judge};
pub use via::{MAGIC_COOKIE, Via};
