//! Session timers (RFC 4028) as a proxy has them: what it asks of both sides of a session, and for how long a session
//! lives without a refresh.
//!
//! A refresh is an INVITE or UPDATE that is answered 2xx. Whoever keeps the time is told what each request and each
//! answer means; no clock here.

use std::fmt;

use crate::header::HeaderName;
use crate::message::Parsed;
use crate::params::Params;
use crate::text::trim;

/// The smallest interval that anybody may ask for (RFC 4028 section 4).
pub const INTERVAL_SECONDS_MIN: u32 = 90;

/// Who refreshes, as seen from the request that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// Whoever sent the request.
    Uac,
    /// Whoever answers it.
    Uas,
}

/// The value of a Session-Expires header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// How long the session lives without a refresh.
    pub seconds: u32,
    /// Who refreshes, where it says so.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Reads a header value; `None` when it is not one.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
        let params = Params::parse(&value[end..])?;
        let refresher = match params.token("refresher") {
            Some(name) if name.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(name) if name.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            _ => None,
        };
        Some(Self { seconds: delta_seconds(&value[..end])?, refresher })
    }

    fn of<B: AsRef<[u8]>>(message: &Parsed<B>) -> Option<Self> {
        message.header(HeaderName::SessionExpires).and_then(Self::parse)
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seconds)?;
        match self.refresher {
            Some(Refresher::Uac) => f.write_str(";refresher=uac"),
            Some(Refresher::Uas) => f.write_str(";refresher=uas"),
            None => Ok(()),
        }
    }
}

/// What a proxy wants of the sessions that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The longest interval: longer ones are lowered, and it is asked for where nobody asks. 0 asks for nothing.
    pub seconds: u32,
    /// The shortest interval; shorter ones are refused or raised. At least [`INTERVAL_SECONDS_MIN`].
    pub seconds_min: u32,
}

/// What leaves with a request that may refresh a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The Session-Expires that it leaves with; `None` when nobody asks for a timer.
    pub expires: Option<SessionExpires>,
    /// The Min-SE that must be set, because the sender could not be told.
    pub seconds_min: Option<u32>,
    /// Whether `expires` is not what came.
    pub is_changed: bool,
    /// Whether the sender knows session timers.
    pub is_supported: bool,
}

/// What a 2xx says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Interval and refresher.
    pub expires: SessionExpires,
    /// Whether the answer must be given it on its way, with `Require: timer`: the side that answered knows no timers
    /// and the one that asked does (RFC 4028 section 8.2).
    pub is_inserted: bool,
}

impl Wish {
    /// What a request leaves with (RFC 4028 section 8.1).
    ///
    /// # Errors
    /// When its interval is too small and its sender can be told so: 422 with this Min-SE.
    pub fn ask<B: AsRef<[u8]>>(&self, request: &Parsed<B>) -> Result<Ask, u32> {
        let came = SessionExpires::of(request);
        let seconds_min = request.header(HeaderName::MinSe).and_then(min_se).unwrap_or(0);
        let floor = seconds_min.max(self.seconds_min);
        let is_supported = request.has_token(HeaderName::Supported, "timer")
            || request.has_token(HeaderName::Require, "timer");
        let unchanged = Ask { expires: came, seconds_min: None, is_changed: false, is_supported };
        let wanted = self.seconds.max(floor);
        match came {
            Some(came) if came.seconds < self.seconds_min && is_supported => Err(self.seconds_min),
            Some(came) if came.seconds < self.seconds_min => Ok(Ask {
                expires: Some(SessionExpires { seconds: floor, ..came }),
                seconds_min: Some(floor),
                is_changed: true,
                is_supported,
            }),
            Some(came) if self.seconds > 0 && came.seconds > wanted => Ok(Ask {
                expires: Some(SessionExpires { seconds: wanted, ..came }),
                is_changed: true,
                ..unchanged
            }),
            None if self.seconds > 0 => Ok(Ask {
                // Who refreshes is not for a proxy to say.
                expires: Some(SessionExpires { seconds: wanted, refresher: None }),
                is_changed: true,
                ..unchanged
            }),
            _ => Ok(unchanged),
        }
    }
}

impl Ask {
    /// What a 2xx to the request says (RFC 4028 section 8.2); `None` when the session has no timer from now on.
    #[must_use]
    pub fn agreed<B: AsRef<[u8]>>(&self, response: &Parsed<B>) -> Option<Agreed> {
        if let Some(mut expires) = SessionExpires::of(response) {
            // It must say who refreshes; where it does not, the side that answered at least knows timers.
            expires.refresher.get_or_insert(Refresher::Uas);
            return Some(Agreed { expires, is_inserted: false });
        }
        let asked = self.expires.filter(|_| self.is_supported)?;
        let expires = SessionExpires { refresher: Some(Refresher::Uac), ..asked };
        Some(Agreed { expires, is_inserted: true })
    }
}

/// A Min-SE: seconds, and parameters that mean nothing yet.
fn min_se(value: &[u8]) -> Option<u32> {
    let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
    delta_seconds(&value[..end])
}

/// Seconds; more than fits is as much as fits.
fn delta_seconds(text: &[u8]) -> Option<u32> {
    let text = trim(text);
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let digits = is_number.then(|| std::str::from_utf8(text).ok()).flatten()?;
    Some(digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
