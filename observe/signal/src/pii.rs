//! Privacy as a type.
//!
//! [`Pii<T>`] holds what describes a person or a device: numbers, SIP URIs, addresses, Call-IDs.
//! It prints redacted, it cannot become a metric label (it has no [`crate::Label`] impl), and the egress gate
//! has no way to take it. Local stores serialise it as the plain value: they stay in the region.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that may be kept in the region and shown to authorised people there, and nowhere else.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Marks a value as private.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for a local store, a local decision or an authorised reader.
    /// Every call is a place to look at in review.
    pub fn reveal(&self) -> &T {
        &self.0
    }

    /// The value itself, under the same rule as [`Pii::reveal`].
    pub fn into_inner(self) -> T {
        self.0
    }

    /// A private value made from this one.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Pii<U> {
        Pii(f(self.0))
    }
}

impl<T> From<T> for Pii<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

impl<T> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_never_shows_the_value() {
        let number = Pii::new("+442071838750".to_owned());
        assert_eq!(format!("{number} {number:?}"), "[private] [private]");
        assert_eq!(number.reveal(), "+442071838750");
    }
}
