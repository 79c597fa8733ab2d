//! String literals and numbers as text: unquoting, quoting, and how a float is written.

/// Bytes of a literal that are no UTF-8 (`"\xff"`) are carried as private characters from here on, so that a
/// literal is a `String` and still comes back as it was written in an error message.
const RAW_BYTE_BASE: u32 = 0x10_FF00;

/// The byte that a character stands for, if it stands for a byte that is no UTF-8.
pub(crate) fn raw_byte(letter: char) -> Option<u8> {
    u32::from(letter)
        .checked_sub(RAW_BYTE_BASE)
        .filter(|byte| *byte >= 0x80)
        .and_then(|b| u8::try_from(b).ok())
}

/// The text of a literal between double or single quotes, quotes removed, or what is wrong with it.
pub(crate) fn unescape(body: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            push(&mut bytes, letter);
            continue;
        }
        let escape = letters.next().ok_or("escape sequence without a character")?;
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '\'' | '"' => bytes.push(escape as u8),
            'x' => bytes.push(number(&mut letters, 2, 16)? as u8),
            'u' | 'U' => {
                let code = number(&mut letters, if escape == 'u' { 4 } else { 8 }, 16)?;
                push(&mut bytes, char::from_u32(code).ok_or("escape sequence is no Unicode character")?);
            }
            '0'..='7' => {
                let rest = number(&mut letters, 2, 8)?;
                let code = escape.to_digit(8).unwrap_or(0) * 64 + rest;
                bytes.push(u8::try_from(code).map_err(|_| "octal escape above 255")?);
            }
            other => return Err(format!("unknown escape sequence '\\{other}'")),
        }
    }
    Ok(from_bytes(&bytes))
}

fn push(bytes: &mut Vec<u8>, letter: char) {
    bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}

fn number(letters: &mut std::str::Chars<'_>, digits: usize, radix: u32) -> Result<u32, String> {
    let mut value = 0;
    for _ in 0..digits {
        let digit = letters.next().and_then(|letter| letter.to_digit(radix));
        value = value * radix + digit.ok_or_else(|| format!("escape sequence needs {digits} digits"))?;
    }
    Ok(value)
}

fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(
            chunk.invalid().iter().filter_map(|byte| char::from_u32(RAW_BYTE_BASE + u32::from(*byte))),
        );
    }
    text
}

/// A double-quoted literal that reads back as `text`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ => match raw_byte(letter) {
                Some(byte) => quoted.push_str(&format!("\\x{byte:02x}")),
                None => quoted.push(letter),
            },
        }
    }
    quoted.push('"');
    quoted
}

/// A float without exponent, as label values carry it: `1`, `0.5`, `+Inf`, `NaN`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

/// A float in its shortest form, with an exponent where that is the usual way: `1e+100`.
pub fn format_short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-4..1e21).contains(&magnitude) {
        return format_float(value);
    }
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A float literal: decimal, hexadecimal, `Inf` or `NaN`, with `_` between digits.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let cleaned = text.replace('_', "");
    let lower = cleaned.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(|value| value as f64);
    }
    if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|byte| byte.is_ascii_digit()) {
        return i64::from_str_radix(&lower, 8).ok().map(|value| value as f64).or_else(|| lower.parse().ok());
    }
    cleaned.parse().ok()
}

/// Units of a duration, largest first, in milliseconds.
const UNITS: &[(&str, i64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// `1h30m` in milliseconds: each unit at most once, largest first.
pub fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: i64 = rest[..digits].parse().ok()?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + letters];
        let at = UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next_unit)?;
        total = total.checked_add(amount.checked_mul(UNITS[at].1)?)?;
        next_unit = at + 1;
        rest = &rest[digits + letters..];
    }
    (!text.is_empty()).then_some(total)
}

/// Milliseconds in the form that `parse_duration` reads.
pub(crate) fn format_duration(milliseconds: i64) -> String {
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let mut text = if milliseconds < 0 { "-".to_owned() } else { String::new() };
    let mut rest = milliseconds.unsigned_abs();
    for (name, size) in UNITS {
        let size = size.unsigned_abs();
        // Years and weeks only where nothing is left over: `1y` is clearer than `365d`, `52w1d` is not.
        let is_exact_only = matches!(*name, "y" | "w");
        if rest >= size && (!is_exact_only || rest.is_multiple_of(size)) {
            text.push_str(&format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    text
}

/// Orders texts as people do: runs of digits by their number.
pub(crate) fn natural_order(left: &str, right: &str) -> std::cmp::Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (left_part, left_rest) = natural_part(left);
        let (right_part, right_rest) = natural_part(right);
        let is_number = |part: &str| part.starts_with(|letter: char| letter.is_ascii_digit());
        let order = if is_number(left_part) && is_number(right_part) {
            let (left_digits, right_digits) =
                (left_part.trim_start_matches('0'), right_part.trim_start_matches('0'));
            left_digits.len().cmp(&right_digits.len()).then_with(|| left_digits.cmp(right_digits))
        } else {
            left_part.cmp(right_part)
        };
        if order.is_ne() || left_part.is_empty() || right_part.is_empty() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

/// The digits, or the letters, that a text begins with.
fn natural_part(text: &str) -> (&str, &str) {
    let is_digit = text.starts_with(|letter: char| letter.is_ascii_digit());
    let end = text.find(|letter: char| letter.is_ascii_digit() != is_digit).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_back_as_written() {
        for text in ["", "a\"b\\c\n", "größe", "日本"] {
            let quoted = quote(text);
            assert_eq!(unescape(&quoted[1..quoted.len() - 1]), Ok(text.to_owned()));
        }
        assert_eq!(quote(&unescape(r"a\xc5z").unwrap()), r#""a\xc5z""#);
        assert!(unescape(r"\q").is_err());
    }

    #[test]
    fn durations_and_floats() {
        assert_eq!(parse_duration("1h30m"), Some(5_400_000));
        assert_eq!(parse_duration("10s53ms"), Some(10_053));
        assert_eq!(parse_duration("1m1h"), None);
        assert_eq!(format_duration(5_400_000), "1h30m");
        assert_eq!(format_short(1e100), "1e+100");
        assert_eq!(parse_float("0x1F"), Some(31.0));
        assert_eq!(parse_float("1_000.5"), Some(1000.5));
    }
}
