//! Telephone numbers: what was dialled, and the one form in which numbers are compared.
//!
//! Own code instead of a library of every country's numbering plan: a switch needs the caller's prefixes and nothing
//! about area codes, and such a library costs megabytes and a regular expression per country.

use std::fmt;

use serde::Deserialize;

/// Digits of a number in E.164 (section 6.2.1).
pub(crate) const DIGITS_MAX: usize = 15;

/// An international number: 1 to 15 digits, country code first, without the plus sign (ITU-T E.164).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number {
    digits: [u8; DIGITS_MAX],
    length: u8,
}

impl Number {
    /// A number from its parts, which must be digits only. `None` when it is empty, too long, or begins with zero.
    #[must_use]
    pub fn of(parts: &[&str]) -> Option<Self> {
        let mut digits = [0; DIGITS_MAX];
        let mut length = 0;
        for byte in parts.iter().flat_map(|part| part.bytes()) {
            if !byte.is_ascii_digit() || length == DIGITS_MAX {
                return None;
            }
            digits[length] = byte;
            length += 1;
        }
        // No country code begins with zero.
        let is_number = length > 0 && digits[0] != b'0';
        is_number.then_some(Self { digits, length: u8::try_from(length).unwrap_or(0) })
    }

    /// A number as configurations write it: `+442071838750`, with or without the plus sign.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(&[text.strip_prefix('+').unwrap_or(text)])
    }

    /// The digits, country code first.
    #[must_use]
    pub fn digits(&self) -> &str {
        // Only ASCII digits get in.
        std::str::from_utf8(&self.digits[..usize::from(self.length)]).unwrap_or_default()
    }

    /// The country code (ITU-T E.164 annex D): one, two or three digits.
    #[must_use]
    pub fn country_code(&self) -> &str {
        let digits = self.digits();
        &digits[..country_code_length(digits.as_bytes()).min(digits.len())]
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.digits())
    }
}

/// Shows the country code only: logs are read by people whom numbers do not concern.
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}…({} digits)", self.country_code(), self.length)
    }
}

/// Country codes have one digit in zones 1 and 7, two where listed, and three elsewhere.
fn country_code_length(digits: &[u8]) -> usize {
    match digits {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    }
}

/// How the phones of a tenant, or a trunk, write numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DialPlan {
    /// The country code of national numbers, as `44`; empty when only international numbers are dialled.
    pub country_code: String,
    /// What stands before a national number, as `0`; `1` in North America; may be empty.
    pub national_prefix: String,
    /// What stands before an international number besides `+`, as `00` or `011`.
    pub international_prefixes: Vec<String>,
    /// How many digits a national number has when it is dialled without its prefix, as `10` in North America; 0 when
    /// that is not done.
    pub national_digits: u8,
    /// The area code of numbers dialled without one.
    pub area_code: String,
    /// How many digits a number without area code has; 0 when that is not done.
    pub local_digits: u8,
    /// What is dialled for a line to the outside, as `9`; empty when nothing is.
    pub outside_prefix: String,
    /// Up to so many digits name an extension: a user of the domain.
    pub extension_digits_max: u8,
    /// Whether digits that fit nothing else are an international number without its plus sign, as trunks write them.
    pub bare_is_international: bool,
}

impl Default for DialPlan {
    fn default() -> Self {
        Self {
            country_code: String::new(),
            national_prefix: "0".to_owned(),
            international_prefixes: vec!["00".to_owned()],
            national_digits: 0,
            area_code: String::new(),
            local_digits: 0,
            outside_prefix: String::new(),
            extension_digits_max: 0,
            bare_is_international: false,
        }
    }
}

/// What somebody dialled, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// A number of the world's numbering plan.
    Number(Number),
    /// A user of the domain: a name, an extension, or digits that no rule makes a number of.
    User,
    /// Meant as a number, and none.
    Invalid,
}

/// What was dialled without its visual separators (RFC 3966 section 5.1.1), when it consists of digits and a plus.
///
/// Only digits, one leading `+` and `-.() ` make a number; all else is a name.
#[must_use]
pub fn bare_digits(text: &str) -> Option<String> {
    let (sign, rest) = text.strip_prefix('+').map_or(("", text), |rest| ("+", rest));
    let mut bare = String::with_capacity(text.len());
    bare.push_str(sign);
    for character in rest.chars() {
        match character {
            '0'..='9' => bare.push(character),
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return None,
        }
    }
    (bare.len() > sign.len()).then_some(bare)
}

