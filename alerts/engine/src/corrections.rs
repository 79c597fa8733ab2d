//! Corrections: stretches of time that do not count against a budget, because somebody said so and why.
//!
//! Counts are never changed: a correction is taken out when a budget is worked out, and can be withdrawn. Who made and
//! who withdrew it stays on record. What burns is judged with all counts; a silence keeps pages quiet.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::handle::EngineHandle;

/// Corrections that are remembered, withdrawn ones among them.
pub(crate) const CORRECTIONS_MAX: usize = 1_000;
/// The longest correction: the longest period.
const SECONDS_MAX: u64 = 93 * 86_400;
const AUTHOR_CHARS_MAX: usize = 100;
const REASON_CHARS_MAX: usize = 1_000;

/// Why time does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// It was agreed on.
    Maintenance,
    /// Nothing is promised at such hours.
    OutsideHours,
    /// Something else, which the reason says.
    Other,
}

/// One correction. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Correction {
    pub(crate) id: u64,
    pub(crate) slo: String,
    /// A region or group; without one, all of them.
    pub(crate) place: Option<String>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) kind: Kind,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) created: u64,
    /// By whom and when it was withdrawn.
    pub(crate) withdrawn: Option<(String, u64)>,
}

/// What somebody asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    slo: String,
    #[serde(default)]
    place: Option<String>,
    from: u64,
    to: u64,
    kind: Kind,
    author: String,
    reason: String,
}

/// A change of corrections.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Make(Wanted),
    Withdraw { id: u64, author: String },
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Wrong(String),
    #[error("there is no such correction, or it was withdrawn")]
    Unknown,
    #[error("as many corrections as may be are remembered: {CORRECTIONS_MAX}")]
    Full,
    #[error("the correction could not be written down; try again")]
    Unsaved,
}

/// All corrections, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Corrections {
    all: Vec<Correction>,
}

impl Corrections {
    pub(crate) fn restore(&mut self, mut all: Vec<Correction>) {
        all.sort_by_key(|correction| correction.id);
        self.all = all;
    }

    pub(crate) fn all(&self) -> &[Correction] {
        &self.all
    }

    /// What a change makes of a correction; nothing is changed yet.
    pub(crate) fn decide(
        &self,
        change: &Change,
        now: u64,
        is_slo: impl Fn(&str) -> bool,
    ) -> Result<Correction, Refused> {
        match change {
            Change::Make(wanted) => {
                check(wanted, is_slo).map_err(Refused::Wrong)?;
                if self.all.len() >= CORRECTIONS_MAX {
                    return Err(Refused::Full);
                }
                let wanted = wanted.clone();
                Ok(Correction {
                    id: self.all.last().map_or(1, |last| last.id + 1),
                    slo: wanted.slo,
                    place: wanted.place,
                    from: wanted.from,
                    to: wanted.to,
                    kind: wanted.kind,
                    author: wanted.author,
                    reason: wanted.reason,
                    created: now,
                    withdrawn: None,
                })
            }
            Change::Withdraw { id, author } => {
                check_text("author", author, AUTHOR_CHARS_MAX).map_err(Refused::Wrong)?;
                let found = self.all.iter().find(|correction| correction.id == *id);
                let found = found.filter(|correction| correction.withdrawn.is_none());
                let mut correction = found.cloned().ok_or(Refused::Unknown)?;
                correction.withdrawn = Some((author.clone(), now));
                Ok(correction)
            }
        }
    }

    /// Takes a correction that is on disk.
    pub(crate) fn take(&mut self, correction: Correction) {
        match self.all.iter_mut().find(|other| other.id == correction.id) {
            Some(other) => *other = correction,
            None => self.all.push(correction),
        }
    }

    /// The stretches that do not count for an objective in a place.
    pub(crate) fn of(&self, slo: &str, place: &str) -> Vec<(u64, u64)> {
        let holds = |correction: &&Correction| {
            correction.withdrawn.is_none()
                && correction.slo == slo
                && correction.place.as_deref().is_none_or(|of| of == place)
        };
        self.all.iter().filter(holds).map(|correction| (correction.from, correction.to)).collect()
    }
}

