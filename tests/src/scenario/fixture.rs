//! Sessions kept to be explained again, without root and in no time. The scenario's file stays the one place that says what is expected.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::file::{self, Scenario};

/// As small as it gets: it is written once and kept for long.
const LEVEL: i32 = 19;
const ENDING: &str = ".session.zst";

/// A recorded session, and the scenario it was recorded of.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What is expected of it.
    pub scenario: Scenario,
    /// What stood for `{name}` when it was recorded.
    pub values: BTreeMap<String, String>,
    path: PathBuf,
}

/// The folder of those that are kept with the sources.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Copies a session to `FOLDER/NAME.session.zst`, with what its expectation needs beside it.
pub(super) fn keep(
    folder: &Path,
    name: &str,
    session: &Path,
    values: &BTreeMap<String, String>,
) -> Result<()> {
    let path = folder.join(format!("{name}{ENDING}"));
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))?;
    }
    // Without free pages, and with what is in the journal.
    let whole = tempfile::tempdir()?;
    let copy = whole.path().join("session.sqlite");
    let text = copy.to_string_lossy();
    Connection::open(session)?.execute("VACUUM INTO ?1", [&text]).context("cannot copy the session")?;
    let written = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    zstd::stream::copy_encode(File::open(&copy)?, written, LEVEL)?;
    fs::write(values_of(&path), format!("{:#}\n", serde_json::to_value(values)?))?;
    Ok(())
}

/// All sessions under a folder that were kept of scenarios that are still there, and the names of the others.
pub fn all(folder: &Path) -> Result<(Vec<Fixture>, Vec<String>)> {
    let scenarios = file::all()?;
    let (mut found, mut orphans) = (Vec::new(), Vec::new());
    if !folder.exists() {
        return Ok((found, orphans));
    }
    for family in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let family = family?;
        if !family.file_type()?.is_dir() {
            continue;
        }
        for kept in fs::read_dir(family.path())? {
            let path = kept?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(stem) = file.strip_suffix(ENDING) else { continue };
            let name = format!("{}/{stem}", family.file_name().to_string_lossy());
            match scenarios.iter().find(|scenario| scenario.name == name) {
                None => orphans.push(name),
                Some(scenario) => {
                    let values = fs::read(values_of(&path))
                        .with_context(|| format!("cannot read {}", values_of(&path).display()))?;
                    let values = serde_json::from_slice(&values)?;
                    found.push(Fixture { scenario: scenario.clone(), values, path });
                }
            }
        }
    }
    found.sort_by(|a, b| a.scenario.name.cmp(&b.scenario.name));
    Ok((found, orphans))
}

impl Fixture {
    /// Writes the session as it was recorded.
    pub fn unpack(&self, to: &Path) -> Result<()> {
        let packed =
            File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        let mut session = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
        let unpacked = zstd::stream::copy_decode(io::BufReader::new(packed), &mut session);
        unpacked.with_context(|| format!("cannot decompress {}", self.path.display()))
    }
}

fn values_of(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(format!("{}.values.json", text.strip_suffix(ENDING).unwrap_or(&text)))
}
