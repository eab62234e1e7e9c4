//! Another user's rights for an engine: looked up beforehand, taken between fork and exec.

use nix::unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::path::PathBuf;

/// A user with all groups, so that nothing has to be looked up between fork and exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunAs {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: PathBuf,
}

impl RunAs {
    /// Completes "`run_as` …".
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let user = User::from_name(name)
            .map_err(|error| format!("cannot be looked up: {error}"))?
            .ok_or_else(|| format!("names {name:?}, whom this machine does not know"))?;
        if !nix::unistd::geteuid().is_root() && user.uid != nix::unistd::geteuid() {
            return Err("needs sweepd to run as root".to_owned());
        }
        let c_name = CString::new(name).map_err(|_| "holds a zero byte".to_owned())?;
        let groups = getgrouplist(&c_name, user.gid)
            .map_err(|error| format!("has groups that cannot be looked up: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: user.dir,
        })
    }

    /// Takes the user's rights for good. Only makes system calls: it runs between fork and exec.
    pub(crate) fn become_it(&self, groups: &[Gid]) -> io::Result<()> {
        if nix::unistd::geteuid().is_root() {
            setgroups(groups)?;
        }
        setgid(Gid::from_raw(self.gid))?;
        setuid(Uid::from_raw(self.uid))?;
        // No program on the disk gives more rights back.
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    }

    pub(crate) fn group_list(&self) -> Vec<Gid> {
        self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect()
    }
}
