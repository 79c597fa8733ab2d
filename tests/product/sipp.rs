//! Debian's sipp as phones and trunks: how one is started, what it is told, and how it must end.

use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::running::{Guarded, free_port, tool, wait_for_end};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
/// Where phones are.
pub(crate) const PHONES: &str = "127.0.0.1";
/// Where trunks are: another address of loopback than the phones'.
pub(crate) const TRUNKS: &str = "127.0.0.2";
/// The tone that callers play, in Hz.
pub(crate) const TONE_HZ: f64 = 440.0;
/// Bytes of complaints that a failed test shows.
const COMPLAINTS_SHOWN: usize = 4000;

/// One sipp that is to be started: whom it plays, and what.
#[derive(Clone, Debug)]
pub(crate) struct Sipp {
    directory: PathBuf,
    /// Names its files.
    name: String,
    address: &'static str,
    port: u16,
    arguments: Vec<String>,
}

/// One that runs.
pub(crate) struct Playing {
    process: Guarded,
    of: Sipp,
}

impl Sipp {
    /// A scenario, played from a phone's port.
    pub(crate) fn new(directory: &Path, scenario: &str, port: u16) -> Self {
        let file = format!("{SCENARIOS}/{scenario}.xml");
        assert!(Path::new(&file).is_file(), "{file} is missing");
        let name = format!("{scenario}-{port}");
        Self { directory: directory.to_owned(), name, address: PHONES, port, arguments: Vec::new() }
            .with(&["-sf", &file, "-m", "1"])
    }

    /// From the trunks' address.
    pub(crate) fn at_the_trunks(self) -> Self {
        Self { address: TRUNKS, ..self }
    }

    /// Further arguments; later ones replace earlier ones of the same name.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// So many calls.
    pub(crate) fn times(self, calls: u32) -> Self {
        self.with(&["-m", &calls.to_string()])
    }

    /// Whose phone it is, with which password, and whom it calls: `field0` to `field3` of the scenario are the user, the
    /// domain, its credentials and the called one.
    pub(crate) fn of(self, user: &str, password: &str, called: &str) -> Self {
        let file = self.directory.join(format!("{}.csv", self.name));
        let credentials = format!("[authentication username={user} password={password}]");
        fs::write(&file, format!("SEQUENTIAL\n{user};belfry.test;{credentials};{called}\n"))
            .expect("written");
        self.with(&["-inf", &file.to_string_lossy()])
    }

    /// Starts it against a Belfry at this port.
    pub(crate) fn start(self, target: u16) -> Playing {
        let child = Command::new(tool("sipp"))
            .current_dir(&self.directory)
            .env("TERM", "dumb")
            .args(["-i", self.address, "-p", &self.port.to_string(), "-t", "u1", "-nd", "-nostdin"])
            .args([
                "-mp",
                &free_port().to_string(),
                "-trace_err",
                "-error_file",
                &format!("{}.err", self.name),
            ])
            .args(&self.arguments)
            .arg(format!("127.0.0.1:{target}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sipp starts");
        Playing { process: Guarded::new(child), of: self }
    }
}

impl Playing {
    /// Waits for its end: every call of it went as its scenario says.
    #[track_caller]
    pub(crate) fn ends_well(mut self) {
        let status = wait_for_end(&mut self.process);
        assert!(status.success(), "{} failed with {status}:\n{}", self.of.name, self.complaints());
    }

    /// What it complained of.
    pub(crate) fn complaints(&self) -> String {
        let file = self.of.directory.join(format!("{}.err", self.of.name));
        let text = fs::read_to_string(file).unwrap_or_default();
        text.chars().take(COMPLAINTS_SHOWN).collect()
    }
}

/// Registers a user from a port.
pub(crate) fn register_with_sipp(directory: &Path, user: &str, port: u16, target: u16) {
    Sipp::new(directory, "register", port).of(user, "secret", "").start(target).ends_well();
}

/// Begins calls from alice to bob, each with sound: the caller's process and the callee's.
/// They must be registered from these ports.
pub(crate) fn start_calls(
    directory: &Path,
    [alice_port, bob_port]: [u16; 2],
    calls: u32,
    target: u16,
) -> [Playing; 2] {
    write_mu_law_tone(&directory.join("tone.ul"));
    let callee = Sipp::new(directory, "uas", bob_port).with(&["-rtp_echo"]).times(calls).start(target);
    let caller = Sipp::new(directory, "uac", alice_port).of("alice", "secret", "bob").times(calls);
    [caller.with(&["-r", "40", "-l", "60"]).start(target), callee]
}

/// Lets alice call bob so many times; all calls end well.
pub(crate) fn call_with_sipp(directory: &Path, ports: [u16; 2], calls: u32, target: u16) {
    for playing in start_calls(directory, ports, calls, target) {
        playing.ends_well();
    }
}

/// A-law and mu-law silence would do for packets; a tone lets a person listen to a capture.
pub(crate) fn write_mu_law_tone(path: &Path) {
    let samples: Vec<u8> = (0..8000)
        .map(|n| mu_law((f64::sin(TAU * TONE_HZ * f64::from(n) / 8000.0) * 8000.0) as i16))
        .collect();
    fs::write(path, samples).expect("written");
}

/// ITU-T G.711 mu-law.
fn mu_law(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + 132;
    let exponent = (0..8).rev().find(|e| magnitude & (1 << (e + 7)) != 0).unwrap_or(0);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | ((exponent as u8) << 4) | mantissa as u8)
}
