//! Country and continent codes: two ASCII letters, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// An ISO 3166-1 alpha-2 country code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// A continent code as GeoIP files use it: AF, AN, AS, EU, NA, OC, SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Continent([u8; 2]);

/// Why a text is not a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: use {allowed}")]
pub struct BadCode {
    text: String,
    kind: &'static str,
    allowed: &'static str,
}

const CONTINENTS: [&[u8; 2]; 7] = [b"AF", b"AN", b"AS", b"EU", b"NA", b"OC", b"SA"];

impl Country {
    /// The code in upper case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Continent {
    /// The code in upper case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Country {
    type Err = BadCode;

    fn from_str(text: &str) -> Result<Self, BadCode> {
        let allowed = "two letters as in ISO 3166-1 alpha-2, such as \"GB\"";
        two_letters(text).map(Self).ok_or_else(|| BadCode { text: text.to_owned(), kind: "country", allowed })
    }
}

impl FromStr for Continent {
    type Err = BadCode;

    fn from_str(text: &str) -> Result<Self, BadCode> {
        let allowed = "one of AF, AN, AS, EU, NA, OC, SA";
        two_letters(text).filter(|code| CONTINENTS.contains(&code)).map(Self).ok_or_else(|| BadCode {
            text: text.to_owned(),
            kind: "continent",
            allowed,
        })
    }
}

fn two_letters(text: &str) -> Option<[u8; 2]> {
    let bytes: [u8; 2] = text.as_bytes().try_into().ok()?;
    bytes.iter().all(u8::is_ascii_alphabetic).then(|| bytes.map(|byte| byte.to_ascii_uppercase()))
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Continent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
