//! The directory where one user's sessions lie: finds, lists, names and removes them. Knows files and headers, and no events.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::libc::{O_DIRECTORY, O_NOFOLLOW};

use super::{Ending, Header, Invoker, Session, SessionError, State, mark, name, service};

/// How the names of session files end.
pub(super) const EXTENSION: &str = "sqlite";

/// Where one user's sessions are kept.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    owner: (u32, u32),
    file_mode: u32,
    places: Vec<Place>,
}

/// A directory in which sessions are looked for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Whose files must be there; `None`: this is our own directory.
    pub(super) owner: Option<u32>,
}

/// One session in the directory.
#[derive(Debug)]
pub struct Listed {
    /// Its file.
    pub path: PathBuf,
    /// Its id: the file's name.
    pub id: String,
    /// Whose file it is.
    pub owner: u32,
    /// Space it takes, with what SQLite keeps beside it.
    pub size_bytes: u64,
    /// What it says of itself, or why that cannot be read.
    pub summary: Result<Summary, SessionError>,
    newest: (i128, u64, i128),
}

/// What a session says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What was known when it began.
    pub header: Header,
    /// How it ended, if it did.
    pub ending: Option<Ending>,
    /// How far it has come.
    pub state: State,
}

impl Listed {
    /// The name people use; the id when the session cannot be read.
    pub fn name(&self) -> &str {
        self.summary.as_ref().map_or(&self.id, |summary| &summary.header.name)
    }

    fn read(path: PathBuf, owner: Option<u32>) -> Option<Self> {
        let id = path.file_stem()?.to_str()?.to_owned();
        let metadata = path.symlink_metadata().ok().filter(|metadata| metadata.is_file())?;
        let size_bytes = metadata.len() + bytes_beside(&path);
        let summary = Session::open_of(&path, owner).map(|session| Summary {
            state: session.state(),
            ending: session.ending(),
            header: session.header().clone(),
        });
        let readable = summary.as_ref().ok().map(|summary| &summary.header);
        let began = readable
            .and_then(|header| header.started_at.parse::<jiff::Timestamp>().ok())
            .map(jiff::Timestamp::as_nanosecond);
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        // Copies of one that went on began when it did.
        let newest = (began.unwrap_or(modified), readable.map_or(0, |header| header.started_ns), modified);
        Some(Self { path, id, owner: metadata.uid(), size_bytes, summary, newest })
    }
}

impl StateDir {
    /// Opens the directory, and creates it when it is not there: `explicit`, else `$XDG_STATE_HOME/observer`, else
    /// `~/.local/state/observer` of the invoker.
    ///
    /// # Errors
    /// When it cannot be created or is not a directory.
    pub fn open(explicit: Option<&Path>, invoker: &Invoker) -> Result<Self, SessionError> {
        let xdg = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let wanted = explicit.map_or_else(|| default_path(invoker, xdg.as_deref()), Path::to_owned);
        let owner = (invoker.uid, invoker.gid);
        let failed = |attempted| {
            let path = wanted.clone();
            let next = "choose another directory with --state-dir";
            move |source| SessionError::Io { attempted, path, source, next }
        };
        create_dirs(&wanted, owner).map_err(failed("create state directory"))?;
        // Links in the way here are the user's own; from now on, files are opened without following any.
        let path = wanted.canonicalize().map_err(failed("open state directory"))?;
        Ok(Self::at(path, owner, 0o600))
    }

    /// A directory that is there.
    pub(super) fn at(path: PathBuf, owner: (u32, u32), file_mode: u32) -> Self {
        let places = vec![Place { path: path.clone(), owner: None }];
        Self { path, owner, file_mode, places }
    }

