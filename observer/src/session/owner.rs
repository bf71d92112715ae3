//! Whose files a thread works on. What the service records is read from, and written to, places that its owner controls: the threads that do
//! so have the owner's rights to files, and no others. Knows users and threads; nothing of sessions.

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setfsgid, setfsuid};
use std::{ffi::CString, io};

/// A user, as far as files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
}

impl Owner {
    /// The user with this id, with the groups that the user database gives them; `gid` where it does not know them.
    pub fn of(uid: u32, gid: u32) -> Self {
        let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let (gid, name) = known.map_or((gid, None), |user| (user.gid.as_raw(), CString::new(user.name).ok()));
        let groups = name.and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok());
        let groups = groups.map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
        Self { uid, gid, groups }
    }

    /// Gives the calling thread, and those it will start, this user's rights to files for good: owner of what is created, and allowed what
    /// that user is allowed. Everything but files stays as it was, so the user may not signal or trace the thread. `credentials(7)`:
    /// "filesystem user ID"; leaving user 0 takes the capabilities that override file permissions from the effective set.
    ///
    /// # Errors
    /// When the kernel refuses; the thread must then touch no file.
    pub fn assume(&self) -> io::Result<()> {
        if !geteuid().is_root() && geteuid().as_raw() == self.uid {
            return Ok(());
        }
        let refused = |what: &str| io::Error::other(format!("cannot take the {what} of user {}", self.uid));
        let groups: Vec<_> = self.groups.iter().copied().map(rustix::thread::Gid::from_raw).collect();
        match rustix::thread::set_thread_groups(&groups) {
            Err(_) if self.uid == 0 => {}
            answer => answer?,
        }
        // The calls tell no error, only what was there before: asked twice, they tell whether it took.
        setfsgid(Gid::from_raw(self.gid));
        if setfsgid(Gid::from_raw(self.gid)).as_raw() != self.gid {
            return Err(refused("group"));
        }
        setfsuid(Uid::from_raw(self.uid));
        if setfsuid(Uid::from_raw(self.uid)).as_raw() != self.uid {
            return Err(refused("identity"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
        thread,
    };

    use super::*;

    #[test]
    fn a_thread_with_another_identity_reads_only_what_that_user_may() {
        if !geteuid().is_root() {
            eprintln!("not run: only root can take another identity");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let secret = scratch.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let nobody = Owner { uid: 65_534, gid: 65_534, groups: vec![65_534] };
        let theirs = scratch.path().join("theirs");
        let (path, made) = (secret.clone(), theirs.clone());
        thread::spawn(move || {
            nobody.assume().unwrap();
            assert_eq!(fs::read(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            // A thread of the thread, as those of a recording.
            thread::spawn(move || {
                assert_eq!(fs::read(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
                fs::write(made, "").unwrap();
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(theirs.metadata().unwrap().uid(), 65_534);
        assert_eq!(fs::read(&secret).unwrap(), b"x", "this thread is as it was");
    }
}
