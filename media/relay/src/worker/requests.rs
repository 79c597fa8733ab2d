//! Requests of the core: offer, answer, delete, query.

use std::time::Instant;

use belfry_relay_api::{Description, Leg, Refusal, Reply, Request, SessionKey};
use belfry_rtp_proto::Error as MediaError;
use belfry_rtp_proto::sdp::{self, Media};
use belfry_signal::{Region, TraceId};

use super::Worker;
use crate::handle::Controller;
use crate::ports::{BindError, Pair};
use crate::session::{Session, Stream, check_family};
use crate::signals::{End, Subject, unix_nanos};

impl Worker {
    /// Serves one request.
    pub(super) fn answer(&mut self, request: Request, by: &Controller, now: Instant) -> Reply {
        let outcome = match request {
            Request::Offer(description) => self.offer(&description, by, now),
            Request::Answer(description) => self.take_answer(&description, by, now),
            Request::Delete { session } => self.delete(&session, now),
            Request::Query { session } => self.query(&session, by, now),
        };
        outcome.unwrap_or_else(Reply::Refused)
    }

    fn offer(&mut self, description: &Description, by: &Controller, now: Instant) -> Result<Reply, Refusal> {
        let parsed = self.parse(description)?;
        let (slot, is_new) = match self.by_key.get(&description.session) {
            Some(&slot) => {
                self.adopt(slot, by, now);
                (slot, false)
            }
            None => {
                self.common.admit_session()?;
                let session = Session::new(self.subject(description), by.clone(), unix_nanos(), now);
                (self.insert(session), true)
            }
        };
        if let Err(refusal) = self.open_streams(slot, parsed.media(), now) {
            if is_new {
                self.discard(slot);
            }
            return Err(refusal);
        }
        if is_new {
            self.common.signals.session_began(self.common.pool.used());
        } else {
            self.common.signals.ports_changed(self.common.pool.used());
        }
        self.describe(slot, description, &parsed, now)
    }

    fn take_answer(
        &mut self,
        description: &Description,
        by: &Controller,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let slot = self.slot(&description.session)?;
        self.adopt(slot, by, now);
        let parsed = self.parse(description)?;
        let streams = self.sessions[slot].as_ref().map_or(&[][..], |session| &session.streams);
        // An answer turns media off, never on: there would be no ports to send it to.
        let is_offered = |(index, media): (usize, &Media)| {
            !media.is_on() || streams.get(index).is_some_and(Option::is_some)
        };
        if !parsed.media().iter().enumerate().all(is_offered) {
            let what = "the answer turns on media that was not offered";
            self.common.signals.description_refused(&description.session, description.from, 0, what);
            return Err(Refusal::BadDescription);
        }
        let reply = self.describe(slot, description, &parsed, now);
        if let Some(session) = &mut self.sessions[slot]
            && session.answered.is_none()
        {
            session.answered = Some(now);
            session.window_started = now;
        }
        reply
    }

    fn delete(&mut self, key: &SessionKey, now: Instant) -> Result<Reply, Refusal> {
        let slot = self.slot(key)?;
        let report = self.remove(slot, End::Deleted, now).ok_or(Refusal::UnknownSession)?;
        Ok(Reply::Deleted(Box::new(report)))
    }

    fn query(&mut self, key: &SessionKey, by: &Controller, now: Instant) -> Result<Reply, Refusal> {
        let slot = self.slot(key)?;
        self.adopt(slot, by, now);
        let session = self.sessions[slot].as_ref().ok_or(Refusal::UnknownSession)?;
        Ok(Reply::State(Box::new(session.report(now))))
    }

    fn slot(&self, key: &SessionKey) -> Result<usize, Refusal> {
        self.by_key.get(key).copied().ok_or(Refusal::UnknownSession)
    }

    fn parse<'a>(&self, description: &'a Description) -> Result<sdp::Description<'a>, Refusal> {
        let config = &self.common.config;
        let limits = sdp::Limits { bytes_max: config.description_bytes_max, media_max: config.streams_max };
        let parsed = sdp::Description::parse(&description.sdp, limits).and_then(|parsed| {
            check_family(parsed.media(), description.signalled_from, config.bind_address)
                .map(|()| parsed)
                .map_err(|_| MediaError::Description { line: 0, what: "no address of the relay's family" })
        });
        parsed.map_err(|error| {
            if let MediaError::Description { line, what } = error {
                self.common.signals.description_refused(&description.session, description.from, line, what);
            }
            Refusal::BadDescription
        })
    }

    fn subject(&self, description: &Description) -> Subject {
        // The core sends a configured region's name; anything else would be a bug there, and must not be a label.
        let region =
            Region::configured(&description.region).unwrap_or_else(|_| self.common.signals.home_region());
        Subject { key: description.session.clone(), region, trace_id: TraceId(description.trace_id) }
    }

    /// Opens what the offer turns on and closes what it ends. On refusal the session stays as it was.
    fn open_streams(&mut self, slot: usize, media: &[Media], now: Instant) -> Result<(), Refusal> {
        let Some(session) = &self.sessions[slot] else { return Err(Refusal::UnknownSession) };
        let jitter_buffer_ms =
            u32::try_from(self.common.config.jitter_buffer.as_millis()).unwrap_or(u32::MAX);
        let mut opened = Vec::new();
        for (index, media) in media.iter().enumerate() {
            let is_open = session.streams.get(index).is_some_and(Option::is_some);
            if media.is_on() && !is_open {
                let pairs = [self.bind()?, self.bind()?];
                let mut stream = Stream::new(media, pairs, jitter_buffer_ms, now);
                self.register(slot, index, &mut stream).map_err(|error| self.socket_failed(&error))?;
                opened.push((index, stream));
            }
        }
        let Some(session) = &mut self.sessions[slot] else { return Err(Refusal::UnknownSession) };
        if session.streams.len() < media.len() {
            session.streams.resize_with(media.len(), || None);
        }
        for (stream, media) in session.streams.iter_mut().zip(media) {
            if !media.is_on() {
                *stream = None;
            }
        }
        for (index, stream) in opened {
            session.streams[index] = Some(stream);
        }
        Ok(())
    }

    fn bind(&self) -> Result<Pair, Refusal> {
        self.common.pool.bind().map_err(|error| match error {
            BindError::Exhausted => Refusal::PortsExhausted,
            BindError::Socket(error) => self.socket_failed(&error),
        })
    }

    fn socket_failed(&self, error: &std::io::Error) -> Refusal {
        self.common.signals.socket_failed(error);
        Refusal::Unavailable
    }

    /// Takes a description in and writes the one to send on.
    fn describe(
        &mut self,
        slot: usize,
        description: &Description,
        parsed: &sdp::Description<'_>,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let session = self.sessions[slot].as_mut().ok_or(Refusal::UnknownSession)?;
        let from: Leg = description.from;
        session.touched = now;
        session.describe(from, parsed.media(), description.signalled_from, now);
        let ports = session.ports_facing(from.other());
        Ok(Reply::Description { sdp: parsed.rewrite(self.common.config.public_address(), &ports) })
    }

    /// Takes back a session that never came to be.
    fn discard(&mut self, slot: usize) {
        if let Some(session) = self.sessions[slot].take() {
            self.by_key.remove(&session.subject.key);
            self.free.push(slot);
            self.common.release_session();
        }
    }
}
