//! Who asked: the person at the keyboard, also when the program was started through sudo. Knows the user database and the
//! environment, and nothing of sessions.

use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups};

/// The user on whose behalf we run: files we leave behind are theirs, and a command we start runs as them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, as a login would give them; the primary one may be among them.
    pub groups: Vec<u32>,
    /// Login name; the user id in digits when the user database does not know it.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// Whether we run as root on behalf of somebody else.
    pub through_sudo: bool,
}

impl Invoker {
    /// Who invoked this process.
    pub fn current() -> Self {
        Self::from_environment(geteuid(), |name| std::env::var(name).ok())
    }

    /// `SUDO_UID` and `SUDO_GID` count only when we are root: anybody can set a variable, and for others it would change nothing
    /// but whose name is on the files.
    fn from_environment(euid: Uid, variable: impl Fn(&str) -> Option<String>) -> Self {
        let id = |name| variable(name)?.parse::<u32>().ok();
        match (euid.is_root(), id("SUDO_UID"), id("SUDO_GID")) {
            (true, Some(uid), Some(gid)) if uid != 0 => Self::named(uid, gid, None, true),
            _ => {
                let home = variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
                let mut own = Self::named(euid.as_raw(), getegid().as_raw(), home, false);
                if let Ok(groups) = getgroups() {
                    own.groups = groups.into_iter().map(Gid::as_raw).collect();
                }
                own
            }
        }
    }

    /// A user of the database, for a command to run as.
    pub fn of(user: &User) -> Self {
        Self::named(user.uid.as_raw(), user.gid.as_raw(), Some(user.dir.clone()), false)
    }

    fn named(uid: u32, gid: u32, home: Option<PathBuf>, through_sudo: bool) -> Self {
        let entry = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let groups = entry
            .as_ref()
            .and_then(|user| std::ffi::CString::new(user.name.as_str()).ok())
            .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
            .map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
        let (name, passwd_home) =
            entry.map_or_else(|| (uid.to_string(), PathBuf::from("/")), |user| (user.name, user.dir));
        Self { uid, gid, groups, name, home: home.unwrap_or(passwd_home), through_sudo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    const SUDO: &[(&str, &str)] = &[("SUDO_UID", "4000123"), ("SUDO_GID", "4000124"), ("HOME", "/root")];

    #[test]
    fn under_sudo_the_invoker_is_who_ran_sudo() {
        let invoker = Invoker::from_environment(Uid::from_raw(0), environment(SUDO));
        assert_eq!((invoker.uid, invoker.gid, invoker.through_sudo), (4_000_123, 4_000_124, true));
        assert_eq!(invoker.name, "4000123", "a user without a passwd entry is named by number");
        assert_ne!(invoker.home, PathBuf::from("/root"), "HOME is root's under sudo");
    }

    #[test]
    fn sudo_variables_mean_nothing_to_an_ordinary_user() {
        let invoker = Invoker::from_environment(Uid::from_raw(4_000_999), environment(SUDO));
        assert_eq!((invoker.uid, invoker.through_sudo), (4_000_999, false));
    }

    #[test]
    fn without_sudo_home_comes_from_the_environment() {
        let invoker = Invoker::from_environment(geteuid(), environment(&[("HOME", "/somewhere")]));
        assert_eq!(invoker.home, PathBuf::from("/somewhere"));
        assert!(!invoker.through_sudo);
    }

    #[test]
    fn root_is_known_by_name() {
        let invoker = Invoker::from_environment(Uid::from_raw(0), environment(&[]));
        assert_eq!(invoker.name, "root");
    }

    #[test]
    fn garbage_in_sudo_uid_is_not_taken() {
        let invoker =
            Invoker::from_environment(Uid::from_raw(0), environment(&[("SUDO_UID", "x"), ("SUDO_GID", "1")]));
        assert_eq!(invoker.uid, 0);
    }
}
