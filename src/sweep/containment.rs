//! `[containment]`: whose rights an engine has, and how much of the host's memory.

use crate::form::{Fields, Wrong};

/// What an engine may. Without the section: sweepd's own rights, and memory as the host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Containment {
    /// A user of this machine; sweepd must be root.
    pub(crate) run_as: Option<String>,
    /// What the engine's processes may use together; the kernel ends them beyond.
    pub(crate) memory_max_bytes: Option<u64>,
}

pub(super) fn containment(fields: Option<&Fields<'_>>) -> Containment {
    let Some(fields) = fields else { return Containment::default() };
    Containment {
        run_as: fields.optional("run_as").parsed(user),
        memory_max_bytes: fields.optional("memory_max").parsed(bytes),
    }
}

/// Whether the user is there is asked at launch: the check may run on another machine.
fn user(text: &str) -> Result<String, Wrong> {
    let fits = !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !fits {
        return Err(Wrong::new(format!("{text:?} is no user's name")).help("such as `nobody`"));
    }
    Ok(text.to_owned())
}

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// `512MiB`, `64 GB`.
fn bytes(text: &str) -> Result<u64, Wrong> {
    let wrong = || Wrong::new(format!("{text:?} is no size")).help("such as `64GB` or `512MiB`");
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).unwrap_or_default().trim();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(*factor).ok_or_else(wrong)?;
    if bytes < 1 << 20 {
        return Err(Wrong::new(format!("{text:?} is less than any engine needs")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        assert_eq!(bytes("64GB").ok(), Some(64_000_000_000));
        assert_eq!(bytes("512 MiB").ok(), Some(512 << 20));
        for wrong in ["", "64", "GB", "1.5GB", "-1GB", "64gb", "99999999999TB", "3kB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_user_is_a_plain_name() {
        assert!(user("nobody").is_ok());
        for wrong in ["", "-x", "a b", "root:root"] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }
}
