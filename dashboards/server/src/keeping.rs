//! Sessions over a restart: so that the wall does not ask for a password whenever Belfry is upgraded.
//!
//! The file holds hashes of tokens: who reads it cannot log in. It says whose each session is, so that none outlives
//! its user or the user's password. It is written anew at each login and logout and once
//! a minute, whole, so that a crash leaves the old one or the new one.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_signal::{Pii, now_unix_nanos};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::handle::stopped;
use crate::routes::App;
use crate::sessions::{Kept, Owner, PasswordDigest, TokenHash, text_of};

const HEADER: &str = "belfry sessions 2";
/// Uses of sessions are written down this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// More than any file of ours.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The task that owns the file.
pub(crate) struct Keeper {
    pub(crate) app: Arc<App>,
    pub(crate) file: PathBuf,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Keeper {
    /// Writes until the page stops, and once more then.
    pub(crate) async fn run(mut self) {
        let mut is_last = false;
        while !is_last {
            let app = Arc::clone(&self.app);
            tokio::select! {
                () = stopped(&mut self.stop) => is_last = true,
                () = app.sessions.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let text = written(&self.app.sessions.kept(Instant::now()), unix_seconds());
            let file = self.file.clone();
            let writing = tokio::task::spawn_blocking(move || replace(&file, &text));
            if !writing.await.is_ok_and(|result| result.is_ok()) {
                self.app.signals.sessions_not_kept();
            }
        }
    }
}

/// What the file says; a file that is not there says nothing.
///
/// # Errors
/// When it is there but cannot be read, or is none of ours.
pub(crate) fn load(file: &Path) -> io::Result<Vec<Kept>> {
    match fs::metadata(file) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        _ => {}
    }
    read(&fs::read_to_string(file)?, unix_seconds()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn written(sessions: &[Kept], unix_seconds: u64) -> String {
    let mut text = format!("{HEADER}\n");
    for Kept { hash, owner, age, idle } in sessions {
        let (began, used) =
            (unix_seconds.saturating_sub(age.as_secs()), unix_seconds.saturating_sub(idle.as_secs()));
        let _ = write!(text, "{} {began} {used}", text_of(&hash.0));
        let _ = match owner {
            Owner::Link => writeln!(text, " link"),
            // A name may hold spaces, so it is written as its bytes.
            Owner::User { name, password } => {
                writeln!(text, " user {} {}", text_of(name.reveal().as_bytes()), text_of(&password.0))
            }
        };
    }
    text
}

/// A clock that was set back makes sessions younger than they are by no more than that.
fn read(text: &str, unix_seconds: u64) -> Option<Vec<Kept>> {
    let rest = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
    let since = |seconds: &str| Some(Duration::from_secs(unix_seconds.saturating_sub(seconds.parse().ok()?)));
    let line = |line: &str| {
        let (mut words, bytes) = (line.split(' '), |word: &str| URL_SAFE_NO_PAD.decode(word).ok());
        let hash = TokenHash(bytes(words.next()?)?.try_into().ok()?);
        let (age, idle) = (since(words.next()?)?, since(words.next()?)?);
        let owner = match words.next()? {
            "link" => Owner::Link,
            "user" => Owner::User {
                name: Pii::new(String::from_utf8(bytes(words.next()?)?).ok()?),
                password: PasswordDigest(bytes(words.next()?)?.try_into().ok()?),
            },
            _ => return None,
        };
        Some(Kept { hash, owner, age, idle })
    };
    rest.lines().map(line).collect()
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = file.with_extension("new");
    let mut writer = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writer.write_all(text.as_bytes())?;
    writer.sync_all()?;
    fs::rename(&new, file)
}

fn unix_seconds() -> u64 {
    now_unix_nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_survive_the_file_and_age_meanwhile() {
        let seconds = Duration::from_secs;
        let ann = Owner::User { name: Pii::new("ann of ops".to_owned()), password: PasswordDigest([9; 32]) };
        let sessions = [ann, Owner::Link].map(|owner| Kept {
            hash: TokenHash([7; 32]),
            owner,
            age: seconds(500),
            idle: seconds(20),
        });
        let text = written(&sessions, 1_000_000);
        assert!(text.starts_with("belfry sessions 2\nBwcH"), "{text}");
        let later = read(&text, 1_000_030).expect("ours");
        assert_eq!(later.len(), 2);
        for (session, later) in sessions.iter().zip(later) {
            assert_eq!((later.hash, later.age, later.idle), (session.hash, seconds(530), seconds(50)));
            assert_eq!(later.owner, session.owner);
        }
    }

    #[test]
    fn what_is_not_ours_is_refused_whole() {
        let hash = text_of(&[7; 32]);
        // The first kind of file did not say whose a session is: nobody could be told apart, so everybody is asked.
        let old = format!("belfry sessions 1\n{hash} 1 2\n");
        let ownerless = format!("belfry sessions 2\n{hash} 1 2\n");
        let short = format!("belfry sessions 2\n{hash} 1 2 user YW5u AAAA\n");
        for text in
            ["", &old, &ownerless, &short, "belfry sessions 2\nshort 1 2 link\n", "belfry sessions 2\nx"]
        {
            assert!(read(text, 0).is_none(), "{text:?}");
        }
        assert!(read("belfry sessions 2\n", 0).is_some_and(|sessions| sessions.is_empty()));
    }
}
