//! The open loop over UDP: one thread that sends what is due, takes what comes, and repeats what is lost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use belfry_sip_proto::build::ack_to;
use belfry_sip_proto::digest::Challenge;
use belfry_sip_proto::{Limits, Message};
use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;

use crate::datagrams::Datagrams;
use crate::messages::{Desk, NONCE_NUMBER, answers_to, challenge_of, dialog_of};
use crate::report::Report;
use crate::{Arguments, Failure, Row};

/// Timer T1 of RFC 3261, not doubled unless asked for: losses are to be seen, not to be waited for.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// Repeats are no further apart than this: timer T2.
const REPEAT_AFTER_MAX: Duration = Duration::from_secs(4);
/// Work that is begun before incoming messages are looked at again.
const BURST: usize = 64;

struct Work {
    user: u32,
    /// Sent again until it is answered.
    request: Vec<u8>,
    is_heard: bool,
    step: u32,
}

struct Load<'a> {
    arguments: &'a Arguments,
    desk: Desk,
    sockets: Vec<Datagrams>,
    began: Instant,
    next: u32,
    work: Vec<Option<Work>>,
    open: u32,
    /// When, which work, which of its steps, and how often it was repeated before.
    repeats: BinaryHeap<Reverse<(Instant, u32, u32, u32)>>,
    challenge: Option<Challenge>,
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let mut sockets = Vec::new();
    for index in 0..arguments.sockets {
        let port = if arguments.port == 0 { 0 } else { arguments.port + u16::try_from(index)? };
        sockets.push(Datagrams::bind(port, arguments.target, arguments.spread)?);
    }
    let desk = Desk::new(arguments, "UDP");
    let mut load = Load {
        arguments,
        desk,
        sockets,
        began: Instant::now(),
        next: 0,
        work: Vec::new(),
        open: 0,
        repeats: BinaryHeap::new(),
        challenge: None,
        report: Report::new(arguments)?,
    };
    load.learn_nonce()?;
    load.began = Instant::now();
    load.work.resize_with(usize::try_from(arguments.count)?, || None);
    load.go()?;
    load.report.elapsed = load.began.elapsed();
    Ok(load.report)
}

