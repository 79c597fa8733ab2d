//! Phones against the smallest exchange: calls over every transport, loss, refusal, cancelling, death.

mod exchange;

use std::sync::atomic::Ordering;

use belfry_sip_proto::digest::Algorithm;

use super::*;
use exchange::{DOMAIN, Exchange, PASSWORD};

fn config(exchange: &Exchange, user: &str, transport: Transport) -> PhoneConfig {
    let edge = match transport {
        Transport::Udp => exchange.udp,
        Transport::Tcp => exchange.tcp,
        Transport::Tls => exchange.tls,
        Transport::Wss => exchange.wss,
    };
    PhoneConfig {
        transport,
        trust: Some(exchange.trust.clone()),
        report_interval: Duration::from_millis(100),
        answer: AnswerPlan::Answer { ring: Duration::from_millis(20) },
        ..PhoneConfig::new(user, DOMAIN, PASSWORD, edge)
    }
}

async fn registered(config: PhoneConfig) -> Phone {
    let phone = Phone::start(config).await.expect("connects");
    phone.register().await.expect("registers");
    phone
}

fn plan() -> CallPlan {
    CallPlan::talk(Duration::from_millis(400))
}

#[tokio::test]
async fn a_bye_that_reached_nobody_is_sent_again() {
    let exchange = Exchange::start(Algorithm::Sha256, 0).await;
    let bob = registered(config(&exchange, "bob", Transport::Tcp)).await;
    let alice = registered(config(&exchange, "alice", Transport::Tcp)).await;
    exchange.byes_to_refuse.store(3, Ordering::Relaxed);
    let report = alice.call(&bob.address_of_record(), plan()).await;
    assert_eq!(report.outcome, CallOutcome::Failed("bye_refused"));
    let answered = bob.next_answered().await.expect("bob was called");
    assert!(answered.is_completed(), "{answered:?}");
    assert_eq!(exchange.byes_to_refuse.load(Ordering::Relaxed), 0);
    assert_eq!((alice.calls(), bob.calls()), (0, 0));
}

#[tokio::test]
async fn phones_call_each_other_over_every_transport() {
    let exchange = Exchange::start(Algorithm::Sha256, 0).await;
    let bob = registered(config(&exchange, "bob", Transport::Wss)).await;
    for (transport, source) in [
        (Transport::Udp, [127, 0, 1, 5]),
        (Transport::Tcp, [127, 0, 2, 5]),
        (Transport::Tls, [127, 0, 3, 5]),
        (Transport::Wss, [127, 0, 0, 9]),
    ] {
        let config = PhoneConfig { source: source.into(), ..config(&exchange, "alice", transport) };
        let alice = registered(config).await;
        assert_eq!(alice.local_address().ip(), IpAddr::from(source));
        let report = alice.call(&bob.address_of_record(), plan()).await;
        assert!(report.is_completed(), "{transport:?}: {report:?}");
        assert!(report.heard.reports > 0, "{transport:?}: {report:?}");
        let answered = bob.next_answered().await.expect("bob was called");
        assert!(answered.is_completed(), "{transport:?}: {answered:?}");
        assert_eq!((answered.call_id, answered.is_caller), (report.call_id, false));
        assert_eq!((alice.calls(), bob.calls()), (0, 0));
    }
}

#[tokio::test]
async fn registrations_are_challenged_once_refreshed_without_and_taken_back() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
        let exchange = Exchange::start(algorithm, 0).await;
        let phone = Phone::start(config(&exchange, "alice", Transport::Tcp)).await.expect("connects");
        let first = phone.register().await.expect("registers");
        assert_eq!((first.seconds, first.was_challenged, first.contacts), (120, true, 1));
        let second = phone.register().await.expect("refreshes");
        assert_eq!((second.seconds, second.was_challenged), (120, false));
        let gone = phone.unregister().await.expect("unregisters");
        assert_eq!((gone.seconds, gone.contacts), (0, 0));
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let exchange = Exchange::start(Algorithm::Md5, 0).await;
    let config = PhoneConfig { password: "guess".to_owned(), ..config(&exchange, "alice", Transport::Udp) };
    let phone = Phone::start(config).await.expect("udp always starts");
    assert!(matches!(phone.register().await, Err(Error::Rejected { status: 401 })));
}