fn check(wanted: &Wanted, is_slo: impl Fn(&str) -> bool) -> Result<(), String> {
    if !is_slo(&wanted.slo) {
        return Err(format!("no objective is named {:?}", wanted.slo));
    }
    if wanted.from >= wanted.to || wanted.to - wanted.from > SECONDS_MAX {
        return Err("to is after from, by 93 days at most; both are seconds since 1970".to_owned());
    }
    check_text("author", &wanted.author, AUTHOR_CHARS_MAX)?;
    check_text("reason", &wanted.reason, REASON_CHARS_MAX)
}

fn check_text(key: &str, text: &str, chars_max: usize) -> Result<(), String> {
    let chars = text.trim().chars().count();
    if chars == 0 || chars > chars_max {
        return Err(format!("{key} has 1 to {chars_max} characters"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct By {
    author: String,
}

/// `GET` and `POST /api/v1/slos/corrections`, `DELETE /api/v1/slos/corrections/{id}?author=`.
pub(crate) fn router(engine: EngineHandle) -> Router {
    Router::new()
        .route("/api/v1/slos/corrections", get(list).post(make))
        .route("/api/v1/slos/corrections/{id}", delete(withdraw))
        .with_state(engine)
}

async fn list(State(engine): State<EngineHandle>) -> Response {
    match engine.corrections().await {
        Some(corrections) => Json(serde_json::json!({ "corrections": corrections })).into_response(),
        None => refusal(&Refused::Unsaved),
    }
}

async fn make(State(engine): State<EngineHandle>, Json(wanted): Json<Wanted>) -> Response {
    answer(engine.correct(Change::Make(wanted)).await)
}

async fn withdraw(
    State(engine): State<EngineHandle>,
    Path(id): Path<u64>,
    Query(By { author }): Query<By>,
) -> Response {
    answer(engine.correct(Change::Withdraw { id, author }).await)
}

fn answer(changed: Result<Correction, Refused>) -> Response {
    match changed {
        Ok(correction) => Json(correction).into_response(),
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &Refused) -> Response {
    let status = match refused {
        Refused::Wrong(_) => StatusCode::BAD_REQUEST,
        Refused::Unknown => StatusCode::NOT_FOUND,
        Refused::Full => StatusCode::CONFLICT,
        Refused::Unsaved => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(serde_json::json!({ "error": refused.to_string() }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(slo: &str, place: Option<&str>, from: u64, to: u64) -> Change {
        Change::Make(Wanted {
            slo: slo.into(),
            place: place.map(str::to_owned),
            from,
            to,
            kind: Kind::Maintenance,
            author: "ann".into(),
            reason: "new relay".into(),
        })
    }

    #[test]
    fn corrections_hold_for_their_place_until_they_are_withdrawn_and_stay_on_record() {
        let mut corrections = Corrections::default();
        for change in [wanted("calls", None, 10, 20), wanted("calls", Some("eu"), 30, 40)] {
            let made = corrections.decide(&change, 5, |slo| slo == "calls").expect("right");
            corrections.take(made);
        }
        assert_eq!(corrections.of("calls", "eu"), [(10, 20), (30, 40)]);
        assert_eq!(corrections.of("calls", "us"), [(10, 20)]);
        assert_eq!(corrections.of("other", "eu"), []);
        let withdraw = Change::Withdraw { id: 1, author: "bob".into() };
        let withdrawn = corrections.decide(&withdraw, 7, |_| true).expect("there");
        assert_eq!(withdrawn.withdrawn, Some(("bob".into(), 7)));
        corrections.take(withdrawn);
        assert_eq!(corrections.of("calls", "us"), []);
        assert_eq!(corrections.all().len(), 2);
        assert_eq!(corrections.decide(&withdraw, 8, |_| true), Err(Refused::Unknown));
    }

    #[test]
    fn what_is_wrong_is_refused_with_a_reason() {
        let corrections = Corrections::default();
        let words = |change: &Change| {
            corrections.decide(change, 5, |slo| slo == "calls").expect_err("wrong").to_string()
        };
        assert!(words(&wanted("cals", None, 10, 20)).contains("no objective"));
        assert!(words(&wanted("calls", None, 20, 20)).contains("after from"));
        let mut nameless = wanted("calls", None, 10, 20);
        if let Change::Make(wanted) = &mut nameless {
            wanted.author = " ".into();
        }
        assert!(words(&nameless).contains("author has 1 to 100"));
    }
}
