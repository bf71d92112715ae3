//! A finished copy of a session that goes on. Knows the schema and files.

use std::{
    fs::File,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    Ending, Header, Recorder, SessionError,
    mark::create_new,
    name, trust,
    write::{INDEXES, to_sql_error},
};

impl Recorder {
    /// Makes a finished session of what is recorded so far, in a file of its own at `to`, while this one goes on. It is there when it is
    /// whole, with mode and owner of this one. `header` is its own, with another id and name; its command is taken from this session, where
    /// it is redacted. Takes about as long as writing so many bytes does, in which the recorder takes no events. What was lost because the
    /// disk was full is in it as far as it is in this one.
    ///
    /// # Errors
    /// When there is something at `to` already, or it cannot be written; nothing is left then, and this session is as it was.
    pub fn snapshot(&mut self, to: &Path, header: &Header, ending: &Ending) -> Result<(), SessionError> {
        name::check(&header.id)?;
        name::check(&header.name)?;
        self.commit();
        let io = |source| SessionError::Io {
            attempted: "write a copy of a session to",
            path: to.to_owned(),
            source,
            next: "make room, or remove what is there",
        };
        // Not among the sessions while it is not whole.
        let aside = to.with_extension("part");
        let header = Header { command: self.header.command.clone(), ..header.clone() };
        let written = self
            .copy(&aside, &header, ending)
            // Unlike a rename, a link does not replace what is there.
            .and_then(|()| std::fs::hard_link(&aside, to).map_err(io));
        if !matches!(&written, Err(SessionError::Io { source, path, .. }) if source.kind() == io::ErrorKind::AlreadyExists && *path == aside)
        {
            // What was left is useless; the error that counts is that of the writing.
            drop(std::fs::remove_file(&aside));
        }
        written
    }

    fn copy(&self, aside: &Path, header: &Header, ending: &Ending) -> Result<(), SessionError> {
        let io = |source| SessionError::Io {
            attempted: "write a copy of a session to",
            path: aside.to_owned(),
            source,
            next: "make room, or remove what is there",
        };
        let own = self.path.symlink_metadata().map_err(io)?;
        let mode = own.permissions().mode() & 0o777;
        // SQLite writes into a file that is empty; and follows no link, as this session was opened so.
        drop(create_new(aside, (own.uid(), own.gid()), mode).map_err(io)?);
        let sqlite = |source| SessionError::sqlite("write a copy of a session to", aside, source);
        let path = aside.to_str().ok_or_else(|| io(io::ErrorKind::InvalidFilename.into()))?;
        self.connection.execute("VACUUM main INTO ?1", [path]).map_err(sqlite)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let copy = Connection::open_with_flags(aside, flags).map_err(sqlite)?;
        trust::distrust(&copy).map_err(sqlite)?;
        let write = || {
            // Nobody reads it before it is done, and what fails is thrown away.
            copy.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; BEGIN;")?;
            let put = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
            copy.execute(put, ["header", &serde_json::to_string(header).map_err(to_sql_error)?])?;
            copy.execute(put, ["ending", &serde_json::to_string(ending).map_err(to_sql_error)?])?;
            copy.execute_batch(INDEXES)?;
            copy.execute_batch("COMMIT")
        };
        write().map_err(sqlite)?;
        copy.close().map_err(|(_, source)| sqlite(source))?;
        File::open(aside).and_then(|file| file.sync_all()).map_err(io)
    }
}