    /// The same as [`StateDir::open`], to read from: without an `explicit` one, the sessions that the service keeps at `base` for this user
    /// are found too; for whoever may read them, those of all users. An `explicit` one that is a service's own holds just these.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn open_to_read(
        explicit: Option<&Path>,
        invoker: &Invoker,
        base: &Path,
    ) -> Result<Self, SessionError> {
        if let Some(explicit) = explicit.filter(|path| service::is_base(path)) {
            let path = explicit.canonicalize().map_err(|source| SessionError::Io {
                attempted: "open state directory",
                path: explicit.to_owned(),
                source,
                next: "choose another directory with --state-dir",
            })?;
            let places = service::places(&path, invoker.uid);
            return Ok(Self { places, ..Self::at(path, (invoker.uid, invoker.gid), 0o600) });
        }
        let mut dir = Self::open(explicit, invoker)?;
        if explicit.is_none() {
            dir.also(base, invoker.uid);
        }
        Ok(dir)
    }

    /// Finds here too what the service keeps at `base` for this user, and whatever else can be read there.
    pub(super) fn also(&mut self, base: &Path, uid: u32) {
        self.places.extend(service::places(base, uid));
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// User and group that own what is created here.
    pub(super) const fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// Permissions of the files that are created here.
    pub(super) const fn file_mode(&self) -> u32 {
        self.file_mode
    }

    /// The file of the session with this id, whether there is one or not.
    pub fn path_of(&self, id: &str) -> PathBuf {
        session_file(&self.path, id)
    }

    /// All sessions, the newest first. One that cannot be read is among them, with the reason.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, SessionError> {
        let mut found = Vec::new();
        for Place { path, owner } in &self.places {
            let failed = |source| SessionError::Io {
                attempted: "list state directory",
                path: path.clone(),
                source,
                next: "",
            };
            let entries = match path.read_dir().map_err(failed) {
                Ok(entries) => entries,
                // Not for us to read, or nothing was ever kept there.
                Err(_) if owner.is_some() => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if is_session(&path) {
                    found.push((path, *owner));
                }
            }
        }
        let mut sessions = read_all(&found);
        sessions.sort_by(|a, b| b.newest.cmp(&a.newest).then_with(|| b.id.cmp(&a.id)));
        Ok(sessions)
    }

    /// The file of the session that `wanted` means: `@` for the newest, a name, an id or the beginning of one, or a path (with a
    /// `/` in it). When a name was used more than once, the newest has it.
    ///
    /// # Errors
    /// When there is none, with the names that look like it; when the beginning of an id fits several.
    pub fn find(&self, wanted: &str) -> Result<PathBuf, SessionError> {
        if wanted.contains('/') {
            // Links on the way to a file that was named are the caller's own.
            return Ok(Path::new(wanted).canonicalize().unwrap_or_else(|_| PathBuf::from(wanted)));
        }
        self.find_listed(wanted).map(|listed| listed.path)
    }

    /// As [`StateDir::find`], for sessions in this directory only.
    ///
    /// # Errors
    /// As [`StateDir::find`].
    pub fn find_listed(&self, wanted: &str) -> Result<Listed, SessionError> {
        let mut sessions = self.list()?;
        let newest = (wanted == "@").then_some(0).filter(|_| !sessions.is_empty());
        let exact = || sessions.iter().position(|session| session.name() == wanted);
        let by_id = || sessions.iter().position(|session| session.id == wanted);
        if let Some(index) = newest.or_else(exact).or_else(by_id) {
            return Ok(sessions.swap_remove(index));
        }
        let state_dir = self.path.clone();
        if sessions.is_empty() && wanted == "@" {
            return Err(SessionError::NoSessions { state_dir });
        }
        let begins = |session: &Listed| !wanted.is_empty() && session.id.starts_with(wanted);
        let fits: Vec<usize> = (0..sessions.len()).filter(|index| begins(&sessions[*index])).collect();
        match fits[..] {
            [index] => Ok(sessions.swap_remove(index)),
            [] => Err(SessionError::Unknown {
                wanted: wanted.to_owned(),
                state_dir,
                near: near(wanted, &sessions),
            }),
            _ => Err(SessionError::Ambiguous {
                wanted: wanted.to_owned(),
                ids: fits.into_iter().map(|index| sessions[index].id.clone()).collect(),
            }),
        }
    }

    /// A name for a session of this command that no session here has: `minimal_worker`, `minimal_worker-2`, …
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn name_for(&self, command: &[String]) -> Result<String, SessionError> {
        let sessions = self.list()?;
        let free = |name: &String| !sessions.iter().any(|session| session.name() == *name);
        let base = name::suggest(command);
        let counted = (2_u32..).map(|count| format!("{base}-{count}"));
        Ok(std::iter::once(base.clone()).chain(counted).find(free).unwrap_or(base))
    }

    /// Whether a new session may have the name that was asked for.
    ///
    /// # Errors
    /// When it is not allowed, or a session has it already.
    pub fn check_name(&self, wanted: &str) -> Result<(), SessionError> {
        name::check(wanted)?;
        match self.list()?.into_iter().find(|session| session.name() == wanted) {
            Some(taken) => Err(SessionError::NameTaken { name: wanted.to_owned(), id: taken.id }),
            None => Ok(()),
        }
    }

    /// An id for a session that begins now: sorts by time, and two that begin in the same second differ.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_id(&self) -> Result<String, SessionError> {
        id::<2>().map_err(|source| SessionError::Io {
            attempted: "name a new session in",
            path: self.path.clone(),
            source,
            next: "",
        })
    }

    /// Whether nobody records this session now.
    ///
    /// # Errors
    /// When somebody does.
    pub fn check_idle(&self, session: &Listed) -> Result<(), SessionError> {
        match mark::is_held(&session.path) {
            true => Err(SessionError::Recording { name: session.name().to_owned() }),
            false => Ok(()),
        }
    }

    /// Removes a session and what lies beside it. One that is being recorded only with `force`: its recorder goes on writing into
    /// files nobody can open any more.
    ///
    /// # Errors
    /// When it is being recorded, or the system refuses.
    pub fn remove(&self, session: &Listed, force: bool) -> Result<(), SessionError> {
        if !force {
            self.check_idle(session)?;
        }
        // The session itself first: without it, the rest means nothing to anybody.
        for path in files_of(&session.path.with_extension("")) {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SessionError::Io { attempted: "remove", path, source, next: "" });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An id as [`StateDir::new_id`] gives, for many sessions that begin in the same second.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_id() -> io::Result<String> {
    id::<4>()
}

fn id<const RANDOM: usize>() -> io::Result<String> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{random}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")))
}

