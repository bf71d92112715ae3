//! Opens a file that somebody else named, and may have put anything in the place of: a FIFO would wait for good, a device would not end.
//! Knows files; nothing of what is in them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Opens a regular file of at most `most_bytes`, and waits for nobody.
///
/// # Errors
/// When it is something else or larger, or the system refuses.
pub(super) fn open(path: &Path, most_bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() <= most_bytes {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file of a size that is looked at"))
}

/// The text of such a file.
///
/// # Errors
/// As [`open`], and when it is no UTF-8.
pub(super) fn text(path: &Path, most_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, most_bytes)?.take(most_bytes).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_an_end_is_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let (fifo, file) = (scratch.path().join("fifo"), scratch.path().join("file"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&file, "home = /usr/bin\n").unwrap();
        assert!(open(&fifo, 100).is_err(), "nobody writes to it, and nobody is waited for");
        assert!(open(Path::new("/dev/zero"), 100).is_err());
        assert!(open(&file, 5).is_err(), "too large");
        assert_eq!(text(&file, 100).unwrap(), "home = /usr/bin\n");
    }
}
