//! A file that is there whole or not at all. Knows files and their owners, and nothing of what is in them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::libc::O_NOFOLLOW;

use crate::session::Invoker;

/// A file that is written beside the one it is to become, private to its owner. Dropped before it is finished, it is gone.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    /// Where it is being written, and what it is to become; `None`: what is there is no file and is written itself.
    places: Option<(PathBuf, PathBuf)>,
}

impl Aside {
    /// Begins a file that is to become `path` and belong to `invoker`. A device or pipe that is there is written itself.
    pub(super) fn create(path: &Path, invoker: &Invoker) -> anyhow::Result<Self> {
        match path.metadata() {
            Ok(there) if there.is_dir() => bail!("cannot write {}: it is a directory", path.display()),
            Ok(there) if !there.is_file() => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                return Ok(Self { file, places: None });
            }
            _ => {}
        }
        let Some(name) = path.file_name() else { bail!("cannot write {}: it names no file", path.display()) };
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let aside = path.with_file_name(name);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW).open(&aside);
        let file = file.with_context(|| format!("cannot create {}", aside.display()))?;
        // From here on it is removed when anything fails.
        let this = Self { file, places: Some((aside, path.to_owned())) };
        if nix::unistd::geteuid().is_root() {
            fchown(&this.file, Some(invoker.uid), Some(invoker.gid))
                .with_context(|| format!("cannot give {} to {}", path.display(), invoker.name))?;
        }
        Ok(this)
    }

    /// Where to write.
    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It is whole: it takes its place, and that of what was there.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let Some((aside, path)) = self.places.take() else { return Ok(()) };
        let renamed = std::fs::rename(&aside, &path);
        if renamed.is_err() {
            remove(&aside);
        }
        renamed.with_context(|| format!("cannot rename {} to {}", aside.display(), path.display()))
    }
}

impl io::Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some((aside, _)) = &self.places {
            remove(aside);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_is_there_whole_and_private_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before").unwrap();
        let mut given_up = Aside::create(&path, &Invoker::current()).unwrap();
        given_up.file().write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        let mut aside = Aside::create(&path, &Invoker::current()).unwrap();
        aside.file().write_all(b"after").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before", "not before it is whole");
        aside.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_device_stays_one_and_a_directory_is_refused() {
        let aside = Aside::create(Path::new("/dev/null"), &Invoker::current()).unwrap();
        aside.finish().unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        let folder = tempfile::tempdir().unwrap();
        assert!(Aside::create(folder.path(), &Invoker::current()).is_err());
    }
}
