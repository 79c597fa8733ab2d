//! Edge, core and media in three processes, linked by mutual TLS: a phone notices nothing of it.

use std::path::{Path, PathBuf};

use crate::running::{Ports, Running, eventually, free_port};
use crate::sipp::{call_with_sipp, register_with_sipp};

/// Calls of the test.
const CALLS: u32 = 20;

/// The beginning of a configuration: a node with its own data and its certificate from the shared authority.
fn node(name: &str, folder: &Path, admin: u16, authority: &Path, mesh: &str) -> String {
    format!(
        "[node]\nname = \"{name}\"\ndata = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n[mesh]\n{mesh}\n\
         [mesh.identity]\ndirectory = \"{}\"\nlifetime = \"1h\"\n",
        folder.join("data").display(),
        authority.display()
    )
}

fn folder(directory: &Path, name: &str) -> PathBuf {
    let folder = directory.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn three_processes_carry_calls_with_sound() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority");
    let ports = Ports::free();
    let (core_mesh, media_mesh, core_admin, core_api, media_admin) =
        (free_port(), free_port(), free_port(), free_port(), free_port());

    let media_folder = folder(directory.path(), "media");
    let media_config = format!(
        "{}[media]\nbind_address = \"127.0.0.1\"\nport_min = {}\nport_max = {}\npin_workers = false\n",
        node(
            "media-1",
            &media_folder,
            media_admin,
            &authority,
            &format!("listen = \"127.0.0.1:{media_mesh}\"\npeers = [{{ name = \"core-1\" }}]"),
        ),
        ports.rtp_first,
        ports.rtp_first + 999,
    );
    let media = Running::start(&media_folder, Ports { admin: media_admin, ..ports }, &media_config);

    let core_folder = folder(directory.path(), "core");
    let core_peers = format!(
        "listen = \"127.0.0.1:{core_mesh}\"\npeers = [{{ name = \"edge-1\" }}, \
         {{ name = \"media-1\", address = \"127.0.0.1:{media_mesh}\", services = [\"media\"] }}]"
    );
    let core_config = format!(
        "{}[core.signalling]\ndomains = [\"belfry.test\"]\n[observe]\nlisten = \"127.0.0.1:{core_api}\"\n",
        node("core-1", &core_folder, core_admin, &authority, &core_peers),
    );
    let core =
        Running::start(&core_folder, Ports { admin: core_admin, api: core_api, ..ports }, &core_config);
    core.subscribe(&["alice", "bob"]);

    let edge_folder = folder(directory.path(), "edge");
    let edge_peers = format!(
        "peers = [{{ name = \"core-1\", address = \"127.0.0.1:{core_mesh}\", services = [\"signalling\"] }}]"
    );
    let edge_config = format!(
        "{}[edge]\nlisteners = [{{ name = \"udp\", kind = \"sip-udp\", address = \"127.0.0.1:{}\" }}]\n",
        node("edge-1", &edge_folder, ports.admin, &authority, &edge_peers),
        ports.sip
    );
    let edge = Running::start(&edge_folder, ports, &edge_config);

    eventually("both links are up", || {
        let signalling = edge.metric("mesh_links", "service=\"signalling\"");
        let relays = core.metric("core_relays", "");
        (signalling >= 1.0 && relays >= 1.0).then_some(())
    });
    let (alice_port, bob_port) = (free_port(), free_port());
    register_with_sipp(directory.path(), "alice", alice_port, ports.sip);
    register_with_sipp(directory.path(), "bob", bob_port, ports.sip);
    call_with_sipp(directory.path(), [alice_port, bob_port], CALLS, ports.sip);
    let packets = media.metric("media_forwarded_packets_total", "");
    assert!(packets >= f64::from(CALLS) * 20.0, "{packets} packets were relayed");
    assert!(core.metric("core_call_records_total", "outcome=\"written\"") >= f64::from(CALLS));
}
