//! Silences: who wants to hear nothing of what, until when and why. A silence takes nothing away but the noise.

use std::collections::BTreeMap;

use belfry_promql::Labels;
use serde::{Deserialize, Serialize};

use crate::matchers::{Matchers, PlainMatcher};

/// A silence as it is kept. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its id, a UUID.
    pub id: String,
    /// What it silences: all of them must hold.
    pub matchers: Vec<PlainMatcher>,
    /// From when on.
    pub starts_at_ms: i64,
    /// Until when.
    pub ends_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilenceRequest {
    /// The silence to be changed; `None` for a new one.
    pub id: Option<String>,
    /// What it silences.
    pub matchers: Vec<PlainMatcher>,
    /// From when on.
    pub starts_at_ms: i64,
    /// Until when.
    pub ends_at_ms: i64,
    /// Who asks.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// How a silence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilenceState {
    /// It is to begin.
    Pending,
    /// It is in force.
    Active,
    /// It is over.
    Expired,
}

/// Why a silence was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// There is none of this id.
    #[error("silence {0} not found")]
    NotFound(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There are as many as may be.
    #[error("{0} silences are as many as may be: expire some")]
    Full(usize),
}

/// How long an expired silence is remembered.
const RETENTION_MS: i64 = 120 * 3_600_000;
const TEXT_CHARS_MAX: usize = 1_024;

impl SilenceState {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Expired => "expired",
        }
    }
}

impl Silence {
    /// How it stands at a time.
    #[must_use]
    pub fn state(&self, now_ms: i64) -> SilenceState {
        if now_ms >= self.ends_at_ms {
            SilenceState::Expired
        } else if now_ms < self.starts_at_ms {
            SilenceState::Pending
        } else {
            SilenceState::Active
        }
    }
}

/// All silences, compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silences {
    all: BTreeMap<String, (Silence, Matchers)>,
}

impl Silences {
    pub(crate) fn restore(&mut self, silence: Silence) -> Result<(), String> {
        let matchers = Matchers::of(&silence.matchers)?;
        self.all.insert(silence.id.clone(), (silence, matchers));
        Ok(())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Silence> {
        self.all.values().map(|(silence, _)| silence)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Silence> {
        self.all.get(id).map(|(silence, _)| silence)
    }

    /// The silences in force that are about these labels.
    pub(crate) fn of(&self, labels: &Labels, now_ms: i64) -> Vec<String> {
        let active = self.all.values().filter(|(silence, matchers)| {
            silence.state(now_ms) == SilenceState::Active && matchers.matches(labels)
        });
        active.map(|(silence, _)| silence.id.clone()).collect()
    }

    /// Takes a new silence, or changes one. `fresh_id` is used when it becomes a new one: always, unless what it
    /// silences stays the same. The ids that changed, the one that was asked for last.
    pub(crate) fn set(
        &mut self,
        request: SilenceRequest,
        fresh_id: &str,
        now_ms: i64,
        silences_max: usize,
    ) -> Result<Vec<String>, SilenceError> {
        let matchers = check(&request, now_ms).map_err(SilenceError::Invalid)?;
        let mut changed = Vec::new();
        let mut id = fresh_id.to_owned();
        if let Some(asked) = &request.id {
            let held = self.get(asked).ok_or_else(|| SilenceError::NotFound(asked.clone()))?;
            let state = held.state(now_ms);
            let is_same = held.matchers == request.matchers
                && (state != SilenceState::Active || held.starts_at_ms == request.starts_at_ms);
            match state {
                SilenceState::Expired => {}
                _ if is_same => id.clone_from(asked),
                _ => {
                    changed.push(asked.clone());
                    self.end(asked, now_ms);
                }
            }
        }
        if !self.all.contains_key(&id) && self.all.len() >= silences_max {
            return Err(SilenceError::Full(silences_max));
        }
        let silence = Silence {
            id: id.clone(),
            matchers: request.matchers,
            // What is over cannot be silenced any more.
            starts_at_ms: if request.id.as_deref() == Some(&id) {
                request.starts_at_ms
            } else {
                request.starts_at_ms.max(now_ms)
            },
            ends_at_ms: request.ends_at_ms,
            updated_at_ms: now_ms,
            created_by: request.created_by,
            comment: request.comment,
        };
        self.all.insert(id.clone(), (silence, matchers));
        changed.push(id);
        Ok(changed)
    }

    /// Ends a silence now.
    pub(crate) fn expire(&mut self, id: &str, now_ms: i64) -> Result<(), SilenceError> {
        let held = self.get(id).ok_or_else(|| SilenceError::NotFound(id.to_owned()))?;
        if held.state(now_ms) == SilenceState::Expired {
            return Err(SilenceError::Invalid(format!("silence {id} already expired")));
        }
        self.end(id, now_ms);
        Ok(())
    }

    fn end(&mut self, id: &str, now_ms: i64) {
        if let Some((silence, _)) = self.all.get_mut(id) {
            silence.ends_at_ms = now_ms;
            silence.starts_at_ms = silence.starts_at_ms.min(now_ms);
            silence.updated_at_ms = now_ms;
        }
    }

    /// Forgets what is long over; gives the ids.
    pub(crate) fn forget_old(&mut self, now_ms: i64) -> Vec<String> {
        let is_old = |silence: &Silence| silence.ends_at_ms.saturating_add(RETENTION_MS) < now_ms;
        let old: Vec<String> = self.all().filter(|silence| is_old(silence)).map(|s| s.id.clone()).collect();
        old.iter().for_each(|id| drop(self.all.remove(id)));
        old
    }
}

fn check(request: &SilenceRequest, now_ms: i64) -> Result<Matchers, String> {
    let matchers = Matchers::of(&request.matchers)?;
    if matchers.is_empty() {
        return Err("a silence needs at least one matcher".to_owned());
    }
    if matchers.matches(&Labels::default()) {
        return Err("at least one matcher must not match the empty string".to_owned());
    }
    if request.ends_at_ms <= request.starts_at_ms {
        return Err("a silence must end after it begins".to_owned());
    }
    if request.ends_at_ms <= now_ms {
        return Err("a silence must end in the future".to_owned());
    }
    for (name, text) in [("createdBy", &request.created_by), ("comment", &request.comment)] {
        if text.chars().count() > TEXT_CHARS_MAX {
            return Err(format!("{name} is longer than {TEXT_CHARS_MAX} characters"));
        }
    }
    Ok(matchers)
}
