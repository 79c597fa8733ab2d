//! Passwords: argon2id, at most a few checks at once, and the same work for names that do not exist.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::config::User;
use crate::error::Error;
use crate::sessions::Owner;

/// Checks at once: each takes about 19 MiB and one core for tens of milliseconds.
const CHECKS_MAX: usize = 2;

/// Makes the `password_hash` of a user: argon2id with the library's recommended cost and a random salt, in PHC form.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn hash_password(password: &str) -> Result<String, Error> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Error::Hash(error.to_string()))
}

/// Whether a text can be a user's `password_hash`.
pub(crate) fn is_hash(text: &str) -> bool {
    text.starts_with("$argon2id$") && PasswordHash::new(text).is_ok()
}

/// Who may log in, and the bounded work of checking it.
#[derive(Debug)]
pub(crate) struct Users {
    users: Vec<User>,
    /// Checked for unknown names, so that an answer takes as long and tells nothing.
    nobody_hash: String,
    checks: Semaphore,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right(Owner),
    Wrong,
    /// Too many checks are under way.
    Busy,
}

impl Users {
    pub(crate) fn new(users: Vec<User>) -> Result<Self, Error> {
        let nobody: [u8; 16] = rand::random();
        let nobody_hash = hash_password(&crate::sessions::text_of(&nobody))?;
        Ok(Self { users, nobody_hash, checks: Semaphore::new(CHECKS_MAX) })
    }

    pub(crate) async fn check(&self, name: &str, password: String) -> Verdict {
        let Ok(_permit) = self.checks.try_acquire() else { return Verdict::Busy };
        let known = self.users.iter().find(|user| user.name == name);
        let hash = known.map_or(&self.nobody_hash, |user| &user.password_hash).clone();
        let checking = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        let is_right = checking.await.unwrap_or(false);
        known.filter(|_| is_right).map_or(Verdict::Wrong, |user| Verdict::Right(Owner::of(user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_name_is_right() {
        let hash = hash_password("correct horse").expect("randomness");
        assert!(is_hash(&hash), "{hash}");
        let ann = User { name: "ann".into(), password_hash: hash };
        let users = Users::new(vec![ann.clone()]).expect("randomness");
        for (name, password, verdict) in [
            ("ann", "correct horse", Verdict::Right(Owner::of(&ann))),
            ("ann", "correct hors", Verdict::Wrong),
            ("ann", "", Verdict::Wrong),
            ("bob", "correct horse", Verdict::Wrong),
        ] {
            assert_eq!(users.check(name, password.to_owned()).await, verdict, "{name} {password}");
        }
    }

    #[test]
    fn weaker_schemes_are_not_hashes() {
        for text in [
            "",
            "correct horse",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$argon2i$v=19$m=4096,t=3,p=1$c2FsdA$aGFzaA",
        ] {
            assert!(!is_hash(text), "{text}");
        }
    }
}
