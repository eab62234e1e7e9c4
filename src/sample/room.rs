//! What the machine has to give to a sweep.

use crate::sweep::preflight::Room;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// `runs`: where runs are kept, or will be.
pub(crate) fn read(runs: &Path) -> Room {
    Room {
        open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
        ephemeral_ports: ephemeral_ports(),
        disk_bytes: existing(runs).and_then(free_bytes),
    }
}

fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(|port| port.parse().ok());
    Some((ports.next()??, ports.next()??))
}

/// The folder, or the nearest one above it that exists.
fn existing(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|path| path.exists())
}

/// For whoever is not root.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let disk = statvfs(path).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_all_of_it() {
        let room = read(Path::new("/tmp/there/is/no/such/folder"));
        assert!(room.open_files.is_some_and(|limit| limit > 64));
        assert!(room.ephemeral_ports.is_some_and(|(first, last)| first < last));
        assert!(room.disk_bytes.is_some());
    }
}