#[tokio::test]
async fn lost_datagrams_are_sent_again() {
    let exchange = Exchange::start(Algorithm::Md5, 4).await;
    let bob = registered(config(&exchange, "bob", Transport::Udp)).await;
    let alice = registered(config(&exchange, "alice", Transport::Udp)).await;
    for _ in 0..3 {
        let report = alice.call(&bob.address_of_record(), plan()).await;
        assert!(report.is_completed(), "{report:?}");
        assert!(bob.next_answered().await.expect("bob was called").is_completed());
    }
    assert!(exchange.seen.load(Ordering::Relaxed) > 20);
}

#[tokio::test]
async fn calls_are_refused_cancelled_and_hung_up_by_either_side() {
    let exchange = Exchange::start(Algorithm::Md5, 0).await;
    let alice = registered(config(&exchange, "alice", Transport::Udp)).await;
    let with = |user: &str, answer| PhoneConfig { answer, ..config(&exchange, user, Transport::Tcp) };
    let ring = Duration::from_millis(20);

    let busy = registered(with("busy", AnswerPlan::Reject { ring, status: 486 })).await;
    let report = alice.call(&busy.address_of_record(), plan()).await;
    assert_eq!((report.outcome, report.status), (CallOutcome::Rejected(486), 486));
    assert_eq!(busy.next_answered().await.expect("called").outcome, CallOutcome::Rejected(486));

    let absent = registered(with("absent", AnswerPlan::Ring)).await;
    let cancelling = CallPlan { cancel_after: Some(Duration::from_millis(100)), ..plan() };
    let report = alice.call(&absent.address_of_record(), cancelling).await;
    assert_eq!((report.outcome, report.status), (CallOutcome::Cancelled, 487));
    assert!(report.post_dial.is_some());
    assert_eq!(absent.next_answered().await.expect("called").outcome, CallOutcome::Cancelled);

    let impatient = CallPlan { give_up_after: Duration::from_millis(100), ..plan() };
    let report = alice.call(&absent.address_of_record(), impatient).await;
    assert_eq!(report.outcome, CallOutcome::TimedOut);

    let brief = AnswerPlan::AnswerAndHangUp { ring, talk: Duration::from_millis(400) };
    let brief = registered(with("brief", brief)).await;
    let report = alice.call(&brief.address_of_record(), CallPlan::talk(Duration::from_secs(60))).await;
    assert!(report.is_completed() && report.talked < Duration::from_secs(10), "{report:?}");
    assert!(brief.next_answered().await.expect("called").is_completed());

    let report = alice.call("sip:nobody@localhost", plan()).await;
    assert_eq!(report.outcome, CallOutcome::Rejected(404));
    assert_eq!(alice.options(&brief.address_of_record()).await.expect("answered"), 200);
}

#[tokio::test]
async fn a_phone_that_dies_is_missed_and_says_nothing() {
    let exchange = Exchange::start(Algorithm::Md5, 0).await;
    let bob = registered(config(&exchange, "bob", Transport::Tcp)).await;
    let config =
        PhoneConfig { timeout: Duration::from_millis(300), ..config(&exchange, "alice", Transport::Tls) };
    let alice = registered(config).await;
    let call = alice.call("sip:bob@localhost", plan());
    let kill = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bob.kill();
    };
    let (report, ()) = tokio::join!(call, kill);
    assert_eq!(report.outcome, CallOutcome::TimedOut, "nobody answers the BYE");
    assert!(!bob.is_connected());
    assert!(matches!(bob.register().await, Err(Error::ConnectionLost)));
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let exchange = Exchange::start(Algorithm::Md5, 0).await;
    let other = Exchange::start(Algorithm::Md5, 0).await;
    let wrong = PhoneConfig { trust: Some(other.trust), ..config(&exchange, "alice", Transport::Tls) };
    assert!(matches!(Phone::start(wrong).await, Err(Error::Tls(_))));
    let none = PhoneConfig { trust: None, ..config(&exchange, "alice", Transport::Wss) };
    assert!(matches!(Phone::start(none).await, Err(Error::Tls(_))));
    assert!(matches!(Trust::from_pem(b"junk"), Err(Error::Tls(_))));
}
