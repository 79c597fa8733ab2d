//! Flow tokens: a flow's name that survives a trip through phones and proxies (RFC 5626 section 5.2).
//!
//! The token holds all that is needed to find the flow again, signed with the site's key: a UDP flow needs no
//! table and survives a restart; a connection's token of an earlier life is known to be gone.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_signalling::handle::{FlowToken, Transport};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::Error;
use crate::files;

/// Bytes of the signature that are kept: 96 bits, where RFC 5626's own example keeps 80.
const SIGNATURE_BYTES: usize = 12;
const VERSION: u8 = 1;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowName {
    /// How the peer speaks.
    pub(crate) transport: Transport,
    /// The listener, by a hash of its name, so that the order in the configuration does not matter.
    pub(crate) listener: u32,
    /// The peer as seen on the socket.
    pub(crate) remote: SocketAddr,
    /// The connection; 0 on UDP.
    pub(crate) connection: u64,
}

/// Signs and checks.
#[derive(Clone)]
pub(crate) struct FlowKey(Hmac<Sha256>);

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlowKey([secret])")
    }
}

impl FlowKey {
    /// Reads the key file, or makes one with mode 0600.
    ///
    /// # Errors
    /// When the file can be neither read nor made, or holds fewer than 32 bytes.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let key = match std::fs::read(path) {
            Ok(key) => key,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                files::write_secret(path, &key)?;
                key.to_vec()
            }
            Err(source) => return Err(Error::File { path: path.to_owned(), source }),
        };
        let too_short = || Error::Config {
            key: "sip.flow_key_file".to_owned(),
            problem: format!("{} holds {} bytes; at least 32 are needed", path.display(), key.len()),
        };
        let key = (key.len() >= 32).then(|| Self::new(&key)).flatten().ok_or_else(too_short)?;
        Ok(key)
    }

    fn new(key: &[u8]) -> Option<Self> {
        Hmac::<Sha256>::new_from_slice(key).ok().map(Self)
    }

    /// The token of a flow.
    pub(crate) fn sign(&self, name: &FlowName) -> FlowToken {
        let mut bytes = vec![VERSION, transport_code(name.transport)];
        bytes.extend_from_slice(&name.listener.to_be_bytes());
        if name.transport != Transport::Udp {
            bytes.extend_from_slice(&name.connection.to_be_bytes());
        }
        match name.remote.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&name.remote.port().to_be_bytes());
        let signature = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&signature[..SIGNATURE_BYTES]);
        FlowToken(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a token names, when this site signed it.
    pub(crate) fn open(&self, token: &FlowToken) -> Option<FlowName> {
        // Longer than any token of ours: do not even decode it.
        if token.0.len() > 80 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(&token.0).ok()?;
        let (payload, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        self.0.clone().chain_update(payload).verify_truncated_left(signature).ok()?;
        let (&[version, code], rest) = payload.split_first_chunk::<2>()?;
        let transport = transport_of(code).filter(|_| version == VERSION)?;
        let (listener, rest) = rest.split_first_chunk::<4>()?;
        let (connection, rest) = match transport {
            Transport::Udp => (0, rest),
            _ => rest.split_first_chunk::<8>().map(|(id, rest)| (u64::from_be_bytes(*id), rest))?,
        };
        let (ip, port) = rest.split_last_chunk::<2>()?;
        let ip: IpAddr = match ip.len() {
            4 => <[u8; 4]>::try_from(ip).ok()?.into(),
            16 => <[u8; 16]>::try_from(ip).ok()?.into(),
            _ => return None,
        };
        let remote = SocketAddr::new(ip, u16::from_be_bytes(*port));
        Some(FlowName { transport, listener: u32::from_be_bytes(*listener), remote, connection })
    }
}

fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    }
}

fn transport_of(code: u8) -> Option<Transport> {
    [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss]
        .get(usize::from(code))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(transport: Transport, remote: &str) -> FlowName {
        let connection = if transport == Transport::Udp { 0 } else { 77 };
        FlowName { transport, listener: 0xdead_beef, remote: remote.parse().expect("an address"), connection }
    }

    #[test]
    fn tokens_survive_a_round_trip_and_fit_a_user_part() {
        let key = FlowKey::new(&[1; 32]).expect("a key");
        for name in [
            name(Transport::Udp, "192.0.2.1:5060"),
            name(Transport::Wss, "[2001:db8::1]:40000"),
            name(Transport::Tls, "192.0.2.1:1"),
        ] {
            let token = key.sign(&name);
            assert!(token.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            assert_eq!(key.open(&token), Some(name), "{token:?}");
        }
    }

    #[test]
    fn changed_cut_and_foreign_tokens_are_refused() {
        let key = FlowKey::new(&[1; 32]).expect("a key");
        let token = key.sign(&name(Transport::Udp, "192.0.2.1:5060"));
        assert_eq!(FlowKey::new(&[2; 32]).expect("a key").open(&token), None, "another site's");
        for index in 0..token.0.len() {
            let mut text = token.0.clone().into_bytes();
            text[index] = if text[index] == b'A' { b'B' } else { b'A' };
            let changed = FlowToken(String::from_utf8(text).expect("ascii"));
            // The last character may carry bits that are not part of any byte.
            assert!(key.open(&changed).is_none(), "changed at {index}");
            assert_eq!(key.open(&FlowToken(token.0[..index].to_owned())), None, "cut at {index}");
        }
        for text in ["", "====", "é", &"A".repeat(100)] {
            assert_eq!(key.open(&FlowToken(text.to_owned())), None, "{text:?}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("edge/flow.key");
        let token = FlowKey::load(&path).expect("made").sign(&name(Transport::Udp, "192.0.2.1:5060"));
        assert!(FlowKey::load(&path).expect("read").open(&token).is_some(), "survives a restart");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, b"short").expect("writable");
        assert_eq!(FlowKey::load(&path).map_err(|error| error.reason()).err(), Some("config"));
    }
}
