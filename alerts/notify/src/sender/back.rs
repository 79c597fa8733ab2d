//! The way back, where the outbox is: what services and people here say of incidents.

use belfry_signal::now_unix_nanos;

use super::{Sender, on_blocking_thread};
use crate::back::standing::Report;
use crate::error::Error;
use crate::event;
use crate::outbox::{Act, Draft, Taken, Word};

impl Sender {
    /// Takes what a service says; on disk on return.
    pub(super) async fn reported(&mut self, service: String, report: Report) -> Result<(), Error> {
        self.settle().await?;
        let Some(name) =
            self.services.iter().find(|other| other.id == service).map(|other| other.name.clone())
        else {
            return Ok(());
        };
        let resolve = Draft {
            service: service.clone(),
            dedup_key: report.dedup_key.clone(),
            event: event::Sender::resolve(&report.dedup_key),
            is_followed: true,
        };
        let outbox = self.outbox.clone();
        let reported =
            on_blocking_thread(move || outbox.report(&service, &report, &resolve, now_unix_nanos())).await;
        let (taken, entry) = reported.inspect_err(|error| self.signals.outbox_failed(error))?;
        self.signals.report_taken(&name, taken);
        if let Some(entry) = entry {
            self.signals.event_enqueued(&name, Act::Resolve);
            self.take_up(entry).await;
        }
        if taken == Taken::Changed {
            self.read_standings().await;
        }
        Ok(())
    }

    /// Takes what somebody here says; whether there is such an incident.
    pub(super) async fn say(&mut self, word: Word) -> Result<bool, Error> {
        self.settle().await?;
        let outbox = self.outbox.clone();
        let said =
            on_blocking_thread(move || outbox.say(&word, event::Sender::acknowledge, now_unix_nanos()));
        let (is_known, entries) = said.await.inspect_err(|error| self.signals.outbox_failed(error))?;
        for entry in entries {
            if let Some(service) = self.services.iter().find(|service| service.id == entry.service) {
                self.signals.event_enqueued(&service.name, Act::Acknowledge);
            }
            self.take_up(entry).await;
        }
        self.read_standings().await;
        Ok(is_known)
    }

    /// Shows how open incidents stand. What cannot be read is shown as it was.
    pub(super) async fn read_standings(&mut self) {
        let outbox = self.outbox.clone();
        match on_blocking_thread(move || outbox.standings()).await {
            Ok(standings) if standings == *self.standings => {}
            Ok(standings) => self.standings = standings.into(),
            Err(error) => self.signals.outbox_failed(&error),
        }
    }
}
