//! Who asks, as the kernel says, and what they may.
//!
//! Whoever can connect may look; the owner, root and the members of the configured group may change.

use super::Api;
use crate::daemon::service::asks::Refused;
use crate::daemon::service::config::Config;
use crate::store::control::By;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use nix::unistd::{Gid, Group, Uid, User};
use std::ffi::CString;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Local {
        uid: u32,
        gid: u32,
        pid: Option<i32>,
    },
    /// Over TCP, with the right token.
    Token,
}

impl Peer {
    pub(super) fn by(self) -> By {
        match self {
            Self::Local { uid, pid, .. } => By { uid: Some(uid), pid },
            Self::Token => By { uid: None, pid: None },
        }
    }

    fn may_change(self, config: &Config) -> bool {
        let Self::Local { uid, gid, .. } = self else { return true };
        if uid == 0 || uid == Uid::effective().as_raw() {
            return true;
        }
        let group = config.group.as_deref().and_then(|name| Group::from_name(name).ok().flatten());
        group.is_some_and(|group| is_member(uid, gid, group.gid))
    }
}

/// By the process's own group, or by the user's groups as the system lists them.
fn is_member(uid: u32, gid: u32, group: Gid) -> bool {
    if gid == group.as_raw() {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// Somebody who may change things.
pub(super) struct Changer(pub(super) By);

impl FromRequestParts<Api> for Changer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let Some(peer) = parts.extensions.get::<Peer>().copied() else {
            return Err(Refused::new(500, "the connection does not say whose it is"));
        };
        let config = api.config.borrow().clone();
        // Groups are looked up in files, or over the network.
        let may = tokio::task::spawn_blocking(move || peer.may_change(&config)).await;
        if may.unwrap_or(false) {
            return Ok(Self(peer.by()));
        }
        tracing::warn!(by = %peer.by(), path = parts.uri.path(), "refused: no right to change");
        Err(Refused::new(403, format!("{} may look, but change nothing", peer.by()))
            .help("root, the daemon's user and members of the `group` in its configuration may"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_the_token_may_and_a_stranger_may_not() {
        let local = |uid, gid| Peer::Local { uid, gid, pid: None };
        let config = Config { group: Some("root".into()), ..Config::default() };
        assert!(Peer::Token.may_change(&config));
        assert!(local(0, 12_345).may_change(&config));
        assert!(local(Uid::effective().as_raw(), 12_345).may_change(&config));
        assert!(!local(54_321, 54_321).may_change(&config));
        // A member of the group by its process.
        assert!(local(54_321, 0).may_change(&config));
        assert!(!local(54_321, 0).may_change(&Config::default()));
    }
}
