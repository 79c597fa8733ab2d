use std::os::unix::fs::PermissionsExt as _;

use belfry_signal::{Registry, TraceKey};
use rcgen::generate_simple_self_signed;

use super::*;

fn signals() -> Signals {
    Signals::register(&Registry::for_test(), TraceKey::new([0; 32]))
}

fn configured(directory: &Path, names: &[&str]) -> CertificateConfig {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let file = |end: &str| directory.join(format!("{}.{end}", names[0].replace('*', "any")));
    let (chain_file, key_file) = (file("pem"), file("key"));
    let made = generate_simple_self_signed(names.clone()).expect("made");
    std::fs::write(&chain_file, made.cert.pem()).expect("written");
    std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("written");
    CertificateConfig { chain_file, key_file }
}

fn snapshot(certificates: &[CertificateConfig]) -> Result<Snapshot, Error> {
    let keys = certificates.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Snapshot::of(keys)
}

#[test]
fn names_choose_certificates() {
    let directory = tempfile::tempdir().expect("a directory");
    let lists =
        [&["a.example.org", "192.0.2.1"][..], &["*.example.org"], &["b.example.org", "A.example.org"]];
    let certificates = lists.map(|names| configured(directory.path(), names));
    let snapshot = snapshot(&certificates).expect("usable");
    for (server_name, want) in [
        (Some("a.example.org"), 0),
        (Some("A.Example.ORG"), 0),
        (Some("b.example.org"), 2),
        (Some("c.example.org"), 1),
        (Some("x.c.example.org"), 0),
        (Some("example.org"), 0),
        (Some("elsewhere.example.com"), 0),
        (None, 0),
    ] {
        let leaf = snapshot.find(server_name).cert[0].clone();
        let wanted = read(&certificates[want]).expect("usable").cert[0].clone();
        assert_eq!(leaf, wanted, "{server_name:?}");
    }
    assert_eq!(snapshot.count, 3);
}

#[test]
fn bad_files_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = configured(directory.path(), &["a.example.org"]);
    let other = configured(directory.path(), &["b.example.org"]);
    let refused = |chain_file: &Path, key_file: &Path| {
        let config = CertificateConfig { chain_file: chain_file.to_owned(), key_file: key_file.to_owned() };
        snapshot(&[config]).expect_err("refused").to_string()
    };
    let mixed = refused(&good.chain_file, &other.key_file);
    assert!(mixed.contains("a.example.org.pem") && mixed.contains("does not fit"), "{mixed}");
    let nothing = directory.path().join("nothing.pem");
    assert!(refused(&nothing, &good.key_file).contains("nothing.pem"));
    std::fs::write(&nothing, "no certificate in here").expect("written");
    assert!(refused(&nothing, &good.key_file).contains("holds no certificate"));
    assert!(refused(&good.chain_file, &nothing).contains("nothing.pem"));
}

#[test]
fn the_local_authority_is_made_once_and_its_key_is_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = TlsConfig {
        directory: directory.path().join("tls"),
        certificates: vec![],
        names: vec![],
        peer_ca_files: vec![],
    };
    let names = || BTreeSet::from(["edge.example.org".to_owned(), "127.0.0.1".to_owned()]);
    let first = issue(&config, names(), &signals()).expect("issued");
    let authority = std::fs::read(config.directory.join(AUTHORITY_FILE)).expect("there");
    let second = issue(&config, names(), &signals()).expect("issued");
    assert_ne!(first.cert[0], second.cert[0], "every start has its own certificate");
    assert_eq!(
        std::fs::read(config.directory.join(AUTHORITY_FILE)).expect("there"),
        authority,
        "one authority"
    );
    let mode = |name: &str| {
        let path = config.directory.join(name);
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!((mode(AUTHORITY_KEY_FILE), mode(AUTHORITY_FILE)), (0o600, 0o644));
    assert_eq!(names_in(&second), ["127.0.0.1", "edge.example.org"]);
    std::fs::write(config.directory.join(AUTHORITY_KEY_FILE), "damaged").expect("written");
    let error = issue(&config, names(), &signals()).expect_err("refused");
    assert!(error.to_string().contains("ca.key"), "{error}");
}
