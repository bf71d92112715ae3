//! A folder that becomes a package: files put at their places, with their modes. It knows no package's format.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{root, run};

pub(super) struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// One that is empty, and need not exist.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, for everybody to read.
    pub(super) fn write(&self, place: &str, text: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(place);
        let above = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }

    pub(super) fn file(&self, from: &Path, place: &str) -> Result<PathBuf> {
        let text = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(place, &text)
    }

    /// A script or program, for everybody to run.
    pub(super) fn script(&self, from: &Path, place: &str) -> Result<PathBuf> {
        let path = self.file(from, place)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The program, without what only a debugger reads.
    pub(super) fn program(&self, observer: &Path, place: &str) -> Result<PathBuf> {
        let path = self.script(observer, place)?;
        run(Command::new("strip").args(["--remove-section=.comment", "--remove-section=.note"]).arg(&path))?;
        Ok(path)
    }

    /// The unit and what belongs to it, and the configuration.
    pub(super) fn service(&self, lib: &str, etc: &str) -> Result<()> {
        let dist = root().join("observer/dist");
        self.file(&dist.join("observer.service"), &format!("{lib}/systemd/system/observer.service"))?;
        self.file(&dist.join("observer.sysusers"), &format!("{lib}/sysusers.d/observer.conf"))?;
        self.file(&dist.join("observer.tmpfiles"), &format!("{lib}/tmpfiles.d/observer.conf"))?;
        self.file(&dist.join("config.toml"), &format!("{etc}/config.toml"))?;
        Ok(())
    }

    /// Manual pages and completions, which the program writes itself.
    pub(super) fn documents(&self, observer: &Path, share: &str) -> Result<()> {
        let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
        run(Command::new(observer).arg("manual").arg(scratch.path()))?;
        let man = scratch.path().join("man");
        for page in man.read_dir().with_context(|| format!("cannot read {}", man.display()))? {
            let page = page?;
            let place = format!("{share}/man/man1/{}", page.file_name().to_string_lossy());
            self.compress(&self.file(&page.path(), &place)?)?;
        }
        let places = [
            ("observer.bash", "bash-completion/completions/observer"),
            ("_observer", "zsh/vendor-completions/_observer"),
            ("observer.fish", "fish/vendor_completions.d/observer.fish"),
        ];
        for (name, place) in places {
            self.file(&scratch.path().join("completions").join(name), &format!("{share}/{place}"))?;
        }
        Ok(())
    }

    /// Makes `FILE.gz` of a file, as Debian's policy asks for documents.
    pub(super) fn compress(&self, path: &Path) -> Result<()> {
        run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(path))
    }
}