impl DialPlan {
    /// Understands what was dialled: `text` as [`bare_digits`] leaves it. `context` is the `phone-context` of a local
    /// number when that is a prefix (RFC 3966 section 5.1.5).
    #[must_use]
    pub fn understand(&self, text: &str, context: Option<&str>) -> Dialled {
        if let Some(digits) = text.strip_prefix('+') {
            return Number::of(&[digits]).map_or(Dialled::Invalid, Dialled::Number);
        }
        if let Some(context) = context.and_then(|context| context.strip_prefix('+')) {
            return self.in_context(text, context);
        }
        if text.len() <= usize::from(self.extension_digits_max) {
            return Dialled::User;
        }
        let Some(outside) = text.strip_prefix(self.outside_prefix.as_str()) else { return Dialled::User };
        self.outside(outside)
    }

    /// A local number whose context is a prefix: its national prefix is not part of the international number.
    fn in_context(&self, text: &str, context: &str) -> Dialled {
        let context: String = context.chars().filter(char::is_ascii_digit).collect();
        let is_country = context == self.country_code && !self.national_prefix.is_empty();
        let local = if is_country { text.strip_prefix(&self.national_prefix).unwrap_or(text) } else { text };
        Number::of(&[&context, local]).map_or(Dialled::Invalid, Dialled::Number)
    }

    fn outside(&self, text: &str) -> Dialled {
        let prefixes = self.international_prefixes.iter().filter(|prefix| !prefix.is_empty());
        if let Some(international) = prefixes.filter_map(|prefix| text.strip_prefix(prefix.as_str())).next() {
            return Number::of(&[international]).map_or(Dialled::Invalid, Dialled::Number);
        }
        let has_length = |length: u8| length > 0 && text.len() == usize::from(length);
        let country = self.country_code.as_str();
        let number = if country.is_empty() {
            None
        } else if has_length(self.local_digits) && !self.area_code.is_empty() {
            Number::of(&[country, &self.area_code, text])
        } else if has_length(self.national_digits) {
            Number::of(&[country, text])
        } else if !self.national_prefix.is_empty() {
            text.strip_prefix(&self.national_prefix).and_then(|national| Number::of(&[country, national]))
        } else {
            None
        };
        let number = number.or_else(|| self.bare_is_international.then(|| Number::of(&[text])).flatten());
        number.map_or(Dialled::User, Dialled::Number)
    }

    /// Faults, by key.
    pub(crate) fn check(&self, key: &str, faults: &mut Vec<(String, String)>) {
        let texts = [
            ("country_code", &self.country_code, 3),
            ("national_prefix", &self.national_prefix, 4),
            ("area_code", &self.area_code, 8),
            ("outside_prefix", &self.outside_prefix, 4),
        ];
        for (name, text, length_max) in texts {
            if text.len() > length_max || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                faults.push((format!("{key}.{name}"), format!("{text:?} is not 0 to {length_max} digits")));
            }
        }
        if self.country_code.starts_with('0') {
            faults.push((format!("{key}.country_code"), "no country code begins with 0".to_owned()));
        }
        for (index, prefix) in self.international_prefixes.iter().enumerate() {
            if !(1..=6).contains(&prefix.len()) || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
                let text = format!("{prefix:?} is not 1 to 6 digits; + is always understood");
                faults.push((format!("{key}.international_prefixes[{index}]"), text));
            }
        }
        if self.local_digits > 0 && self.area_code.is_empty() {
            faults.push((format!("{key}.local_digits"), "needs area_code".to_owned()));
        }
        if self.extension_digits_max > 10 {
            faults.push((format!("{key}.extension_digits_max"), "use 0 to 10 digits".to_owned()));
        }
    }
}

/// How a trunk wants numbers written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// `+442071838750`.
    #[default]
    PlusE164,
    /// `442071838750`.
    E164,
    /// National numbers of the trunk's own country as its dial plan writes them, others with the international prefix:
    /// `02071838750`, `004930123456`.
    National,
}

