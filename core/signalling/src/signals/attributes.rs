//! Values as attributes of log lines and spans.

use std::net::SocketAddr;

use belfry_signal::record::Attributes;
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

impl IntoValue for belfry_signal::record::Name {
    fn into_value(self) -> Value {
        Value::Text(self)
    }
}
