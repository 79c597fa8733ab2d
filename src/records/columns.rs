//! The columns of an export, in their order, the same in every format.
//!
//! | column | what it holds |
//! | --- | --- |
//! | `call_id`, `from_tag`, `to_tag` | the dialog; `to_tag` is empty when nobody answered |
//! | `epoch` | tells calls apart that use one Call-ID: the start in Unix nanoseconds |
//! | `trace_id` | the call's trace, in hexadecimal |
//! | `start`, `answer`, `end` | times in UTC, to the nanosecond; no `answer` when nobody answered |
//! | `caller`, `callee` | addresses of record |
//! | `region`, `country` | of the caller; the country by ISO 3166-1, when it is known |
//! | `transport` | of the caller, as `tls` |
//! | `tenant` | whose customer's it is: the caller's, or the called one's for calls from trunks |
//! | `calling_trunk`, `called_trunk` | the trunk that it came by, and the one that it left by or was last tried at |
//! | `called_number` | what was dialled, in E.164, when it is a number of the world's |
//! | `emergency` | `true` for a call for help |
//! | `account` | who paid for it in advance |
//! | `status_code` | the final status of the INVITE; 0 when it had none |
//! | `outcome`, `cause` | how the call ended, and why |
//! | `node` | the node that owned the call |
//! | `price`, `currency` | exact, with twelve digits after the point in Parquet; empty while the call is not rated |
//! | `profile`, `profile_version`, `destination` | what the price was made by |
//! | `charged_seconds`, `free_seconds` | seconds of all increments, and those of them that cost nothing |

use belfry_state::{CallRecord, Charge};
use jiff::Timestamp;

/// Gets the value of a column; `None` where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Get {
    Text(for<'a> fn(&'a CallRecord) -> Option<&'a str>),
    /// Nanoseconds since the Unix epoch.
    Time(fn(&CallRecord) -> Option<u64>),
    Number(fn(&CallRecord) -> Option<u64>),
    /// An exact decimal.
    Decimal(for<'a> fn(&'a CallRecord) -> Option<&'a str>),
}

/// A column: its name, and how to get its value.
pub(super) type Column = (&'static str, Get);

pub(super) const COLUMNS: [Column; 30] = [
    ("call_id", Get::Text(|r| Some(r.call_id.reveal()))),
    ("from_tag", Get::Text(|r| Some(&r.from_tag))),
    ("to_tag", Get::Text(|r| Some(&r.to_tag))),
    ("epoch", Get::Number(|r| Some(r.epoch))),
    ("trace_id", Get::Text(|r| Some(&r.trace_id))),
    ("start", Get::Time(|r| Some(r.start_unix_nanos))),
    ("answer", Get::Time(|r| r.answer_unix_nanos)),
    ("end", Get::Time(|r| Some(r.end_unix_nanos))),
    ("caller", Get::Text(|r| Some(r.caller.reveal()))),
    ("callee", Get::Text(|r| Some(r.callee.reveal()))),
    ("region", Get::Text(|r| Some(r.region.as_str()))),
    ("country", Get::Text(|r| r.country.as_deref())),
    ("transport", Get::Text(|r| Some(&r.transport))),
    ("tenant", Get::Text(|r| r.tenant.as_deref())),
    ("calling_trunk", Get::Text(|r| r.calling_trunk.as_deref())),
    ("called_trunk", Get::Text(|r| r.called_trunk.as_deref())),
    ("called_number", Get::Text(|r| r.called_number.as_ref().map(|number| number.reveal().as_str()))),
    ("emergency", Get::Text(|r| r.is_emergency.then_some("true"))),
    ("account", Get::Text(|r| r.prepaid.as_ref().map(|prepaid| prepaid.account.reveal().as_str()))),
    ("status_code", Get::Number(|r| Some(r.status_code.into()))),
    ("outcome", Get::Text(|r| Some(&r.outcome))),
    ("cause", Get::Text(|r| Some(&r.cause))),
    ("node", Get::Text(|r| Some(&r.node))),
    ("price", Get::Decimal(|r| charge(r).map(|c| c.price.as_str()))),
    ("currency", Get::Text(|r| charge(r).map(|c| c.currency.as_str()))),
    ("profile", Get::Text(|r| charge(r).map(|c| c.profile.as_str()))),
    ("profile_version", Get::Number(|r| charge(r).map(|c| c.profile_version.into()))),
    ("destination", Get::Text(|r| charge(r).map(|c| c.destination.as_str()))),
    ("charged_seconds", Get::Number(|r| charge(r).map(|c| c.charged_seconds))),
    ("free_seconds", Get::Number(|r| charge(r).map(|c| c.free_seconds))),
];

fn charge(record: &CallRecord) -> Option<&Charge> {
    record.charge.as_ref()
}

/// The trunks of a call, as `in>out`.
fn trunks(record: &CallRecord) -> String {
    match (&record.calling_trunk, &record.called_trunk) {
        (Some(calling), called) => format!("{calling}>{}", called.as_deref().unwrap_or_default()),
        (None, Some(called)) => format!(">{called}"),
        (None, None) => String::new(),
    }
}

/// A time as RFC 3339 has it.
pub(super) fn time(unix_nanos: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanos))
        .map_or_else(|_| unix_nanos.to_string(), |at| at.to_string())
}

/// Lays records out for people.
pub(super) fn table(records: &[CallRecord]) -> String {
    let head = ["END", "SECONDS", "CALLER", "CALLEE", "TENANT", "TRUNK", "OUTCOME", "CAUSE", "PRICE"];
    let mut rows = vec![head.map(str::to_owned)];
    for record in records {
        let seconds = record.answer_unix_nanos.map(|answer| {
            let millis = record.end_unix_nanos.saturating_sub(answer) / 1_000_000;
            format!("{}.{:03}", millis / 1000, millis % 1000)
        });
        let price = charge(record).map(|charge| format!("{} {}", charge.price, charge.currency));
        rows.push([
            time(record.end_unix_nanos / 1_000_000_000 * 1_000_000_000),
            seconds.unwrap_or_default(),
            record.caller.reveal().clone(),
            record.callee.reveal().clone(),
            record.tenant.clone().unwrap_or_default(),
            trunks(record),
            record.outcome.to_string(),
            record.cause.to_string(),
            price.unwrap_or_default(),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 9]| -> String {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
