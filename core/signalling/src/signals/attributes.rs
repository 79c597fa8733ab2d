//! Values as attributes of log lines and spans.

use std::net::SocketAddr;

use belfry_signal::record::{Attributes, Name};
use belfry_signal::{Pii, Value};

use crate::handle::Transport;

pub(super) fn next_hop(transport: Transport, address: SocketAddr) -> Attributes {
    vec![
        ("transport".into(), transport.uri_token().into()),
        ("net.peer".into(), Pii::new(address.to_string()).into()),
    ]
}

pub(super) fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn count(count: usize) -> Value {
    to_i64(count).into()
}

/// Text of the configuration or a closed vocabulary, as an attribute.
pub(super) trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for String {
    fn into_value(self) -> Value {
        Value::Text(self.into())
    }
}

impl IntoValue for Name {
    fn into_value(self) -> Value {
        Value::Text(self)
    }
}

/// A status code as text; those that every call has cost no memory.
pub(super) fn status_text(status: u16) -> Name {
    const USUAL: [(u16, &str); 12] = [
        (100, "100"),
        (180, "180"),
        (183, "183"),
        (200, "200"),
        (202, "202"),
        (401, "401"),
        (404, "404"),
        (407, "407"),
        (480, "480"),
        (486, "486"),
        (487, "487"),
        (503, "503"),
    ];
    let usual = USUAL.iter().find(|(code, _)| *code == status);
    usual.map_or_else(|| status.to_string().into(), |(_, text)| Name::Borrowed(text))
}
