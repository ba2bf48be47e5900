//! Who asks: the user and process behind an operation (CloudTrail's userIdentity).

use nix::unistd::{Uid, User};
use serde::Serialize;

/// The kernel's answer where nobody has logged in.
const NO_LOGIN: u32 = u32::MAX;

/// Who asks for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    #[serde(rename = "type")]
    kind: &'static str,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    effective_uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_user_name: Option<String>,
    /// Whose session it is, whatever they have become since: the kernel remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    login_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_user_name: Option<String>,
    /// As sudo(8) says in the environment, which whoever is root can set to anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo_user_name: Option<String>,
    process_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<String>,
}

impl Identity {
    /// The user and process that run this.
    #[must_use]
    pub fn of_process() -> Self {
        let (uid, effective) = (Uid::current(), Uid::effective());
        let login = std::fs::read_to_string("/proc/self/loginuid").ok();
        let login_uid = login
            .and_then(|text| text.trim().parse().ok())
            .filter(|uid| *uid != NO_LOGIN);
        let sudo = || std::env::var("SUDO_USER").ok();
        Self {
            kind: "User",
            uid: uid.as_raw(),
            user_name: name_of(uid),
            effective_uid: effective.as_raw(),
            effective_user_name: name_of(effective),
            login_uid,
            login_user_name: login_uid.and_then(|uid| name_of(Uid::from_raw(uid))),
            sudo_user_name: effective.is_root().then(sudo).flatten(),
            process_id: std::process::id(),
            executable: std::env::current_exe()
                .ok()
                .map(|path| path.to_string_lossy().into_owned()),
        }
    }

    /// Somebody who is not asked for: for tests.
    #[must_use]
    pub fn named(user_name: &str, uid: u32) -> Self {
        Self {
            kind: "User",
            uid,
            user_name: Some(user_name.to_owned()),
            effective_uid: uid,
            effective_user_name: Some(user_name.to_owned()),
            login_uid: None,
            login_user_name: None,
            sudo_user_name: None,
            process_id: 1,
            executable: None,
        }
    }
}

fn name_of(uid: Uid) -> Option<String> {
    User::from_uid(uid).ok().flatten().map(|user| user.name)
}
