//! Globally routable user agent URIs (RFC 5627): addresses of one device of a customer, a public one that says which,
//! and temporary ones that tell nobody anything.
//!
//! A temporary GRUU carries what it means, sealed with a key of the site: no table grows with the registrations, any
//! core of the site can read it, and it outlives a restart as the binding does. It is void once the registration that
//! it was given for ended or began anew (section 3.1.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_signal::TraceKey;
use belfry_sip_proto::escape_param;
use belfry_state::Binding;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::Aor;

/// What the user part of a temporary GRUU begins with: no customer may be called so.
const PREFIX: &str = "tgruu.";
/// Sealed with it, so that nothing else that the key may ever seal can be taken for a GRUU.
const CONTEXT: &[u8] = b"belfry temporary gruu 1";

/// Mints and reads GRUUs.
#[derive(Debug)]
pub(crate) struct Gruus(Option<LessSafeKey>);

/// What a temporary GRUU says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Temporary {
    /// The address of record, as the location store knows it.
    pub(crate) address: String,
    /// The registration of which device.
    epoch_unix_nanos: u64,
    instance: String,
}

impl Gruus {
    /// With a key that follows from the site's.
    pub(crate) fn new(site: &TraceKey) -> Self {
        let halves = ["gruu key, first half", "gruu key, second half"];
        let key: Vec<u8> = halves.iter().flat_map(|half| site.trace_of_call(half).0).collect();
        Self(UnboundKey::new(&CHACHA20_POLY1305, &key).ok().map(LessSafeKey::new))
    }

    /// The public GRUU of a device.
    pub(crate) fn public(aor: &Aor, instance: &str) -> String {
        format!("{};gr={}", aor.uri(), escape_param(bare(instance)))
    }

    /// A new temporary GRUU of a binding; none of a binding without an instance.
    pub(crate) fn temporary(&self, aor: &Aor, binding: &Binding) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let instance = binding.instance.as_deref()?;
        let mut sealed = binding.epoch_unix_nanos.to_be_bytes().to_vec();
        sealed.extend_from_slice(aor.key().as_bytes());
        sealed.push(0);
        sealed.extend_from_slice(bare(instance).as_bytes());
        let key = self.0.as_ref()?;
        let seal = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(seal, Aad::from(CONTEXT), &mut sealed).ok()?;
        let token = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        Some(format!("sip:{PREFIX}{token}@{};gr", aor.domain))
    }

    /// What a user part says, when it is a temporary GRUU's and of this site.
    pub(crate) fn read(&self, user: &str) -> Option<Temporary> {
        let bytes = URL_SAFE_NO_PAD.decode(user.strip_prefix(PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let seal = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.as_ref()?.open_in_place(seal, Aad::from(CONTEXT), &mut sealed).ok()?;
        let (epoch, text) = opened.split_first_chunk::<8>()?;
        let (address, instance) = std::str::from_utf8(text).ok()?.split_once('\0')?;
        Some(Temporary {
            address: address.to_owned(),
            instance: instance.to_owned(),
            epoch_unix_nanos: u64::from_be_bytes(*epoch),
        })
    }
}

impl Temporary {
    /// Whether a binding is of the registration that this GRUU was given for.
    pub(crate) fn is_of(&self, binding: &Binding) -> bool {
        is_instance(binding, &self.instance) && binding.epoch_unix_nanos == self.epoch_unix_nanos
    }

    /// The device.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }
}

/// Whether a binding is of this instance. URNs of UUIDs, which all of them are, compare without case (RFC 4122).
pub(crate) fn is_instance(binding: &Binding, instance: &str) -> bool {
    binding.instance.as_deref().is_some_and(|known| bare(known).eq_ignore_ascii_case(bare(instance)))
}

/// An instance without the angle brackets that `+sip.instance` has around it.
fn bare(instance: &str) -> &str {
    instance.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or(instance)
}
