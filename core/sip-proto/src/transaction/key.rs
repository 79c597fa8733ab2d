//! How messages find their transaction (RFC 3261 sections 17.1.3 and 17.2.3).

use super::MethodKind;

/// The magic cookie that makes a branch unique in space and time (RFC 3261 section 8.1.1.7).
const COOKIE: &[u8] = b"z9hG4bK";

/// Finds a client transaction: our own branch, and the CSeq method because CANCEL shares its INVITE's branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(Box<[u8]>);

impl ClientKey {
    /// From the branch of the top Via and the method of the CSeq header.
    #[must_use]
    pub fn new(branch: &[u8], cseq_method: &[u8]) -> Self {
        Self(joined(&[&branch.to_ascii_lowercase(), cseq_method]))
    }
}

/// Finds a server transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey {
    key: Box<[u8]>,
    method: MethodKind,
}

/// The parts of a request that identify it when its branch does not (RFC 2543 peers).
#[derive(Clone, Copy, Debug)]
pub struct LegacyParts<'a> {
    /// Request-URI as it stands.
    pub request_uri: &'a [u8],
    /// The From tag.
    pub from_tag: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// The CSeq number.
    pub cseq: u32,
    /// The whole top Via value.
    pub top_via: &'a [u8],
}

impl ServerKey {
    /// The key of a request. `branch` and `sent_by` (host and port as written) come from the top Via; the parts that
    /// identify it without a branch are asked for only when they are needed.
    ///
    /// A branch without the magic cookie is not unique: then the RFC 2543 parts identify the request. The To tag is
    /// left out of them, because the ACK of a failed INVITE carries the tag of our answer and must still match.
    #[must_use]
    pub fn new<'a>(
        branch: Option<&[u8]>,
        sent_by: &[u8],
        method_name: &[u8],
        method: MethodKind,
        legacy: impl FnOnce() -> LegacyParts<'a>,
    ) -> Self {
        // ACK belongs to its INVITE; every other method is a transaction of its own, CANCEL too.
        let name: &[u8] = if method == MethodKind::Ack { b"INVITE" } else { method_name };
        let key = match branch {
            Some(branch) if has_cookie(branch) => {
                let mut key = joined(&[branch, sent_by, name]);
                // The method's name keeps its case.
                let tokens = key.len() - name.len();
                key[..tokens].make_ascii_lowercase();
                key
            }
            _ => {
                let legacy = legacy();
                joined(&[
                    legacy.request_uri,
                    legacy.from_tag,
                    legacy.call_id,
                    legacy.cseq.to_string().as_bytes(),
                    legacy.top_via,
                    name,
                ])
            }
        };
        Self { key, method }
    }

    /// The key of the INVITE that a CANCEL with this key wants to end (RFC 3261 section 9.2).
    #[must_use]
    pub fn invite_of_cancel(&self) -> Self {
        let stem = self.key.strip_suffix(b"CANCEL".as_slice()).unwrap_or(&self.key);
        Self { key: [stem, b"INVITE"].concat().into(), method: MethodKind::Invite }
    }

    /// What the request is to the state machines.
    #[must_use]
    pub fn method(&self) -> MethodKind {
        self.method
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.key
    }
}

/// Whether a branch was made by the rules of RFC 3261. Tokens compare without case (RFC 3261 section 7.3.1).
fn has_cookie(branch: &[u8]) -> bool {
    branch.len() > COOKIE.len() && branch[..COOKIE.len()].eq_ignore_ascii_case(COOKIE)
}

/// The parts with a separator that cannot stand in any of them.
fn joined(parts: &[&[u8]]) -> Box<[u8]> {
    let length = parts.iter().map(|part| part.len() + 1).sum::<usize>().saturating_sub(1);
    let mut all = Vec::with_capacity(length);
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            all.push(b'\n');
        }
        all.extend_from_slice(part);
    }
    all.into_boxed_slice()
}
