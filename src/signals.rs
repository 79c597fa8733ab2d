//! Everything the front door tells the world: start, readiness, reload, drain.

use std::borrow::Cow;
use std::net::IpAddr;

use belfry_signal::record::Attributes;
use belfry_signal::{Counter, Emitter, Gauge, Pii, Registry, Severity};

/// The component's name in records and metrics.
const COMPONENT: &str = "belfry";

belfry_signal::label_enum! {
    /// How a reload ended.
    pub enum Reload("outcome") {
        /// The new configuration is in force.
        Swapped = "swapped",
        /// It is wrong; the old one stays.
        Refused = "refused",
    }
}

/// The front door's signals.
#[derive(Clone, Debug)]
pub struct Signals {
    emitter: Emitter,
    reloads: Counter<(Reload,)>,
    ready: Gauge<()>,
    rooms: Gauge<()>,
    open_files_max: Gauge<()>,
}

impl Signals {
    /// Registers the front door's metrics.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            reloads: component
                .counter("config_reloads_total", "Configurations re-read on SIGHUP, by outcome."),
            ready: component
                .gauge("ready", "1 when this process takes customers, 0 while it starts or drains."),
            rooms: component.gauge("rooms", "Rooms that are on in this process."),
            open_files_max: component.gauge("open_files_max", "Files and sockets that the system allows."),
        }
    }

    /// The system allows this many open files; absent means any number.
    pub fn open_files_allowed(&self, files_max: Option<u64>) {
        let files_max = files_max.and_then(|files_max| i64::try_from(files_max).ok()).unwrap_or(i64::MAX);
        self.open_files_max.set((), files_max);
        self.log(Severity::Info, "open files allowed", vec![("files_max".into(), files_max.into())]);
    }

    /// A room is up.
    pub fn room_started(&self, room: &'static str) {
        self.rooms.add((), 1);
        self.log(Severity::Info, "room started", vec![("room".into(), room.into())]);
    }

    /// A room was drained; `stragglers` did not finish.
    pub fn room_drained(&self, room: &'static str, stragglers: &[String]) {
        self.rooms.add((), -1);
        let severity = if stragglers.is_empty() { Severity::Info } else { Severity::Warn };
        let named = belfry_signal::Value::Text(Cow::Owned(stragglers.join(", ")));
        self.log(severity, "room drained", vec![("room".into(), room.into()), ("stragglers".into(), named)]);
    }

    /// This process takes customers from now on, or no longer does.
    pub fn readiness_changed(&self, is_ready: bool) {
        self.ready.set((), i64::from(is_ready));
        self.log(Severity::Info, "readiness changed", vec![("ready".into(), is_ready.into())]);
    }

    /// SIGHUP brought a new configuration; what `needs_restart` names is not in force yet.
    pub fn config_reloaded(&self, needs_restart: &[String]) {
        self.reloads.inc((Reload::Swapped,));
        let severity = if needs_restart.is_empty() { Severity::Info } else { Severity::Warn };
        let waiting = belfry_signal::Value::Text(Cow::Owned(needs_restart.join(", ")));
        self.log(severity, "configuration reloaded", vec![("needs_restart".into(), waiting)]);
    }

    /// SIGHUP brought a configuration with this many faults; the old one stays in force.
    pub fn config_refused(&self, faults: usize) {
        self.reloads.inc((Reload::Refused,));
        let faults = i64::try_from(faults).unwrap_or(i64::MAX);
        self.log(
            Severity::Error,
            "new configuration refused, the old one stays in force",
            vec![("faults".into(), faults.into())],
        );
    }

    /// Calls are rated again, or why they are not.
    pub fn rating_changed(&self, fault: Option<&str>) {
        match fault {
            None => self.log(Severity::Info, "calls are rated", vec![]),
            Some(fault) => {
                let fault = belfry_signal::Value::Text(Cow::Owned(fault.to_owned()));
                let message = "calls are not rated, and wait until they can be";
                self.log(Severity::Error, message, vec![("fault".into(), fault)]);
            }
        }
    }

    /// A demo's fault was switched.
    pub fn fault_switched(&self, fault: &'static str, is_on: bool) {
        self.log(
            Severity::Warn,
            "fault switched",
            vec![("fault".into(), fault.into()), ("on".into(), is_on.into())],
        );
    }

    /// Somebody ordered the end of a call: who did is kept with the order, for the audit.
    pub fn call_end_ordered(&self, call_id: &str, peer: Option<IpAddr>, is_done: bool) {
        let peer = Pii::new(peer.map_or_else(String::new, |peer| peer.to_string()));
        let attributes = vec![("peer".into(), peer.into()), ("done".into(), is_done.into())];
        let call_id = Some(Pii::new(call_id.to_owned()));
        self.emitter.log(
            COMPONENT,
            Severity::Warn,
            "end of a call ordered by an operator",
            attributes,
            None,
            call_id,
        );
    }

    /// Somebody ordered a pardon: who did is kept with the order, for the audit.
    pub fn pardon_ordered(&self, source: IpAddr, peer: Option<IpAddr>, was_banned: bool) {
        let peer = Pii::new(peer.map_or_else(String::new, |peer| peer.to_string()));
        let attributes = vec![
            ("peer".into(), peer.into()),
            ("net.peer".into(), Pii::new(source.to_string()).into()),
            ("was_banned".into(), was_banned.into()),
        ];
        self.log(Severity::Warn, "pardon ordered by an operator", attributes);
    }

    /// Somebody ordered work on the store of metrics: who did is kept with the order, for the audit.
    pub fn store_work_ordered(&self, work: &str, subject: &str, peer: Option<IpAddr>) {
        let peer = Pii::new(peer.map_or_else(String::new, |peer| peer.to_string()));
        let attributes = vec![
            ("work".into(), belfry_signal::Value::Text(Cow::Owned(work.to_owned()))),
            // A selector may name a customer.
            ("subject".into(), Pii::new(subject.to_owned()).into()),
            ("peer".into(), peer.into()),
        ];
        self.log(Severity::Warn, "work on the store of metrics ordered by an operator", attributes);
    }

    /// Work that was ordered is over.
    pub fn store_work_ended(&self, work: &str, is_done: bool, result: &str) {
        let attributes = vec![
            ("work".into(), belfry_signal::Value::Text(Cow::Owned(work.to_owned()))),
            ("done".into(), is_done.into()),
            ("result".into(), Pii::new(result.to_owned()).into()),
        ];
        self.log(Severity::Warn, "work on the store of metrics ended", attributes);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
