//! What is asked of a session's file before it is opened, and of SQLite before it reads one: whoever owns a state directory can put
//! anything there. Knows files and SQLite's switches; no events.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig, limits::Limit};

use super::SessionError;

/// No text, blob or row is longer than this: an event carries a mebibyte at the most, a command line and environment some more.
const LONGEST_BYTES: i32 = 64 << 20;

/// What SQLite keeps beside a database.
pub(super) fn beside(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Looks at a session's file, and at what SQLite would open beside it: all must be plain files of one owner, which is `owner` when that is
/// given. Nothing is opened: a FIFO would wait, and closing a descriptor would drop the locks that this process holds on the file.
///
/// # Errors
/// When there is no such file; when one of them is something else, or somebody else's.
pub(super) fn check(path: &Path, owner: Option<u32>) -> Result<(), SessionError> {
    let metadata = look(path)?.ok_or_else(|| SessionError::NoSuchFile { path: path.to_owned() })?;
    let uid = owner.unwrap_or(metadata.uid());
    let strange = |path: &Path, why| Err(SessionError::Strange { path: path.to_owned(), why });
    let judge = |path: &Path, metadata: &std::fs::Metadata| match metadata.file_type() {
        kind if kind.is_symlink() => strange(path, "it is a symbolic link"),
        kind if !kind.is_file() => strange(path, "it is no regular file"),
        _ if metadata.uid() != uid => strange(path, "it belongs to somebody else"),
        _ => Ok(()),
    };
    judge(path, &metadata)?;
    for path in beside(path) {
        if let Some(metadata) = look(&path)? {
            judge(&path, &metadata)?;
        }
    }
    Ok(())
}

/// Looks that there is nothing at a session's path and beside it.
///
/// # Errors
/// When there is.
pub(super) fn check_absent(path: &Path) -> Result<(), SessionError> {
    for path in std::iter::once(path.to_owned()).chain(beside(path)) {
        if look(&path)?.is_some() {
            return Err(SessionError::Strange { path, why: "something is there already" });
        }
    }
    Ok(())
}

fn look(path: &Path) -> Result<Option<std::fs::Metadata>, SessionError> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            let path = path.to_owned();
            Err(SessionError::Io { attempted: "open session", path, source, next: "" })
        }
    }
}

/// Takes from what a file's schema says the power to run anything, and from what its cells say the power to take much memory.
pub(super) fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    for (switch, on) in [
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    ] {
        connection.set_db_config(switch, on)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_BYTES)?;
    connection.pragma_update(None, "cell_size_check", true)
}
