//! Where the settings come from: what is built in, files, variables, flags, each over the one before. Knows not what they are for.
//!
//! A scalar of a later layer replaces that of an earlier one. Rules and hooks are lists: those of the main file replace what is built
//! in; every drop-in, variable and flag after it puts its rules *before* those there are (the first that fits counts) and its hooks
//! after them; an empty list (`rules = []`) drops all that came from earlier layers.

mod check;
mod layer;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use figment::Figment;

use super::settings::{Hook, Rule, Settings};

/// Where the main file is when nothing else is said; its drop-ins are `config.d/*.toml` beside it.
pub const FILE: &str = "/etc/observer/config.toml";

/// What a variable's name begins with; `__` stands for the dot of a key: `OBSERVER_DAEMON_FLIGHT__RING=64MiB`.
pub const PREFIX: &str = "OBSERVER_DAEMON_";

/// What is read.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The main file; its drop-ins are in `config.d` beside it.
    pub file: PathBuf,
    /// Whether that file must be there.
    pub required: bool,
    /// Refuse files that others than root can write: for whoever runs as root.
    pub guarded: bool,
    /// Variables and their values; those that do not begin with [`PREFIX`] are passed over.
    pub variables: Vec<(String, String)>,
    /// `KEY=VALUE`, as given with `--set`.
    pub flags: Vec<String>,
}

impl Sources {
    /// Those of this process: `file` as given with `--config`, else [`FILE`] when it is there; its environment.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Self {
            required: file.is_some(),
            file: file.unwrap_or_else(|| FILE.into()),
            guarded: nix::unistd::geteuid().is_root(),
            variables: variables.filter(|(name, _)| name.starts_with(PREFIX)).collect(),
            flags,
        }
    }
}

/// Where a setting was said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: so it is when nobody says anything.
    BuiltIn,
    /// In a file.
    File(PathBuf),
    /// By a variable of this name.
    Variable(String),
    /// With `--set`, for this key.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// What holds, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// All settings.
    pub settings: Settings,
    /// Where each was said: `flight.ring`, `rules[0]`, `hooks[0]`.
    pub origins: BTreeMap<String, Origin>,
}

/// Why there are no settings. Holds no secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("cannot read the configuration {}: {source}; {next}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
        /// What to do.
        next: &'static str,
    },
    /// A file or folder that others could change, and the service obeys as root.
    #[error(
        "will not follow {}: others than root can write it (owner {uid}, mode {mode:03o}); sudo chown root:root {0} && sudo chmod go-w {0}",
        path.display()
    )]
    Unguarded {
        /// Which.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// What is said there is wrong.
    #[error("{place}: {what}; {next}")]
    Wrong {
        /// Where: file and line, variable or flag.
        place: String,
        /// What is wrong.
        what: String,
        /// What to write.
        next: String,
    },
}

/// Reads and checks everything.
///
/// # Errors
/// At the first thing that is wrong. Nothing of it holds then.
pub fn load(sources: &Sources) -> Result<Configured, ConfigError> {
    let layers = layer::all(sources)?;
    let builtin = Settings::default();
    let of_builtin = |rule: &Rule| (rule.clone(), Origin::BuiltIn);
    let mut rules: Vec<(Rule, Origin)> = builtin.rules.iter().map(of_builtin).collect();
    let mut hooks: Vec<(Hook, Origin)> = Vec::new();
    let mut figment = Figment::from(figment::providers::Serialized::defaults(&builtin));
    for (index, layer) in layers.iter().enumerate() {
        let said = layer.settings()?;
        let origin = || layer.origin.clone();
        if layer.says("rules") {
            let replaces = said.rules.is_empty() || layer.origin == Origin::File(sources.file.clone());
            let before = if replaces { Vec::new() } else { std::mem::take(&mut rules) };
            rules = said.rules.into_iter().map(|rule| (rule, origin())).chain(before).collect();
        }
        if layer.says("hooks") {
            if said.hooks.is_empty() {
                hooks.clear();
            }
            hooks.extend(said.hooks.into_iter().map(|hook| (hook, origin())));
        }
        figment = figment.merge(layer.scalars(index));
    }
    check::rules(&rules)?;
    check::hooks(&hooks)?;
    // Each layer has been read for itself already, so this cannot fail for what is said in any of them.
    let mut settings: Settings = figment.extract().map_err(|error| ConfigError::Wrong {
        place: "the configuration".into(),
        what: error.to_string(),
        next: "see observer config --help".into(),
    })?;
    let mut origins = BTreeMap::new();
    for key in keys(&settings) {
        let said = figment.find_metadata(&key).and_then(|found| found.name.parse::<usize>().ok());
        let origin =
            said.and_then(|index| layers.get(index)).map_or(Origin::BuiltIn, |layer| layer.origin.clone());
        origins.insert(key, origin);
    }
    check::scalars(&settings, &|key| origins.get(key).cloned().unwrap_or(Origin::BuiltIn))?;
    let mut list = |name: &str, index: usize, origin| origins.insert(format!("{name}[{index}]"), origin);
    settings.rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, (rule, origin))| {
            list("rules", index, origin);
            rule
        })
        .collect();
    settings.hooks = hooks
        .into_iter()
        .enumerate()
        .map(|(index, (hook, origin))| {
            list("hooks", index, origin);
            hook
        })
        .collect();
    Ok(Configured { settings, origins })
}

/// The keys of all scalars, with dots.
fn keys(settings: &Settings) -> Vec<String> {
    let sections = serde_json::to_value(settings).unwrap_or_default();
    let mut keys = Vec::new();
    for (section, fields) in sections.as_object().into_iter().flatten() {
        let fields = fields.as_object().into_iter().flatten();
        keys.extend(fields.map(|(field, _)| format!("{section}.{field}")));
    }
    keys
}

/// The folder of a main file's drop-ins.
fn drop_ins(file: &Path) -> PathBuf {
    file.with_file_name("config.d")
}
