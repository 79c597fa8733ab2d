//! Metric labels: closed enums and names from the configuration, never anything that a caller controls.
//!
//! The type system is the cardinality limiter: a family takes a tuple of [`Label`]s, and each label knows its
//! [`Bound`], which the catalogue prints.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How many values a label can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Exactly this many, fixed at compile time.
    Enum(usize),
    /// At most this many, named in the configuration.
    Configured(usize),
    /// Of the one call that is asked for: of curves, which no store keeps as series.
    OfCall,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enum(values) => write!(f, "{values}"),
            Self::Configured(values_max) => write!(f, "<={values_max} configured"),
            Self::OfCall => f.write_str("of the call"),
        }
    }
}

/// One label of a metric family.
pub trait Label {
    /// The label's name, as in `outcome`.
    const NAME: &'static str;
    /// How many values there can be.
    const BOUND: Bound;
    /// This value's text.
    fn text(&self) -> &str;
}

/// A fixed list of labels: the unit type, or a tuple of up to five [`Label`]s.
pub trait Labels {
    /// Names and bounds, in order.
    const DESCRIPTIONS: &'static [(&'static str, Bound)];
    /// Calls `f` with the texts in the same order.
    fn with_texts<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R;
}

impl Labels for () {
    const DESCRIPTIONS: &'static [(&'static str, Bound)] = &[];
    fn with_texts<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
        f(&[])
    }
}

macro_rules! tuple_labels {
    ($($name:ident . $index:tt),+) => {
        impl<$($name: Label),+> Labels for ($($name,)+) {
            const DESCRIPTIONS: &'static [(&'static str, Bound)] = &[$(($name::NAME, $name::BOUND)),+];
            fn with_texts<R>(&self, f: impl FnOnce(&[&str]) -> R) -> R {
                f(&[$(self.$index.text()),+])
            }
        }
    };
}
tuple_labels!(A.0);
tuple_labels!(A.0, B.1);
tuple_labels!(A.0, B.1, C.2);
tuple_labels!(A.0, B.1, C.2, D.3);
tuple_labels!(A.0, B.1, C.2, D.3, E.4);

/// Declares a closed enum that is a label.
///
/// ```
/// belfry_signal::label_enum! {
///     /// How a handshake ended.
///     pub enum Outcome("outcome") {
///         /// It did.
///         Done = "done",
///         /// It did not, in time.
///         TimedOut = "timed_out",
///     }
/// }
/// assert_eq!(belfry_signal::Label::text(&Outcome::TimedOut), "timed_out");
/// ```
#[macro_export]
macro_rules! label_enum {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident($label:literal) {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant),+
        }

        #[allow(unreachable_pub, dead_code, reason = "the same face for private and public labels")]
        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text that stands in labels, logs and spans.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::Label for $name {
            const NAME: &'static str = $label;
            const BOUND: $crate::Bound = $crate::Bound::Enum(Self::ALL.len());
            fn text(&self) -> &str {
                self.as_str()
            }
        }
    };
}

/// Why a text cannot be a configured name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter")]
pub struct BadName(String);

/// Declares a label whose values are names from the configuration.
#[macro_export]
macro_rules! label_name {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident($label:literal, max = $max:literal)) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $visibility struct $name(std::sync::Arc<str>);

        #[allow(unreachable_pub, dead_code, reason = "the same face for private and public labels")]
        impl $name {
            /// How many of them a configuration may name.
            pub const MAX: usize = $max;

            /// A name that stands in the configuration; never call this with text that came from a peer.
            ///
            /// # Errors
            /// When the text is not a plain lower-case name of at most 63 characters.
            pub fn configured(name: &str) -> Result<Self, $crate::label::BadName> {
                $crate::label::check_name(name).map(Self)
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::Label for $name {
            const NAME: &'static str = $label;
            const BOUND: $crate::Bound = $crate::Bound::Configured($max);
            fn text(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Checks a configured name (see [`label_name!`](crate::label_name)).
///
/// # Errors
/// When the text is not a plain lower-case name of at most 63 characters.
pub fn check_name(name: &str) -> Result<Arc<str>, BadName> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if starts_well && is_plain && name.len() <= 63 { Ok(name.into()) } else { Err(BadName(name.to_owned())) }
}

label_name! {
    /// A steering region, as `eu` or `us-east`: where a customer belongs.
    pub struct Region("region", max = 64)
}

impl Serialize for Region {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::configured(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    label_enum! {
        /// Test label.
        enum Colour("colour") { Red = "red", Green = "green" }
    }

    #[test]
    fn tuples_know_their_names_bounds_and_texts() {
        let region = Region::configured("eu-west").expect("plain name");
        let labels = (Colour::Green, region);
        assert_eq!(
            <(Colour, Region)>::DESCRIPTIONS,
            &[("colour", Bound::Enum(2)), ("region", Bound::Configured(64))]
        );
        assert_eq!(labels.with_texts(|texts| texts.join("/")), "green/eu-west");
        assert_eq!(Colour::ALL, &[Colour::Red, Colour::Green]);
    }

    #[test]
    fn what_a_peer_could_send_is_not_a_name() {
        for text in ["", "1eu", "EU", "a b", "+4420", "sip:a@b", &"x".repeat(64)] {
            assert!(Region::configured(text).is_err(), "{text:?}");
        }
    }
}
