//! A running `belfry`, started with a configuration of the test's own and ended by its own process id.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
const BELFRY: &str = env!("CARGO_BIN_EXE_belfry");
/// How long anything that should be quick may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ports that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) tls: u16,
    pub(crate) sip: u16,
    pub(crate) sips: u16,
    pub(crate) admin: u16,
    pub(crate) api: u16,
    pub(crate) rtp_first: u16,
}

impl Ports {
    pub(crate) fn free() -> Self {
        let [tls, sip, sips, admin, api] = std::array::from_fn(|_| free_port());
        // The RTP range is wide; its place depends on a free port so that tests side by side differ.
        let rtp_first = 20_000 + (free_port() % 200) * 100;
        Self { tls, sip, sips, admin, api, rtp_first }
    }
}

/// A port that is free for TCP and UDP.
pub(crate) fn free_port() -> u16 {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free for TCP and UDP");
}

/// The configuration of a site with all rooms but alerts and the page.
pub(crate) fn site_config(directory: &Path, ports: &Ports) -> String {
    let data = directory.join("data");
    let rtp_last = ports.rtp_first + 1999;
    let Ports { tls, sip, sips, admin, api, rtp_first, .. } = ports;
    format!(
        r#"
[node]
data = "{data}"
log = "warn,belfry=info"
[admin]
listen = "127.0.0.1:{admin}"
[edge]
[[edge.listeners]]
name = "https"
kind = "tls-sniff"
address = "127.0.0.1:{tls}"
[[edge.listeners]]
name = "sip-udp"
kind = "sip-udp"
address = "127.0.0.1:{sip}"
[[edge.listeners]]
name = "sip-tcp"
kind = "sip-tcp"
address = "127.0.0.1:{sip}"
[[edge.listeners]]
name = "sip-tls"
kind = "sip-tls"
address = "127.0.0.1:{sips}"
[core.signalling]
domains = ["belfry.test"]
[media]
bind_address = "127.0.0.1"
port_min = {rtp_first}
port_max = {rtp_last}
[observe]
listen = "127.0.0.1:{api}"
"#,
        data = data.display()
    )
}

/// A running process.
pub(crate) struct Running {
    child: Child,
    pub(crate) ports: Ports,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

impl Running {
    /// Starts `belfry run` and waits until it is ready.
    pub(crate) fn start(directory: &Path, ports: Ports, config_text: &str) -> Self {
        let config = directory.join("belfry.toml");
        std::fs::write(&config, config_text).expect("a configuration");
        Self::start_again(directory, ports, config)
    }

    /// Starts `belfry run` on a configuration and data that are there.
    pub(crate) fn start_again(directory: &Path, ports: Ports, config: PathBuf) -> Self {
        let log = directory.join("belfry.log");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(BELFRY)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("belfry starts");
        let mut running = Self { child, ports, config, log };
        let deadline = Instant::now() + PATIENCE;
        while !http(ports.admin, "GET", "/readyz").is_ok_and(|(status, _)| status == 200) {
            if let Some(status) = running.child.try_wait().expect("its state") {
                panic!("belfry ended with {status}:\n{}", running.logged());
            }
            assert!(Instant::now() < deadline, "belfry is not ready:\n{}", running.logged());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Adds subscribers `user` with password `secret`.
    pub(crate) fn subscribe(&self, users: &[&str]) {
        let mut lines = String::new();
        for user in users {
            writeln!(lines, "{user}@belfry.test secret").expect("text");
        }
        let output = belfry_with_input(&["subscribers", "--config", &self.config.to_string_lossy()], &lines);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        http(self.ports.admin, "GET", "/metrics").expect("metrics").1
    }

    /// The sum of a family's series whose labels contain `with`.
    pub(crate) fn metric(&self, name: &str, with: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(with))
            .filter(|line| line[name.len()..].starts_with(['{', ' ']))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// An answer of the read API.
    pub(crate) fn api(&self, path: &str) -> (u16, String) {
        http(self.ports.api, "GET", path).expect("the read API answers")
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Asks it to stop and waits; returns its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        wait_for_end(&mut self.child).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of the test's own that does not outlive it, however the test ends.
pub(crate) struct Guarded(Child);

impl Guarded {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for Guarded {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that the test started.
pub(crate) fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().expect("kill");
    assert!(status.success());
}

/// Waits for a process, within patience.
pub(crate) fn wait_for_end(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("its state") {
            return status;
        }
        assert!(Instant::now() < deadline, "process {} does not end", child.id());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the binary to its end.
pub(crate) fn belfry(arguments: &[&str]) -> Output {
    belfry_with_input(arguments, "")
}

/// Runs the binary to its end with this on its standard input.
pub(crate) fn belfry_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BELFRY)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("belfry starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read");
    child.wait_with_output().expect("its output")
}

/// A plain HTTP/1.1 exchange on loopback: status and body.
pub(crate) fn http(port: u16, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut status_line = String::new();
    reader.read_line(&mut status_line)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    let text = String::from_utf8_lossy(&rest);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// Polls until `probe` gives something, within patience; `what` is named when it never does.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came to pass: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The path of a tool that `make deps-test` installs.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("build-output/tools/usr/bin");
    std::env::split_paths(&path)
        .chain([unpacked])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; `make deps-test` installs it"))
}
