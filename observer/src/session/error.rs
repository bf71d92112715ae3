//! What can go wrong with sessions on disk, in words that say what to do next. Knows no terminal.

use std::path::PathBuf;

/// Why a session or the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such file.
    #[error("cannot open session {}: no such file; `observer ls` shows the sessions there are", .path.display())]
    NoSuchFile {
        /// The file asked for.
        path: PathBuf,
    },
    /// The file is cut off, or not SQLite, or its pages contradict each other.
    #[error("cannot read session {}: {answer}; it was damaged or copied while it was being recorded (a session being recorded has a -wal file beside it that belongs to it)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite answered.
        answer: String,
    },
    /// What lies in a session's place is no file of its owner's.
    #[error("will not open {} as a session: {why}; remove it if nobody needs it", .path.display())]
    Strange {
        /// What lies there.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The session is over: nothing can be added to it.
    #[error("cannot go on with session {}: it was ended; record another one", .path.display())]
    Ended {
        /// The file.
        path: PathBuf,
    },
    /// It is a SQLite database that some other program made.
    #[error("cannot read {} as a session: it is a SQLite database, but observer did not record it", .path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// It was recorded by a newer observer.
    #[error("cannot read session {}: recorded by a newer observer (schema {found}, this one reads up to {supported}): upgrade", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The highest this program reads.
        supported: i64,
    },
    /// No session has this name or id.
    #[error("no session `{wanted}` in {}{}", .state_dir.display(), did_you_mean(.near))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        state_dir: PathBuf,
        /// Names that look like it, the nearest first.
        near: Vec<String>,
    },
    /// The beginning of an id fits several sessions.
    #[error("`{wanted}` is the beginning of {} session ids ({}); give more of it", .ids.len(), .ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The ids it fits.
        ids: Vec<String>,
    },
    /// The newest session was asked for and there is none.
    #[error("there are no sessions in {} yet; record one: observer attach -- python -m dramatiq MODULE", .state_dir.display())]
    NoSessions {
        /// Where they were looked for.
        state_dir: PathBuf,
    },
    /// A name that was asked for is in use.
    #[error(
        "there is a session named `{name}` already ({id}); choose another name, or remove it: observer rm {name}"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The session that has it.
        id: String,
    },
    /// A name that cannot be a session's.
    #[error(
        "`{name}` cannot name a session: {why}; use letters, digits, `.`, `_` and `-`, and begin with a letter, a digit or `_`"
    )]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The session is being recorded at this moment.
    #[error("session `{name}` is being recorded now; end its `observer attach` first, or use --force")]
    Recording {
        /// Its name, or its id when the name cannot be read.
        name: String,
    },
    /// The system refused something.
    #[error("cannot {attempted} {}: {source}{}{next}", .path.display(), if .next.is_empty() { "" } else { "; " })]
    Io {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
        /// What to do next; may be empty.
        next: &'static str,
    },
    /// SQLite refused something.
    #[error("cannot {attempted} {}: {source}", .path.display())]
    Sqlite {
        /// What was attempted, as a verb.
        attempted: &'static str,
        /// On which session.
        path: PathBuf,
        /// What SQLite answered.
        source: rusqlite::Error,
    },
    /// The session's header or ending is not what this program writes.
    #[error("cannot read the {part} of session {}: {source}", .path.display())]
    Header {
        /// `header` or `ending`.
        part: &'static str,
        /// The session.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

fn did_you_mean(names: &[String]) -> String {
    match names {
        [] => "; `observer ls` shows the sessions there are".to_owned(),
        names => format!("; did you mean `{}`?", names.join("`, `")),
    }
}

impl SessionError {
    /// Whether somebody else has the session for a moment: it can be read when tried again.
    pub fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let Self::Sqlite { source, .. } = self else { return false };
        matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
    }

    /// Names a SQLite failure: damage is told from everything else, because the next step differs.
    pub(crate) fn sqlite(attempted: &'static str, path: &std::path::Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Damaged { path: path.to_owned(), answer: source.to_string() }
            }
            _ => Self::Sqlite { attempted, path: path.to_owned(), source },
        }
    }
}
