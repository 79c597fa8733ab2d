//! Clients that others wrote, from Debian packages, through the edge: sipp, baresip, curl, h2load.

use std::f64::consts::TAU;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::running::{
    Guarded, PATIENCE, Ports, Running, eventually, free_port, site_config, tool, wait_for_end,
};
use crate::sipp::{TONE_HZ, call_with_sipp, register_with_sipp};

/// Calls of the sipp test.
const CALLS: u32 = 1000;

#[test]
fn two_sipps_register_and_complete_a_thousand_calls_with_sound() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["alice", "bob"]);
    let (alice_port, bob_port) = (free_port(), free_port());
    register_with_sipp(directory.path(), "alice", alice_port, ports.sip);
    register_with_sipp(directory.path(), "bob", bob_port, ports.sip);

    call_with_sipp(directory.path(), [alice_port, bob_port], CALLS, ports.sip);

    // 400 ms of sound each way is 20 packets each way; some are on their way when the call ends.
    let packets = belfry.metric("media_forwarded_packets_total", "");
    assert!(packets >= f64::from(CALLS) * 20.0, "{packets} packets were relayed");
    let answered = eventually("every call is found as answered", || {
        let (_, body) = belfry.api("/api/v1/calls?limit=1&outcome=answered");
        body.contains("\"call_id\"").then_some(body)
    });
    assert!(answered.contains("\"answered\""), "{answered}");
    assert_eq!(belfry.metric("signal_records_dropped_total", ""), 0.0);
}

/// One baresip, registered over a transport; it obeys commands of its menu.
struct Baresip {
    process: Guarded,
    home: PathBuf,
    /// Where it takes commands.
    control: u16,
}

impl Baresip {
    /// Starts one and waits until it is registered; `is_answering` makes it pick up by itself.
    fn start(directory: &Path, user: &str, transport: &str, ports: &Ports, is_answering: bool) -> Self {
        let home = directory.join(user);
        let control = free_port();
        write_home(directory, &home, user, (transport, ports), control, is_answering);
        let child = Command::new(tool("baresip"))
            .args(["-v", "-f"])
            .arg(&home)
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(fs::File::create(home.join("out")).expect("a file"))
            .stderr(fs::File::create(home.join("err")).expect("a file"))
            .spawn()
            .expect("baresip starts");
        let baresip = Self { process: Guarded::new(child), home, control };
        eventually("baresip is registered", || {
            let text = fs::read_to_string(baresip.home.join("out")).unwrap_or_default();
            text.contains("200 OK").then_some(())
        });
        baresip
    }

    /// Has it do what a person would choose from its menu: a netstring of JSON, answered when it is done.
    #[track_caller]
    fn obeys(&self, command: &str, parameters: &str) {
        let order = serde_json::json!({ "command": command, "params": parameters }).to_string();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.control)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "{}:{order},", order.len()).expect("written");
        // Events of its own may come first.
        let mut said = String::new();
        let mut bytes = [0; 4096];
        while !said.contains("\"response\":true") {
            let count = stream.read(&mut bytes).expect("it answers");
            assert!(count > 0, "baresip closed: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        assert!(said.contains("\"ok\":true"), "{command} {parameters}: {said}");
    }

    fn ends(mut self) {
        crate::running::signal(self.process.id(), "TERM");
        wait_for_end(&mut self.process);
    }
}

/// Writes the files of one baresip.
fn write_home(
    directory: &Path,
    home: &Path,
    user: &str,
    (transport, ports): (&str, &Ports),
    control: u16,
    is_answering: bool,
) {
    fs::create_dir_all(home).expect("a folder");
    let modules = "/usr/lib/baresip/modules";
    let config = format!(
        // Port 0: it takes what is free, and for TLS not simply the next one, which may be somebody's.
        "module_path {modules}\nsip_listen 127.0.0.1:0\nsip_cafile {}\n\
         audio_player aubridge,{user}\naudio_source aufile,{}\naudio_alert aufile,/dev/null\n\
         audio_srate 8000\naudio_channels 1\nausrc_format s16\nauplay_format s16\nrtp_ports 16384-18000\n\
         net_interface 127.0.0.1\nsnd_path {}\nctrl_tcp_listen 127.0.0.1:{control}\n\
         module g711.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
         module_app account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n",
        directory.join("data/edge/tls/ca.pem").display(),
        home.join("tone.wav").display(),
        home.display(),
    );
    fs::write(home.join("config"), config).expect("written");
    let mode = if is_answering { ";answermode=auto" } else { "" };
    let port = if transport == "tls" { ports.sips } else { ports.sip };
    let account = format!(
        "<sip:{user}@belfry.test;transport={transport}>;auth_user={user};auth_pass=secret;\
         outbound=\"sip:127.0.0.1:{port};transport={transport}\";regint=600;audio_codecs=PCMU{mode}\n",
    );
    fs::write(home.join("accounts"), account).expect("written");
    fs::write(home.join("contacts"), "").expect("written");
    write_wav_tone(&home.join("tone.wav"));
}

/// What a baresip heard so far: its sound-file module writes what it decoded.
fn recording(home: &Path) -> Vec<u8> {
    let files = fs::read_dir(home).expect("its folder").flatten();
    let decoded = files.map(|file| file.path()).find(|path| path.to_string_lossy().ends_with("-dec.wav"));
    decoded.and_then(|path| fs::read(path).ok()).unwrap_or_default()
}

