//! A folder of files on this machine that all appear at once. Knows files, folders and their owners, and nothing of what is in them.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, lchown},
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::file::Aside;
use crate::{export::parquet::Folder, session::Invoker};

/// A folder, and the files that are being written into it. Dropped before it is finished, what was added is gone.
#[derive(Debug)]
pub(super) struct Local {
    root: PathBuf,
    invoker: Invoker,
    /// Written, and not yet seen.
    done: Vec<Aside>,
    /// Folders that were not there before, the outer ones first.
    made: Vec<PathBuf>,
}

impl Local {
    /// Opens a folder, or makes it: private to `invoker`.
    pub(super) fn open(root: PathBuf, invoker: Invoker) -> anyhow::Result<Self> {
        if root.metadata().is_ok_and(|there| !there.is_dir()) {
            bail!(
                "cannot write {}: it is a file, and parquet is a folder of files; name another",
                root.display()
            );
        }
        let mut this = Self { root, invoker, done: Vec::new(), made: Vec::new() };
        if !this.root.exists() {
            this.make(this.root.clone())?;
        }
        Ok(this)
    }

    /// All files are whole: each takes its place, in the order they were written.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        for file in self.done.drain(..) {
            file.finish()?;
        }
        Ok(())
    }

    fn make(&mut self, path: PathBuf) -> io::Result<()> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot make folder {}: {error}", path.display()))
        };
        DirBuilder::new().mode(0o700).create(&path).map_err(named)?;
        self.made.push(path.clone());
        if nix::unistd::geteuid().is_root() {
            lchown(&path, Some(self.invoker.uid), Some(self.invoker.gid)).map_err(named)?;
        }
        Ok(())
    }
}

impl Folder for Local {
    type File = Aside;

    fn create(&mut self, path: &str) -> io::Result<Aside> {
        let (path, mut folder) = (Path::new(path), self.root.clone());
        for part in path.parent().into_iter().flat_map(Path::iter) {
            folder.push(part);
            // We may be root in a folder that somebody else can write: below it, links are not followed.
            match folder.symlink_metadata() {
                Ok(there) if there.is_dir() => {}
                Ok(_) => {
                    return Err(io::Error::other(format!(
                        "{} is no folder: move it out of the way, or export into another folder",
                        folder.display()
                    )));
                }
                Err(_) => self.make(folder.clone())?,
            }
        }
        Aside::create(&self.root.join(path), &self.invoker).map_err(io::Error::other)
    }

    fn close(&mut self, file: Aside) -> io::Result<()> {
        self.done.push(file);
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.done.clear();
        for folder in self.made.iter().rev() {
            // What is in it keeps it.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn written(root: &Path) -> Local {
        let mut folder = Local::open(root.to_owned(), Invoker::current()).unwrap();
        for table in ["events", "sessions"] {
            let mut file = folder.create(&format!("{table}/host=h/part-0.parquet")).unwrap();
            file.write_all(b"all").unwrap();
            folder.close(file).unwrap();
        }
        folder
    }

    #[test]
    fn all_files_are_there_at_once_and_private() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("fleet");
        let file = root.join("events/host=h/part-0.parquet");
        drop(written(&root));
        assert!(!root.exists(), "what was given up leaves nothing");
        let folder = written(&root);
        assert!(root.join("sessions/host=h").is_dir() && !file.exists());
        folder.finish().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"all");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&root), mode(file.parent().unwrap()), mode(&file)), (0o700, 0o700, 0o600));
        drop(written(&root));
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "and what was there stays");
    }

    #[test]
    fn links_within_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", scratch.path().join("events")).unwrap();
        let mut folder = Local::open(scratch.path().to_owned(), Invoker::current()).unwrap();
        let error = folder.create("events/host=h/part-0.parquet").unwrap_err().to_string();
        assert!(error.contains("is no folder"), "{error}");
        assert!(Local::open("/dev/null".into(), Invoker::current()).is_err());
    }
}
