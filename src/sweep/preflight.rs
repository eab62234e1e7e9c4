//! Whether the machine has room for a sweep: open files, ports, disk. Pure.
//!
//! What is found missing here would otherwise end a phase in the middle of the night.

use super::def::Sweep;
use crate::units::count_f64;

/// What the machine has to give; what could not be read is absent and refuses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// The hard limit of open files of a process.
    pub(crate) open_files: Option<u64>,
    /// First and last port that outgoing connections take.
    pub(crate) ephemeral_ports: Option<(u16, u16)>,
    /// Bytes free where runs are kept.
    pub(crate) disk_bytes: Option<u64>,
}

/// Something that the machine lacks, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// Descriptors of the load process beside its connections.
const OTHER_FILES: u64 = 64;
/// Never filled up: the machine's own programs need room, too.
const DISK_RESERVE: u64 = 1 << 30;
/// Of one launch: the kept parts of its log, and the small files.
const LAUNCH_BYTES: u64 = 20 << 20;
/// Of one request and of one output token in the records, as measured with room to spare.
const REQUEST_BYTES: u64 = 400;
const TOKEN_BYTES: u64 = 24;

/// Everything that is missing, at once.
pub(crate) fn lacks(sweep: &Sweep, room: &Room) -> Vec<Lack> {
    let phases = sweep.phases.iter();
    let most = phases.map(|phase| (u64::from(phase.users.get()), &phase.name)).max();
    let mut lacks = Vec::new();
    if let Some((users, phase)) = most {
        let needed = users + OTHER_FILES;
        if let Some(limit) = room.open_files.filter(|limit| needed > *limit) {
            lacks.push(Lack {
                what: format!("phase {phase} needs {needed} open files and the limit is {limit}"),
                remedy: format!("raise it: `ulimit -Hn {needed}`, or LimitNOFILE= of the service"),
            });
        }
        if let Some((first, last)) = room.ephemeral_ports {
            let ports = u64::from(last.saturating_sub(first)) + 1;
            if users > ports {
                lacks.push(Lack {
                    what: format!(
                        "phase {phase} needs {users} outgoing ports and there are {ports}"
                    ),
                    remedy: "widen net.ipv4.ip_local_port_range".to_owned(),
                });
            }
        }
    }
    let wanted = disk_bytes(sweep).saturating_add(DISK_RESERVE);
    if let Some(free) = room.disk_bytes.filter(|free| wanted > *free) {
        let gib = |bytes: u64| count_f64(bytes) / count_f64(1 << 30);
        lacks.push(Lack {
            what: format!(
                "the run may need {:.1} GiB of disk and {:.1} GiB are free",
                gib(wanted),
                gib(free)
            ),
            remedy: "free space, or keep runs elsewhere: `--runs DIR`".to_owned(),
        });
    }
    lacks
}

/// What the whole run leaves on disk at least.
fn disk_bytes(sweep: &Sweep) -> u64 {
    let tokens = u64::from(sweep.workload.output_tokens.get());
    let request = REQUEST_BYTES.saturating_add(TOKEN_BYTES.saturating_mul(tokens));
    let requests: u64 = sweep.phases.iter().map(|phase| u64::from(phase.min_requests)).sum();
    let variants = u64::try_from(sweep.variants.len()).unwrap_or(u64::MAX);
    let trials = variants.saturating_mul(u64::from(sweep.blocks.get()));
    trials.saturating_mul(LAUNCH_BYTES.saturating_add(requests.saturating_mul(request)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::parse::tests::{RIGHT, sweep};

    const AMPLE: Room = Room {
        open_files: Some(1 << 20),
        ephemeral_ports: Some((32_768, 60_999)),
        disk_bytes: Some(1 << 40),
    };

    #[track_caller]
    fn check(text: &str, room: Room, expected: &[&str]) {
        let lacks = lacks(&sweep(text), &room);
        let whats: Vec<&str> = lacks.iter().map(|lack| lack.what.as_str()).collect();
        assert_eq!(whats, expected);
        assert!(lacks.iter().all(|lack| !lack.remedy.is_empty()));
    }

    #[test]
    fn what_the_machine_lacks_is_told_at_once() {
        check(RIGHT, AMPLE, &[]);
        check(RIGHT, Room::default(), &[]);
        let crowd = RIGHT.replacen("users = 10", "users = 2000", 1);
        check(&crowd, AMPLE, &[]);
        let narrow = Room {
            open_files: Some(1024),
            ephemeral_ports: Some((60_000, 60_999)),
            disk_bytes: Some(1 << 20),
        };
        check(
            &crowd,
            narrow,
            &[
                "phase 2000-users needs 2064 open files and the limit is 1024",
                "phase 2000-users needs 2000 outgoing ports and there are 1000",
                "the run may need 1.1 GiB of disk and 0.0 GiB are free",
            ],
        );
    }
}