impl NumberFormat {
    /// The number in this format; `plan` is the trunk's.
    #[must_use]
    pub fn write(self, number: &Number, plan: &DialPlan) -> String {
        let digits = number.digits();
        match self {
            Self::PlusE164 => format!("+{digits}"),
            Self::E164 => digits.to_owned(),
            Self::National => {
                let national = digits.strip_prefix(plan.country_code.as_str());
                match national.filter(|_| !plan.country_code.is_empty()) {
                    Some(national) => format!("{}{national}", plan.national_prefix),
                    None => {
                        let prefix = plan.international_prefixes.first().map_or("00", String::as_str);
                        format!("{prefix}{digits}")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn britain() -> DialPlan {
        DialPlan {
            country_code: "44".into(),
            area_code: "20".into(),
            local_digits: 8,
            extension_digits_max: 4,
            ..DialPlan::default()
        }
    }

    fn america() -> DialPlan {
        DialPlan {
            country_code: "1".into(),
            national_prefix: "1".into(),
            international_prefixes: vec!["011".into()],
            national_digits: 10,
            area_code: "212".into(),
            local_digits: 7,
            outside_prefix: "9".into(),
            extension_digits_max: 4,
            ..DialPlan::default()
        }
    }

    fn check(plan: &DialPlan, dialled: &str, context: Option<&str>, expected: &str) {
        let shown = match bare_digits(dialled).map(|bare| plan.understand(&bare, context)) {
            Some(Dialled::Number(number)) => number.to_string(),
            Some(Dialled::User) => "user".to_owned(),
            Some(Dialled::Invalid) => "invalid".to_owned(),
            None => "name".to_owned(),
        };
        assert_eq!(shown, expected, "{dialled} {context:?}");
    }

    #[test]
    fn what_is_dialled_is_understood_by_the_plan() {
        let cases = [
            ("+442071838750", None, "+442071838750"),
            ("+44 (20) 7183-8750", None, "+442071838750"),
            ("00442071838750", None, "+442071838750"),
            ("0049 30 123456", None, "+4930123456"),
            ("02071838750", None, "+442071838750"),
            ("71838750", None, "+442071838750"),
            ("1001", None, "user"),
            ("99999", None, "user"),
            ("alice", None, "name"),
            ("*21#", None, "name"),
            ("+", None, "name"),
            ("", None, "name"),
            ("+0441", None, "invalid"),
            ("+1234567890123456", None, "invalid"),
            ("000", None, "user"),
            ("00000000", None, "invalid"),
            ("02071838750", Some("+44"), "+442071838750"),
            ("7042", Some("+1-914-555"), "+19145557042"),
            ("12345", Some("example.com"), "user"),
        ];
        cases.iter().for_each(|(dialled, context, expected)| check(&britain(), dialled, *context, expected));
        let cases = [
            ("912125551234", "+12125551234"),
            ("92125551234", "+12125551234"),
            ("95551234", "+12125551234"),
            ("9011442071838750", "+442071838750"),
            ("2125551234", "user"),
            ("100", "user"),
        ];
        cases.iter().for_each(|(dialled, expected)| check(&america(), dialled, None, expected));
        let trunk = DialPlan { bare_is_international: true, ..DialPlan::default() };
        check(&trunk, "442071838750", None, "+442071838750");
        check(&trunk, "00442071838750", None, "+442071838750");
    }

    #[test]
    fn country_codes_are_cut_where_they_end() {
        for (number, code) in
            [("12125551234", "1"), ("4420", "44"), ("35312", "353"), ("7", "7"), ("88", "88")]
        {
            assert_eq!(Number::parse(number).expect("digits").country_code(), code);
        }
    }

    #[test]
    fn trunks_get_the_format_that_they_want() {
        let (home, abroad) =
            (Number::parse("+442071838750").expect("digits"), Number::parse("4930123").expect("digits"));
        for (format, expected) in [
            (NumberFormat::PlusE164, ["+442071838750", "+4930123"]),
            (NumberFormat::E164, ["442071838750", "4930123"]),
            (NumberFormat::National, ["02071838750", "004930123"]),
        ] {
            assert_eq!([format.write(&home, &britain()), format.write(&abroad, &britain())], expected);
        }
    }

    #[test]
    fn debugging_shows_no_number() {
        let shown = format!("{:?}", Number::parse("+442071838750"));
        assert!(!shown.contains("2071838750") && shown.contains("+44"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_dialled_is_understood_without_panic(text in "[0-9+]{0,20}", context in "[+0-9.a-]{0,6}") {
            if let Some(bare) = bare_digits(&text) {
                for plan in [britain(), america(), DialPlan::default()] {
                    if let Dialled::Number(number) = plan.understand(&bare, Some(&context)) {
                        assert!((1..=DIGITS_MAX).contains(&number.digits().len()));
                    }
                    let _ = plan.understand(&bare, None);
                }
            }
        }
    }
}