/// A name with something said after it, not longer than a name may be.
pub fn fitting_name(name: &str, after: &str) -> String {
    name::with_suffix(name, after)
}

/// What a session of this command is called, whether or not another one is.
pub fn name_of(command: &[String]) -> String {
    name::suggest(command)
}

/// Reads what sessions say of themselves. Most of the time goes into what SQLite does at the opening of a file, which each thread does for
/// itself.
fn read_all(found: &[(PathBuf, Option<u32>)]) -> Vec<Listed> {
    /// So many are opened sooner than a thread is started.
    const FEW: usize = 32;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let each = found.len().div_ceil(threads).max(FEW);
    let read = |part: &[(PathBuf, Option<u32>)]| -> Vec<Listed> {
        part.iter().filter_map(|(path, owner)| Listed::read(path.clone(), *owner)).collect()
    };
    std::thread::scope(|scope| {
        let mut parts = found.chunks(each);
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let mut sessions = read(first);
        for other in others {
            sessions.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        sessions
    })
}

/// The file of the session with this id, in a directory.
pub(super) fn session_file(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}.{EXTENSION}"))
}

/// Whether a file is called as sessions are.
pub(super) fn is_session(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// A session's file, then what SQLite and the recorder keep beside it. `stem` is its path without the extension.
pub(super) fn files_of(stem: &Path) -> [PathBuf; 6] {
    let with = |suffix: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal", ".recording", ".part"].map(with)
}

/// What lies beside a session's file, in bytes.
pub(super) fn bytes_beside(path: &Path) -> u64 {
    let files = files_of(&path.with_extension(""));
    let beside = files.iter().skip(1).filter_map(|path| path.symlink_metadata().ok());
    beside.map(|metadata| metadata.len()).sum()
}

fn near(wanted: &str, sessions: &[Listed]) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = sessions
        .iter()
        .map(|session| (strsim::jaro_winkler(wanted, session.name()), session.name()))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

fn default_path(invoker: &Invoker, xdg: Option<&Path>) -> PathBuf {
    // Under sudo the variable may be root's own: then the sessions would end where the person does not look.
    let theirs = |path: &Path| {
        !invoker.through_sudo || path.metadata().is_ok_and(|metadata| metadata.uid() == invoker.uid)
    };
    match xdg.filter(|path| path.is_absolute() && theirs(path)) {
        Some(path) => path.join("observer"),
        None => invoker.home.join(".local/state/observer"),
    }
}

/// Creates the directory and those above it that are missing, each for its owner alone.
fn create_dirs(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dirs(parent, (uid, gid))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster; what they made is checked by whoever uses it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        result => result?,
    }
    // Whatever our caller's umask takes away: its command may want an odd one.
    let only_theirs = Permissions::from_mode(0o700);
    if nix::unistd::geteuid().is_root() {
        // Through a descriptor: the user may have put a link in the place of what we just made.
        let made: File = OpenOptions::new().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(path)?;
        fchown(&made, Some(uid), Some(gid))?;
        return made.set_permissions(only_theirs);
    }
    fs::set_permissions(path, only_theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_lie_where_the_person_looks_for_them() {
        let scratch = tempfile::tempdir().unwrap();
        let own = Invoker::current();
        let invoker =
            |uid, through_sudo| Invoker { uid, through_sudo, home: "/home/me".into(), ..own.clone() };
        let home = Path::new("/home/me/.local/state/observer");
        let xdg = scratch.path();
        assert_eq!(default_path(&invoker(own.uid, false), None), home);
        assert_eq!(default_path(&invoker(own.uid, false), Some(xdg)), xdg.join("observer"));
        assert_eq!(default_path(&invoker(own.uid, false), Some(Path::new("relative"))), home, "the XDG rule");
        assert_eq!(
            default_path(&invoker(own.uid, true), Some(xdg)),
            xdg.join("observer"),
            "sudo -E, their own"
        );
        assert_eq!(default_path(&invoker(own.uid + 1, true), Some(xdg)), home, "root's variable, not theirs");
    }
}
