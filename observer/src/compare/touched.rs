//! Which files and programs a run found, and which it looked for in vain; what was told of texts and installed distributions. Knows
//! events; compares nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    event::{Body, Event, FileLook},
    model::files,
    python,
};

const O_ACCMODE: u64 = 3;
/// Paths kept of each sort.
const MAX_PATHS: usize = 100_000;

/// Of one run.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// What was opened for reading or executed, and when first. For a cached module its source.
    pub(super) got: BTreeMap<String, u64>,
    /// What is not there.
    pub(super) missing: HashSet<String>,
    /// What may not be opened.
    pub(super) refused: HashSet<String>,
    /// What the run wrote itself.
    pub(super) written: HashSet<String>,
    /// What was told of texts.
    pub(super) looks: HashMap<String, FileLook>,
    /// Distributions whose modules were loaded: name and version.
    pub(super) installed: BTreeMap<String, String>,
}

impl Touched {
    pub(super) fn add(&mut self, event: &Event) {
        match &event.body {
            Body::Open(call) if call.errno == 0 && call.flags & O_ACCMODE == 0 => {
                if let Some(path) = files::path_of(call) {
                    let path =
                        python::module_file(path).map_or_else(|| path.to_owned(), |module| module.path);
                    self.get(path, event.at_ns);
                }
            }
            Body::Open(call) | Body::Stat(call) | Body::Access(call) => {
                let into = match call.errno {
                    0 if matches!(event.body, Body::Open(_)) => &mut self.written,
                    0 => return,
                    errno if files::is_missing(errno) => &mut self.missing,
                    _ => &mut self.refused,
                };
                if let Some(path) = files::path_of(call)
                    && into.len() < MAX_PATHS
                    && !into.contains(path)
                {
                    into.insert(path.to_owned());
                }
            }
            Body::Exec(exec) => {
                if let Some(path) = exec.path.get() {
                    self.get(path.clone(), event.at_ns);
                }
            }
            Body::ExecFailed { path, errno } if files::is_missing(*errno) => {
                if let Some(path) = path.get()
                    && self.missing.len() < MAX_PATHS
                {
                    self.missing.insert(path.clone());
                }
            }
            Body::FileLook(look) if self.looks.len() < MAX_PATHS => {
                self.looks.entry(look.path.clone()).or_insert_with(|| look.clone());
            }
            Body::Distributions(distributions) => {
                for one in &distributions.found {
                    let name = one.name.to_ascii_lowercase();
                    self.installed.entry(name).or_insert_with(|| one.version.clone());
                }
            }
            _ => {}
        }
    }

    fn get(&mut self, path: String, at_ns: u64) {
        let system = ["/proc/", "/sys/", "/dev/"].iter().any(|folder| path.starts_with(folder));
        if !system && self.got.len() < MAX_PATHS {
            self.got.entry(path).or_insert(at_ns);
        }
    }

    /// Whether it was wanted and not to be had.
    pub(super) fn lacks(&self, path: &str) -> bool {
        self.missing.contains(path) || self.refused.contains(path)
    }

    /// What was got below a folder, by the rest of its path.
    pub(super) fn below<'a, 'f>(&'a self, folder: &'f str) -> impl Iterator<Item = &'a str> + use<'a, 'f> {
        let folder = folder.trim_end_matches('/');
        let from = format!("{folder}/");
        let paths = self.got.range(from..).map(|(path, _)| path.as_str());
        paths.map_while(move |path| path.strip_prefix(folder).filter(|rest| rest.starts_with('/')))
    }
}

/// Whether two texts are known to differ.
pub(super) fn differ(one: Option<&FileLook>, other: Option<&FileLook>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    // Of an installed module there is no digest.
    one.len_bytes != other.len_bytes
        || (one.digest.is_some() && other.digest.is_some() && one.digest != other.digest)
}
