//! A simulated phone: one user agent on one connection, as real as the tests need it.
//!
//! It follows RFC 3261 as a client and server of calls, RFC 3581 (rport), RFC 5626 (outbound) and RFC 7118
//! (WebSocket). It does not fork, transfer or hold; an in-dialog re-INVITE is answered with what was agreed.

mod callee;
mod caller;
mod dialog;
mod endpoint;
mod hang_up;
mod register;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use crate::error::Error;
use crate::tls::Trust;
use crate::wire::{Target, Transport, connect};
use endpoint::Endpoint;

pub use register::Registered;
pub use report::{CallOutcome, CallReport};

/// Reports of answered calls that wait to be read; older ones win.
const REPORTS_MAX: usize = 1024;

/// Who a phone is and where it connects.
#[derive(Clone, Debug)]
pub struct PhoneConfig {
    /// User part of the address of record.
    pub user: String,
    /// Domain of the address of record.
    pub domain: String,
    /// The digest password.
    pub password: String,
    /// How it speaks.
    pub transport: Transport,
    /// The edge's address.
    pub edge: SocketAddr,
    /// The name that the edge's certificate must have (TLS, WSS).
    pub server_name: String,
    /// The path of the WebSocket endpoint.
    pub websocket_path: String,
    /// Whom it trusts (TLS, WSS).
    pub trust: Option<Trust>,
    /// The local address, for signalling and media.
    pub source: IpAddr,
    /// What it does when it is called.
    pub answer: AnswerPlan,
    /// The lifetime that it asks for when it registers.
    pub expires: Duration,
    /// How long it waits for a final response to what is not an INVITE.
    pub timeout: Duration,
    /// Time between RTCP reports.
    pub report_interval: Duration,
}

impl PhoneConfig {
    /// A phone on UDP at this edge that answers after 100 ms.
    #[must_use]
    pub fn new(user: &str, domain: &str, password: &str, edge: SocketAddr) -> Self {
        Self {
            user: user.to_owned(),
            domain: domain.to_owned(),
            password: password.to_owned(),
            transport: Transport::Udp,
            edge,
            server_name: domain.to_owned(),
            websocket_path: "/".to_owned(),
            trust: None,
            source: [127, 0, 0, 1].into(),
            answer: AnswerPlan::Answer { ring: Duration::from_millis(100) },
            expires: Duration::from_secs(300),
            timeout: Duration::from_secs(8),
            report_interval: Duration::from_secs(2),
        }
    }
}

/// What a phone does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerPlan {
    /// Rings, answers, and stays until the caller hangs up.
    Answer {
        /// How long it rings.
        ring: Duration,
    },
    /// Rings, answers, and hangs up itself.
    AnswerAndHangUp {
        /// How long it rings.
        ring: Duration,
        /// How long it talks.
        talk: Duration,
    },
    /// Rings, then refuses, as with 486 or 603.
    Reject {
        /// How long it rings.
        ring: Duration,
        /// The status code.
        status: u16,
    },
    /// Rings until the caller gives up.
    Ring,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPlan {
    /// How long it talks before it hangs up.
    pub talk: Duration,
    /// When it cancels, should nobody have answered: after this time of ringing.
    pub cancel_after: Option<Duration>,
    /// How long it waits for a final response to its INVITE.
    pub give_up_after: Duration,
}

impl CallPlan {
    /// Talks this long, waits ten seconds for an answer.
    #[must_use]
    pub fn talk(talk: Duration) -> Self {
        Self { talk, cancel_after: None, give_up_after: Duration::from_secs(10) }
    }
}

/// A phone that is switched on. It goes off when it is dropped.
#[derive(Debug)]
pub struct Phone {
    endpoint: Arc<Endpoint>,
    answered: Mutex<mpsc::Receiver<CallReport>>,
}

impl Phone {
    /// Connects and listens for calls. It does not register by itself.
    ///
    /// # Errors
    /// When the edge cannot be reached over this transport.
    pub async fn start(config: PhoneConfig) -> Result<Self, Error> {
        let connection = connect(&Target {
            transport: config.transport,
            source: config.source,
            edge: config.edge,
            server_name: &config.server_name,
            path: &config.websocket_path,
            trust: config.trust.as_ref(),
        })
        .await?;
        let (reports, answered) = mpsc::channel(REPORTS_MAX);
        let endpoint = Endpoint::start(config, connection, reports);
        Ok(Self { endpoint, answered: Mutex::new(answered) })
    }

    /// Registers, or refreshes the registration, answering a challenge if there is one.
    ///
    /// # Errors
    /// When the registrar refuses or does not answer.
    pub async fn register(&self) -> Result<Registered, Error> {
        register::register(&self.endpoint, self.endpoint.config.expires).await
    }

    /// Takes the registration back.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn unregister(&self) -> Result<Registered, Error> {
        register::register(&self.endpoint, Duration::ZERO).await
    }

    /// Asks the site's proxy or another user with OPTIONS; the status code of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn options(&self, target: &str) -> Result<u16, Error> {
        register::options(&self.endpoint, target).await
    }

    /// Calls a SIP or `tel:` URI, talks, hangs up, and tells how it went. Never fails: that is in the report.
    pub async fn call(&self, target: &str, plan: CallPlan) -> CallReport {
        caller::place(&self.endpoint, target, plan).await
    }

    /// The report of the next call that this phone was called with and that has ended.
    pub async fn next_answered(&self) -> Option<CallReport> {
        self.answered.lock().await.recv().await
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.endpoint.stop.is_cancelled()
    }

    /// Calls in progress, placed and answered.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.endpoint.calls()
    }

    /// The local address of the connection.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.endpoint.local
    }

    /// The address of record, as a SIP URI.
    #[must_use]
    pub fn address_of_record(&self) -> String {
        self.endpoint.address_of_record()
    }

    /// Switches the phone off without a word, as when a battery dies.
    pub fn kill(&self) {
        self.endpoint.stop.cancel();
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.endpoint.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