fn write_wav_tone(path: &Path) {
    let samples: Vec<u8> = (0..8000 * 20)
        .flat_map(|n| ((f64::sin(TAU * TONE_HZ * f64::from(n) / 8000.0) * 12_000.0) as i16).to_le_bytes())
        .collect();
    let length = u32::try_from(samples.len()).expect("short");
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend([16, 0, 0, 0, 1, 0, 1, 0]);
    wav.extend(8000u32.to_le_bytes());
    wav.extend(16_000u32.to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend(samples);
    fs::write(path, wav).expect("written");
}

/// How much of the sound's energy is at the tone (Goertzel), 0 to 1, over its loudest second.
fn tone_share(wav: &[u8]) -> f64 {
    let samples: Vec<f64> = wav
        .get(44..)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])))
        .collect();
    let share = |window: &[f64]| {
        let step = TAU * TONE_HZ / 8000.0;
        let (mut real, mut imaginary, mut energy) = (0.0, 0.0, 0.0);
        for (n, sample) in window.iter().enumerate() {
            real += sample * (step * n as f64).cos();
            imaginary += sample * (step * n as f64).sin();
            energy += sample * sample;
        }
        let is_loud = energy / window.len() as f64 > 1e6;
        if is_loud {
            (real * real + imaginary * imaginary) * 2.0 / (energy * window.len() as f64)
        } else {
            0.0
        }
    };
    samples.chunks_exact(4000).map(share).fold(0.0, f64::max)
}

/// Both sides of a call over this transport hear each other's tone.
fn check_tone(transport: &str) {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["carol", "dave"]);
    let dave = Baresip::start(directory.path(), "dave", transport, &ports, true);
    let carol = Baresip::start(directory.path(), "carol", transport, &ports, false);
    carol.obeys("dial", "sip:dave@belfry.test");
    let share = eventually("both sides hear two seconds of the tone", || {
        let shares = [&carol, &dave].map(|phone| tone_share(&recording(&phone.home)));
        let least = shares[0].min(shares[1]);
        (least > 0.9).then_some(least)
    });
    assert!(share > 0.9, "the tone is {share} of what was heard");
    let registered = belfry.metric("edge_gateway_sip_messages_total", &format!("transport=\"{transport}\""));
    assert!(registered > 0.0, "they speak {transport}");
    carol.ends();
    dave.ends();
}

#[test]
fn baresip_calls_baresip_over_tls_and_hears_the_tone() {
    check_tone("tls");
}

#[test]
fn baresip_calls_baresip_over_tcp_and_hears_the_tone() {
    check_tone("tcp");
}

/// Live calls that match, by caller and callee.
fn live(belfry: &Running, filter: &str) -> Vec<String> {
    let (status, body) = belfry.api(&format!("/api/v1/calls/live?{filter}"));
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let calls = body["calls"].as_array().expect("a list").clone();
    calls.iter().map(|call| format!("{} {}", call["caller"], call["callee"])).collect()
}

#[test]
fn baresip_holds_resumes_and_transfers_over_tcp() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["carol", "dave", "erin"]);
    let start = |user, is_answering| Baresip::start(directory.path(), user, "tcp", &ports, is_answering);
    let (erin, dave, carol) = (start("erin", true), start("dave", true), start("carol", false));
    let until = |what: &str, filter: &str, found: &dyn Fn(&[String]) -> bool| {
        eventually(what, || found(&live(&belfry, filter)).then_some(()));
    };
    carol.obeys("dial", "sip:dave@belfry.test");
    until("dave picks up", "state=confirmed", &|calls| calls.len() == 1);
    carol.obeys("hold", "");
    until("the call is held", "held=true", &|calls| calls.len() == 1);
    carol.obeys("resume", "");
    until("the call goes on", "held=true", &|calls| calls.is_empty());
    carol.obeys("transfer", "sip:erin@belfry.test");
    until("dave talks to erin, and carol to nobody", "state=confirmed", &|calls| {
        calls.len() == 1 && calls[0].contains("dave@") && calls[0].contains("erin@")
    });
    for phone in [carol, dave, erin] {
        phone.ends();
    }
}

#[test]
fn curl_and_h2load_get_through_over_both_versions_of_http() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let backend = backend();
    let routes = format!(
        "\n[edge.http]\nbackends = [{{ name = \"portal\", addresses = [\"127.0.0.1:{backend}\"], \
         connect_timeout = \"2s\", read_timeout = \"5s\" }}]\nroutes = [{{ path = \"/\", backend = \"portal\" }}]\n"
    );
    let config = format!("{}{routes}", site_config(directory.path(), &ports));
    let belfry = Running::start(directory.path(), ports, &config);
    let ca = directory.path().join("data/edge/tls/ca.pem");
    for version in ["--http1.1", "--http2"] {
        let output = Command::new(tool("curl"))
            .args(["-sS", version, "--max-time", "20", "-w", "%{http_version} %{http_code}", "--cacert"])
            .arg(&ca)
            .arg(format!("https://localhost:{}/hello", ports.tls))
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = if version == "--http2" { "2 200" } else { "1.1 200" };
        assert!(text.ends_with(expected), "{version}: {text} {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("portal"), "{text}");
    }
    for flags in [vec!["--h1", "-c", "8"], vec!["-c", "4", "-m", "8"]] {
        let output = Command::new(tool("h2load"))
            .args(["-n", "2000"])
            .args(&flags)
            .arg(format!("https://127.0.0.1:{}/load", ports.tls))
            .output()
            .expect("h2load runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed"), "{flags:?}:\n{text}");
    }
    assert!(belfry.metric("edge_gateway_requests_total", "") >= 4002.0);
    let (status, body) = belfry.api("/api/v1/logs?query=component:edge_gateway&limit=5");
    assert_eq!(status, 200, "{body}");
}

/// A backend of the standard library: answers every request and keeps the connection.
fn backend() -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().expect("a handle");
                let mut lines = BufReader::new(stream).lines();
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nportal\n";
                        if writer.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}
