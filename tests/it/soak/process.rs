//! What this process holds.

use std::collections::BTreeMap;

use tokio::runtime::Handle;

use crate::harness::sockets::{self, State};

/// Sockets of this process, at either end of a connection to one of these ports.
pub(super) fn sockets(ports: [u16; 2]) -> usize {
    let connected = sockets::all().into_iter().filter(|socket| {
        (ports.contains(&socket.local_port) || ports.contains(&socket.remote_port))
            && ![State::TimeWait, State::Listening].contains(&socket.state)
            && socket.is_held
    });
    connected.count()
}

/// How many descriptors this process has of each kind.
pub(super) fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        // The one that reads the folder is gone by now.
        if let Ok(link) = std::fs::read_link(entry.unwrap().path()) {
            let link = link.to_string_lossy().into_owned();
            // `socket:[123]` and `pipe:[123]` without their numbers; files by their names.
            let kind = link.split(":[").next().unwrap().to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

/// Resident memory of this process, in KiB.
pub(super) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Tasks of this runtime.
pub(super) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
