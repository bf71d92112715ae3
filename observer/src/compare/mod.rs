//! Two sessions → what differs between them, ranked by how likely it is to explain why one works and the other does not. A pure function
//! of both. Knows the model; nothing of where events come from, or of how an answer is shown.
//!
//! What a run *was given* (environment, arguments, directory, user, limits, files) comes before what it then *did* (modules, broker,
//! exit): the second follows from the first.

pub mod bisect;
mod divergence;
mod effects;
mod environment;
mod evidence;
mod files;
mod given;
mod normal;
pub mod run;
pub mod toggle;
mod touched;

use serde::Serialize;

use evidence::Evidence;
use run::Run;

/// What kind of thing differs. The names are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An environment variable.
    Env,
    /// The arguments.
    Argv,
    /// The working directory.
    Cwd,
    /// The user or a group.
    User,
    /// A resource limit.
    Limit,
    /// The file mode creation mask.
    Umask,
    /// The interpreter, or its prefix.
    Interpreter,
    /// The order of directories that modules are looked for in.
    SysPath,
    /// A module: there or not, or from another file.
    Module,
    /// A distribution's version.
    PackageVersion,
    /// A file's content, or whether it could be opened.
    File,
    /// Whom it talked to, and what was agreed.
    Broker,
    /// How it ended.
    Exit,
}

impl Kind {
    /// The public name, as in JSON.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// From 1, the likeliest first.
    pub rank: usize,
    /// What kind of thing.
    pub kind: Kind,
    /// Which: a variable's name, a module's, a limit's.
    pub key: String,
    /// How it was in the run that works; `None`: it was not there.
    pub working: Option<String>,
    /// How it was in the run that fails.
    pub failing: Option<String>,
    /// Why it stands where it stands.
    pub why: String,
    #[serde(skip)]
    weight: u32,
}

/// Where the two runs first did different things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Divergence {
    /// The event of the run that works; `None`: it did nothing more.
    pub working: Option<u64>,
    /// The event of the run that fails.
    pub failing: Option<u64>,
    /// What each did there.
    pub text: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Where they parted.
    pub first_divergence: Option<Divergence>,
    /// What differs, the likeliest first.
    pub differences: Vec<Difference>,
}

/// Compares the run that works with the one that fails.
pub fn compare(working: &Run, failing: &Run) -> Comparison {
    let diverged = divergence::first(working, failing);
    let mut differences = Vec::new();
    let evidence = Evidence::new(working, failing);
    given::differences(working, failing, &evidence, &mut differences);
    environment::differences(working, failing, diverged.as_ref(), &evidence, &mut differences);
    files::differences(working, failing, diverged.as_ref(), &evidence, &mut differences);
    effects::differences(working, failing, &mut differences);
    differences.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| (a.kind, &a.key).cmp(&(b.kind, &b.key))));
    for (rank, difference) in (1..).zip(&mut differences) {
        difference.rank = rank;
    }
    Comparison { first_divergence: diverged.map(|diverged| diverged.found), differences }
}

/// A difference with a weight: 100 and more for what probably explains the rest, below 10 for noise.
fn difference(
    kind: Kind,
    key: impl Into<String>,
    (working, failing): (Option<String>, Option<String>),
    weight: u32,
    why: impl Into<String>,
) -> Difference {
    Difference { rank: 0, kind, key: key.into(), working, failing, why: why.into(), weight }
}

#[cfg(test)]
mod tests;
