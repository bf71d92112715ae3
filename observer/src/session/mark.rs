//! The file beside a session that says "being recorded now". It is locked for as long as its writer lives, however that ends, and it
//! is as large as the room the last words need when the disk is full. Knows files only.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Space kept for the last words. The loss counts and the ending take some tens of kilobytes; SQLite's log takes whole pages.
pub(crate) const RESERVE_BYTES: u64 = 1 << 20;

/// Held by whoever records a session.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Marks the session as being recorded, and takes the reserve.
    ///
    /// A lock file of its own, and not a lock on the database: closing any descriptor of the database would drop the locks SQLite
    /// itself holds on it (`fcntl` locks belong to the process).
    pub(crate) fn create(session: &Path, owner: (u32, u32), mode: u32) -> io::Result<Self> {
        let path = path_of(session);
        let file = create_new(&path, owner, mode)?;
        file.lock()?;
        nix::fcntl::posix_fallocate(&file, 0, RESERVE_BYTES as i64)?;
        Ok(Self { file, path })
    }

    /// Takes over the mark of somebody who was killed; `None` when its writer lives.
    pub(crate) fn retake(session: &Path, owner: (u32, u32), mode: u32) -> io::Result<Option<Self>> {
        let path = path_of(session);
        // A FIFO opened for both is not waited for.
        let opened = OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::create(session, owner, mode).map(Some);
            }
            file => file?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != owner.0 {
            return Err(io::Error::other("the mark beside it is no file of its owner's"));
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        nix::fcntl::posix_fallocate(&file, 0, RESERVE_BYTES as i64)?;
        Ok(Some(Self { file, path }))
    }

    /// Gives back all of the reserve but `keep_bytes`. Shrunk and not removed, because the lock has to stay.
    pub(crate) fn shrink(&self, keep_bytes: u64) -> io::Result<()> {
        self.file.set_len(keep_bytes)
    }

    /// The recording is over.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Creates a file that did not exist, with this mode whatever the umask says. A link that somebody left in its place is not followed.
pub(super) fn create_new(path: &Path, (uid, gid): (u32, u32), mode: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(O_NOFOLLOW)
        .open(path)?;
    if nix::unistd::geteuid().is_root() {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Where the mark of a session is.
pub(super) fn path_of(session: &Path) -> PathBuf {
    session.with_extension("recording")
}

/// Whether somebody records this session now.
pub(super) fn is_held(session: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path_of(session))
    else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}