impl Load<'_> {
    /// Asks for one challenge, whose nonce serves the whole run.
    fn learn_nonce(&mut self) -> Result<(), Failure> {
        let number = NONCE_NUMBER;
        let local = self.local_of(0, 0);
        let request = match self.arguments.row {
            Row::Options | Row::Digest => return Ok(()),
            Row::Register | Row::Unregister => self.desk.register(0, number, 3, local, None),
            Row::Call => self.desk.invite(0, number, local, None),
        };
        for _ in 0..20 {
            self.sockets[0].push(local, request.clone());
            self.sockets[0].flush()?;
            self.wait(REPEAT_AFTER)?;
            // A provisional answer may come first.
            for _ in 0..100 {
                let mut found = None;
                let desk = &self.desk;
                self.sockets[0].receive(|bytes| {
                    let message = Message::parse(bytes, &Limits::default()).ok();
                    // Another server may still repeat what it said to an earlier run on this port.
                    let ours = message.filter(|message| desk.place_of(message).is_some());
                    found = found.take().or(ours.as_ref().and_then(challenge_of));
                })?;
                if found.is_some() {
                    self.challenge = found;
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err("the server does not challenge".into())
    }

    fn go(&mut self) -> Result<(), Failure> {
        let deadline = self.arguments.due(self.arguments.count) + self.arguments.patience();
        while self.next < self.arguments.count || self.open > 0 {
            if self.began.elapsed() > deadline {
                let open = self.open;
                self.report.failed += open;
                self.report.first_failure.get_or_insert_with(|| format!("{open} were not answered in time"));
                break;
            }
            self.begin_due()?;
            let taken = self.receive()?;
            self.repeat_lost();
            self.flush()?;
            if taken == 0 {
                self.wait(self.idle_time())?;
            }
        }
        Ok(())
    }

    fn begin_due(&mut self) -> Result<(), Failure> {
        for _ in 0..BURST {
            let elapsed = self.began.elapsed();
            let due = self.arguments.due(self.next);
            if self.next >= self.arguments.count || due > elapsed {
                break;
            }
            self.report.begun(elapsed - due);
            let (number, user) = (self.next, self.arguments.user(self.next));
            self.next += 1;
            let local = self.local_of(user, number);
            let challenge = self.challenge.as_ref();
            let request = match self.arguments.row {
                Row::Register | Row::Unregister => self.desk.register(user, number, 1, local, challenge),
                Row::Digest => self.desk.register(user, number, 0, local, None),
                Row::Options => self.desk.options(number, local),
                Row::Call => self.desk.invite(user, number, local, challenge),
            };
            let step = u32::from(matches!(self.arguments.row, Row::Register | Row::Unregister));
            self.work[usize::try_from(number)?] =
                Some(Work { user, request: Vec::new(), is_heard: false, step });
            self.open += 1;
            self.send(number, step, request);
        }
        Ok(())
    }

    fn socket_of(&mut self, user: u32) -> &mut Datagrams {
        let index = user as usize % self.sockets.len();
        &mut self.sockets[index]
    }

    /// Where a piece of work is done from: its socket's address, or one of its own.
    fn local_of(&mut self, user: u32, number: u32) -> SocketAddr {
        let (spread, socket) = (self.arguments.spread, self.socket_of(user));
        let mut local = socket.local;
        if spread {
            let [high, middle, low] =
                [16, 8, 0].map(|shift| u8::try_from(number >> shift & 0xff).unwrap_or_default());
            local.set_ip(Ipv4Addr::new(127, 1 + high % 200, middle, low).into());
        }
        local
    }

    fn send(&mut self, number: u32, step: u32, request: Vec<u8>) {
        self.send_again(number, step, request, 0);
    }

    fn send_again(&mut self, number: u32, step: u32, request: Vec<u8>, repeats: u32) {
        let Some(Some(work)) = self.work.get_mut(number as usize) else { return };
        work.step = step;
        work.is_heard = false;
        work.request.clone_from(&request);
        let user = work.user;
        let local = self.local_of(user, number);
        self.socket_of(user).push(local, request);
        let doubled = if self.arguments.backoff { repeats.min(3) } else { 0 };
        let after = (REPEAT_AFTER * (1 << doubled)).min(REPEAT_AFTER_MAX);
        self.repeats.push(Reverse((Instant::now() + after, number, step, repeats)));
    }

    fn receive(&mut self) -> Result<usize, Failure> {
        let mut taken = 0;
        for index in 0..self.sockets.len() {
            let mut messages = Vec::new();
            taken += self.sockets[index].receive(|bytes| messages.push(bytes.to_vec()))?;
            for bytes in messages {
                let Ok(message) = Message::parse(bytes.as_slice(), &Limits::default()) else {
                    return Err(format!("not SIP: {}", String::from_utf8_lossy(&bytes)).into());
                };
                if message.is_request() {
                    let local = self.sockets[index].local;
                    for answer in answers_to(&message, local) {
                        self.sockets[index].push(local, answer);
                    }
                } else if let Some((number, step)) = self.desk.place_of(&message) {
                    self.on_response(number, step, &message);
                }
            }
        }
        Ok(taken)
    }

    fn on_response(&mut self, number: u32, step: u32, response: &Message<'_>) {
        let Some(Some(work)) = self.work.get_mut(number as usize) else { return };
        if work.step != step {
            return;
        }
        let (user, status) = (work.user, response.status().unwrap_or_default());
        if status < 200 {
            // It was heard: INVITE is not repeated any more (RFC 3261 section 17.1.1.2).
            work.is_heard = true;
            return;
        }
        let local = self.local_of(user, number);
        match (self.arguments.row, step, status) {
            (Row::Digest, 0, 401) => {
                let challenge = challenge_of(response);
                let request = self.desk.register(user, number, 1, local, challenge.as_ref());
                self.send(number, 1, request);
            }
            (Row::Call, 0, 200) => {
                let Some(dialog) = dialog_of(response) else { return };
                let ack = self.desk.in_dialog("ACK", user, number, local, &dialog);
                self.socket_of(user).push(local, ack);
                let bye = self.desk.in_dialog("BYE", user, number, local, &dialog);
                self.send(number, 2, bye);
            }
            (_, _, 200) => {
                let due = self.arguments.due(number);
                self.report.done(due, self.began.elapsed().saturating_sub(due));
                self.work[number as usize] = None;
                self.open -= 1;
            }
            _ => {
                if (self.arguments.row, step) == (Row::Call, 0) {
                    self.acknowledge(number, user, response);
                }
                let bytes = String::from_utf8_lossy(response.as_bytes()).into_owned();
                self.report.failed(|| bytes);
                self.work[number as usize] = None;
                self.open -= 1;
            }
        }
    }

    /// A failed INVITE is acknowledged hop by hop (RFC 3261 section 17.1.1.3).
    fn acknowledge(&mut self, number: u32, user: u32, response: &Message<'_>) {
        let Some(Some(work)) = self.work.get(number as usize) else { return };
        let Ok(invite) = Message::parse(work.request.as_slice(), &Limits::default()) else { return };
        let (ack, local) = (ack_to(&invite, response), self.local_of(user, number));
        self.socket_of(user).push(local, ack);
    }

    fn repeat_lost(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, number, step, repeats))) = self.repeats.peek().copied() {
            if at > now {
                break;
            }
            self.repeats.pop();
            let Some(Some(work)) = self.work.get(number as usize) else { continue };
            if work.step != step || work.is_heard {
                continue;
            }
            let request = work.request.clone();
            self.report.repeated += 1;
            self.send_again(number, step, request, repeats + 1);
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.sockets.iter_mut().try_for_each(Datagrams::flush)
    }

    /// How long there is nothing to do unless something comes.
    fn idle_time(&self) -> Duration {
        let elapsed = self.began.elapsed();
        let due =
            if self.next < self.arguments.count { self.arguments.due(self.next) } else { Duration::MAX };
        due.saturating_sub(elapsed).min(Duration::from_millis(20))
    }

    fn wait(&self, at_most: Duration) -> Result<(), Failure> {
        let mut polled: Vec<PollFd<'_>> =
            self.sockets.iter().map(|socket| PollFd::new(socket.socket.as_fd(), PollFlags::POLLIN)).collect();
        nix::poll::ppoll(&mut polled, Some(TimeSpec::from_duration(at_most)), None)?;
        Ok(())
    }
}
