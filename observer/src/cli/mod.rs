//! The verbs, one file each, and what they share. Knows the terminal; decides nothing about what was recorded.

pub mod attach;
pub mod bisect;
mod client;
pub mod config;
pub mod daemon;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod export;
mod live;
pub mod ls;
pub mod manual;
pub mod pin;
mod progress;
pub mod rm;
pub mod send;
mod service;
pub mod show;
pub mod status;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::session::{Invoker, SERVICE_BASE, StateDir};

/// How facts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document with a versioned schema.
    Json,
}

/// What every verb is given.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// `--state-dir`, when it was given.
    pub state_dir: Option<PathBuf>,
    /// How to print facts.
    pub format: Format,
    /// Whether standard output takes colours.
    pub color: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// What was asked of colours, for other streams.
    pub choice: anstream::ColorChoice,
}

impl Context {
    /// Opens the directory where the sessions are; those that the service keeps for this user are found in it too.
    ///
    /// # Errors
    /// When it cannot be opened or created.
    pub fn open_state_dir(&self) -> anyhow::Result<StateDir> {
        let (explicit, base) = (self.state_dir.as_deref(), Path::new(SERVICE_BASE));
        Ok(StateDir::open_to_read(explicit, &Invoker::current(), base)?)
    }
}

/// What to exit with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// The answer is no, or there is none.
    pub const FAILURE: Self = Self(1);
}

impl From<u8> for ExitStatus {
    fn from(status: u8) -> Self {
        Self(status)
    }
}

pub use crate::words::escape::escape as printable;

/// [`printable`] for text of several lines: the ends of lines are ours.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r\n\u{9b}0m\u{202e}x"), "a\\x1b[31mb\\r\\n\\x9b0m\\u{202e}x");
        assert_eq!(printable("a\u{61c}b\u{ad}"), "a\\u{61c}b\\u{ad}");
        assert_eq!(printable("grün «redacted:3f9a»"), "grün «redacted:3f9a»");
    }
}
