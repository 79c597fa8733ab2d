//! A storm of registrations over TCP or TLS: each phone connects, shakes hands, registers and leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_kit::{Transport, Trust, client_config};
use belfry_sip_proto::digest::Challenge;
use belfry_sip_proto::{Frame, Framer, Limits, Message};
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::messages::{Desk, NONCE_NUMBER, challenge_of};
use crate::report::Report;
use crate::{Arguments, Failure, Row};

struct Storm {
    arguments: Arguments,
    desk: Desk,
    connector: Option<TlsConnector>,
    challenge: Option<Challenge>,
}

pub(crate) fn run(arguments: Arguments, transport: Transport) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(storm(arguments, transport))
}

async fn storm(arguments: Arguments, transport: Transport) -> Result<Report, Failure> {
    if arguments.row != Row::Register {
        return Err("only `register` is done over connections".into());
    }
    if arguments.by_second {
        return Err("seconds are reported over UDP only".into());
    }
    let connector = match transport {
        Transport::Tls => Some(connector(&arguments)?),
        _ => None,
    };
    let desk = Desk::new(&arguments, transport.via_token());
    let mut storm = Storm { arguments, desk, connector, challenge: None };
    storm.challenge = storm.phone(NONCE_NUMBER).await?.err();
    if storm.challenge.is_none() {
        return Err("the server does not challenge".into());
    }
    let storm = Arc::new(storm);
    let (ended, mut endings) = mpsc::channel(1024);
    let began = Instant::now();
    let begin_all = begin_all(Arc::clone(&storm), began, ended);
    let mut report = Report::new(&storm.arguments)?;
    let count_all = async {
        while let Some((late, after, failure)) = endings.recv().await {
            report.begun(late);
            match failure {
                None => report.done(Duration::MAX, after),
                Some(failure) => report.failed(|| failure),
            }
        }
    };
    tokio::join!(begin_all, count_all);
    report.elapsed = began.elapsed();
    Ok(report)
}

type Ending = (Duration, Duration, Option<String>);

async fn begin_all(storm: Arc<Storm>, began: Instant, ended: mpsc::Sender<Ending>) {
    for number in 0..storm.arguments.count {
        let due = storm.arguments.due(number);
        tokio::time::sleep_until((began + due).into()).await;
        let (storm, ended) = (Arc::clone(&storm), ended.clone());
        tokio::spawn(async move {
            let late = began.elapsed().saturating_sub(due);
            let outcome = tokio::time::timeout(storm.arguments.patience(), storm.phone(number)).await;
            let failure = match outcome {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(_))) => Some("challenged again".to_owned()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("not answered in time".to_owned()),
            };
            let _ = ended.send((late, began.elapsed().saturating_sub(due), failure)).await;
        });
    }
}

fn connector(arguments: &Arguments) -> Result<TlsConnector, Failure> {
    let file = arguments.authority.as_ref().ok_or("--authority is needed for TLS")?;
    let trust = Trust::from_pem(&std::fs::read(file)?)?;
    let mut config = client_config(&trust, &[])?.as_ref().clone();
    // A storm comes after everybody was away: nobody has a session left.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Storm {
    /// One phone's visit. The inner error is the challenge that it got.
    async fn phone(&self, number: u32) -> Result<Result<(), Challenge>, Failure> {
        let stream = TcpStream::connect(self.arguments.target).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let request =
            self.desk.register(self.arguments.user(number), number, 1, local, self.challenge.as_ref());
        match &self.connector {
            None => ask(stream, &request).await,
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                ask(connector.connect(name, stream).await?, &request).await
            }
        }
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<Result<(), Challenge>, Failure> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let limits = Limits::default();
    let mut framer = Framer::new(limits);
    let mut buffer = vec![0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err("the server hung up".into());
        }
        framer.push(&buffer[..length]);
        while let Some(frame) = framer.next_frame().map_err(|fault| format!("{fault:?}"))? {
            let Frame::Message(bytes) = frame else { continue };
            let Ok(message) = Message::parse(bytes.as_slice(), &limits) else { continue };
            match message.status().unwrap_or_default() {
                100..200 => {}
                200 => {
                    stream.shutdown().await?;
                    return Ok(Ok(()));
                }
                status => {
                    let refused = format!("refused with {status}");
                    return challenge_of(&message).map(Err).ok_or(refused.into());
                }
            }
        }
    }
}
