//! Who asks: the user and groups that the calling process acts for. Key policies and grants speak of them.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User};

/// A group of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerGroup {
    /// Its id.
    pub gid: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// Who calls the key service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The effective user id.
    pub uid: u32,
    /// The user's name, where it has one.
    pub user: Option<String>,
    /// The effective group and the supplementary ones.
    pub groups: Vec<CallerGroup>,
}

impl Caller {
    /// Whom this process acts for.
    #[must_use]
    pub fn current() -> Self {
        let uid = Uid::effective();
        let mut gids = vec![Gid::effective().as_raw()];
        // It fails only where the list changes meanwhile, which only this process could do.
        let supplementary = rustix::process::getgroups().unwrap_or_default();
        gids.extend(supplementary.into_iter().map(|gid| gid.as_raw()));
        gids.sort_unstable();
        gids.dedup();
        let group = |gid| CallerGroup {
            gid,
            name: group_name(Gid::from_raw(gid)),
        };
        Self {
            uid: uid.as_raw(),
            user: user_name(uid),
            groups: gids.into_iter().map(group).collect(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(name) => write!(f, "user {name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// Nothing where there is no name, or none can be found out now.
pub(super) fn user_name(uid: Uid) -> Option<String> {
    User::from_uid(uid).ok().flatten().map(|user| user.name)
}

/// Nothing where there is no name, or none can be found out now.
pub(super) fn group_name(gid: Gid) -> Option<String> {
    Group::from_gid(gid).ok().flatten().map(|group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_acts_for_its_effective_user_and_all_its_groups() {
        let caller = Caller::current();
        assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
        let own = rustix::process::getegid().as_raw();
        assert!(caller.groups.iter().any(|group| group.gid == own));
        for gid in rustix::process::getgroups().unwrap() {
            assert!(caller.groups.iter().any(|group| group.gid == gid.as_raw()));
        }
    }

    #[test]
    fn a_user_without_name_is_shown_by_number() {
        let caller = |user: Option<&str>| Caller {
            uid: 7,
            user: user.map(str::to_owned),
            groups: vec![],
        };
        assert_eq!(caller(None).to_string(), "uid 7");
        assert_eq!(caller(Some("alice")).to_string(), "user alice (uid 7)");
    }
}
