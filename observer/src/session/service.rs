//! Where the service keeps sessions: a directory for each user, below one that is root's. Makes them, finds them, and removes what is in
//! them; follows no link and leaves no directory. Knows files, users and groups; nothing of what a session holds.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    thread,
};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use super::{
    Owner, SessionError, StateDir,
    state_dir::{self, Place},
};

/// Where the service keeps what it knows.
pub const SERVICE_BASE: &str = "/var/lib/observer";

/// Below it, a directory for each user.
const USERS: &str = "users";

/// A directory of its own kind: nothing else is opened by this, and nothing is waited for.
const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl StateDir {
    /// The directory where the service keeps the sessions of user `uid`: `BASE/users/UID`. It and those above it are made where they are
    /// missing, and put right where they are not as they should be; to be called with full privilege. `users` is root's and can be listed
    /// by `group` only; `UID` is the user's, and with a `group` can be read by it (2750, and its files 0640), else by nobody else (0700 and
    /// 0600). Nothing in `base` itself but `users` is for others.
    ///
    /// Afterwards, what creates files here may be a thread with the file-system identity of the user (`setfsuid`, and without a group
    /// `setfsgid` to `gid`).
    ///
    /// # Errors
    /// When the system refuses, or something else than a directory of root's, or of this user's, lies in the way.
    pub fn service(base: &Path, uid: u32, gid: u32, group: Option<u32>) -> Result<Self, SessionError> {
        let own = geteuid().as_raw();
        let users = base.join(USERS);
        let path = users.join(uid.to_string());
        let failed = |path: &Path| {
            let path = path.to_owned();
            let next = "it is the service's own: remove what lies there instead, and start the service again";
            move |source| SessionError::Io { attempted: "make service directory", path, source, next }
        };
        std::fs::create_dir_all(base).map_err(failed(base))?;
        let base = base.canonicalize().map_err(failed(base))?;
        let root = open_dir(&base).map_err(failed(&base))?;
        // What is made in it gets its group from it.
        let listed = if group.is_some() { 0o2751 } else { 0o711 };
        make(&root, OsStr::new(USERS), Mode::S_IRWXU).map_err(failed(&users))?;
        let above = right_dir(&root, OsStr::new(USERS), (own, group), listed).map_err(failed(&users))?;
        let (name, mode) = (uid.to_string(), if group.is_some() { 0o2750 } else { 0o700 });
        let owner = (uid, group.unwrap_or(gid));
        // As it is to be from the first moment on: who gave up its rights cannot put it right.
        let made = Mode::from_bits_truncate(mode & 0o777);
        make_as(&above, OsStr::new(&name), made, Owner { uid, gid, groups: vec![gid] })
            .map_err(failed(&path))?;
        // Without one its group has no right to it, whichever that is.
        right_dir(&above, OsStr::new(&name), (uid, group), mode).map_err(failed(&path))?;
        let file_mode = if group.is_some() { 0o640 } else { 0o600 };
        Ok(Self::at(base.join(USERS).join(name), owner, file_mode))
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    Ok(File::from(nix::fcntl::open(path, DIRECTORY, Mode::empty())?))
}

/// Makes a directory in another one, if there is none.
fn make(above: &File, name: &OsStr, mode: Mode) -> io::Result<()> {
    match mkdirat(above, name, mode) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a user's directory where only root may make one: as that user, so that it is theirs from the first moment on and nothing has to be
/// given away, with no more than the right to write in the directory above.
fn make_as(above: &File, name: &OsStr, mode: Mode, owner: Owner) -> io::Result<()> {
    let made = thread::scope(|scope| {
        let making = scope.spawn(|| {
            owner.assume()?;
            // Leaving root took it from this thread. Who has none to take back may write there anyway, or is told so.
            let _ = caps::raise(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE);
            make(above, name, mode)
        });
        making.join()
    });
    made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes it ended")))
}

/// Opens a directory in another one, which has to be `uid`'s, and puts right what is not as it should be.
fn right_dir(above: &File, name: &OsStr, (uid, gid): (u32, Option<u32>), mode: u32) -> io::Result<File> {
    let made = File::from(openat(above, name, DIRECTORY, Mode::empty())?);
    let metadata = made.metadata()?;
    if metadata.uid() != uid {
        return Err(io::Error::other(format!("it belongs to user {}", metadata.uid())));
    }
    if gid.is_some_and(|gid| gid != metadata.gid()) {
        fchown(&made, None, gid)?;
    }
    // After the group: a change of that takes the set-group-id bit away.
    if made.metadata()?.mode() & 0o7777 != mode {
        made.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(made)
}

/// Whether a directory is the service's, with those of users below it.
pub(super) fn is_base(path: &Path) -> bool {
    path.join(USERS).symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// The directories of users that can be listed, by their numbers; where `users` cannot, that of `uid` alone. Those that cannot be read are
/// among them.
pub(super) fn places(base: &Path, uid: u32) -> Vec<Place> {
    let users = base.join(USERS);
    let place = |uid: u32| Place { path: users.join(uid.to_string()), owner: Some(uid) };
    let Ok(entries) = users.read_dir() else { return vec![place(uid)] };
    // A link among them is none of ours: who could make one there needs no help.
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut uids: Vec<u32> =
        directories.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    uids.sort_unstable();
    uids.into_iter().map(place).collect()
}

/// The users there are directories for.
pub fn owners(base: &Path) -> Vec<u32> {
    let owners = places(base, 0).into_iter().filter_map(|place| place.owner);
    owners.filter(|uid| base.join(USERS).join(uid.to_string()).is_dir()).collect()
}

/// Where the session of this id, of user `owner`, lies.
pub fn path_of(base: &Path, owner: u32, id: &str) -> PathBuf {
    state_dir::session_file(&base.join(USERS).join(owner.to_string()), id)
}

/// A session that lies in a directory of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id: the file's name.
    pub id: String,
    /// Whose directory it lies in.
    pub owner: u32,
    /// Its file.
    pub path: PathBuf,
    /// When the file was last changed, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Space it takes, with what SQLite keeps beside it.
    pub bytes: u64,
}

/// The sessions in the service's directories, by their names alone: none is opened.
///
/// # Errors
/// When the directory of users cannot be listed; that of one user is passed over.
pub fn sessions(base: &Path) -> Result<Vec<Found>, SessionError> {
    let users = base.join(USERS);
    let failed = |source| SessionError::Io {
        attempted: "list service directory",
        path: users.clone(),
        source,
        next: "",
    };
    match users.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => drop(result.map_err(failed)?),
    }
    let mut found = Vec::new();
    for Place { path, owner } in places(base, 0) {
        let entries = path.read_dir().into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| state_dir::is_session(path)) {
            let (Ok(metadata), Some(owner)) = (path.symlink_metadata(), owner) else { continue };
            let Some(id) = path.file_stem().and_then(OsStr::to_str).filter(|_| metadata.is_file()) else {
                continue;
            };
            found.push(Found {
                id: id.to_owned(),
                owner,
                modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
                bytes: metadata.len() + state_dir::bytes_beside(&path),
                path,
            });
        }
    }
    Ok(found)
}

/// Removes a session, and what lies beside it, from the service's directory of user `owner`: by names in that directory alone, whatever its
/// owner made of it meanwhile. What is not there is as good as removed.
///
/// # Errors
/// When the id is none, the directory is none of the service's, or the system refuses.
pub fn remove(base: &Path, owner: u32, id: &str) -> Result<(), SessionError> {
    super::name::check(id)?;
    let path = base.join(USERS).join(owner.to_string());
    let failed = |source| SessionError::Io {
        attempted: "remove a session in service directory",
        path: path.clone(),
        source,
        next: "",
    };
    let base = base.canonicalize().map_err(failed)?;
    let open = || {
        let users = openat(open_dir(&base)?, USERS, DIRECTORY, Mode::empty())?;
        openat(users, owner.to_string().as_str(), DIRECTORY, Mode::empty()).map_err(io::Error::from)
    };
    let directory = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(failed)?,
    };
    for file in state_dir::files_of(Path::new(id)) {
        match unlinkat(&directory, &file, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}
