//! Differences that can be toggled, and what a run is started with when some are. Knows what a program was started with; starts nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Comparison, Kind, bisect::Base, run::Run};
use crate::event::{Exec, Limit};

/// A difference that can be toggled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toggle {
    /// What kind of thing.
    pub kind: Kind,
    /// Which.
    pub key: String,
    /// How it was in the run that works; `None`: not there.
    pub working: Option<String>,
    /// How it was in the run that fails.
    pub failing: Option<String>,
}

/// A difference that cannot be toggled, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its kind and name.
    pub what: String,
    /// Why.
    pub why: &'static str,
}

/// What a run is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The program's file, and its arguments without the first.
    pub program: String,
    /// The arguments after the first.
    pub arguments: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Resource limits.
    pub limits: Vec<Limit>,
}

impl Start {
    /// What a recorded program was started with; `None` when that is not known whole.
    pub fn of(run: &Run) -> Option<Self> {
        let exec: &Exec = run.program.as_ref()?;
        let argv = exec.argv.get()?;
        let pairs = exec.env.get()?.iter().filter_map(|pair| pair.split_once('='));
        Some(Self {
            program: exec.path.get()?.clone(),
            arguments: argv.get(1..)?.to_vec(),
            environment: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: exec.cwd.get()?.clone(),
            uid: exec.user.get()?.euid,
            umask: exec.umask.get().copied(),
            limits: exec.limits.get().cloned().unwrap_or_default(),
        })
    }
}

/// Sorts the differences into those that can be toggled and those that cannot, the likeliest first. Terminals' and shells' own variables
/// are left out without a word.
pub fn toggles(comparison: &Comparison) -> (Vec<Toggle>, Vec<LeftOut>) {
    let (mut toggles, mut left_out) = (Vec::new(), Vec::new());
    let of_interpreter =
        |key: &str| comparison.differences.iter().any(|one| one.kind == Kind::Interpreter && one.key == key);
    for one in &comparison.differences {
        let why = match one.kind {
            Kind::Env if one.weight < NOISE => continue,
            // What was loaded in one run only follows from something else.
            Kind::Module if one.working.is_none() || one.failing.is_none() => continue,
            Kind::Env | Kind::Argv | Kind::Cwd | Kind::Limit | Kind::Umask => None,
            Kind::User if one.key == "user" => None,
            // Another environment of the same interpreter is started by another path.
            Kind::Interpreter if one.key == "executable" || !of_interpreter("executable") => None,
            Kind::User => Some("groups follow from the user"),
            Kind::Interpreter => Some("follows from the interpreter"),
            Kind::SysPath => Some("follows from PYTHONPATH, the directory and the interpreter"),
            Kind::File => Some("a file's content or standing is not changed by observer"),
            Kind::PackageVersion if of_interpreter("prefix") => {
                Some("comes with the environment, which is toggled as a whole")
            }
            Kind::Module | Kind::PackageVersion => Some("observer installs and removes nothing"),
            Kind::Broker | Kind::Exit => continue,
        };
        match why {
            None => toggles.push(Toggle {
                kind: one.kind,
                key: one.key.clone(),
                working: one.working.clone(),
                failing: one.failing.clone(),
            }),
            Some(why) => left_out.push(LeftOut { what: format!("{} {}", one.kind.name(), one.key), why }),
        }
    }
    (toggles, left_out)
}

/// Differences that weigh less are never toggled.
const NOISE: u32 = 10;

/// What a run starts with: as in the base, but what is toggled as in the other.
pub fn start(
    working: &Start,
    failing: &Start,
    toggles: &[Toggle],
    base: Base,
    toggled: &BTreeSet<usize>,
) -> Start {
    let (mut start, other) = match base {
        Base::Failing => (failing.clone(), working),
        Base::Working => (working.clone(), failing),
    };
    for toggle in toggled.iter().filter_map(|index| toggles.get(*index)) {
        match toggle.kind {
            Kind::Env => {
                match other.environment.get(&toggle.key) {
                    Some(value) => start.environment.insert(toggle.key.clone(), value.clone()),
                    None => start.environment.remove(&toggle.key),
                };
            }
            Kind::Argv => start.arguments.clone_from(&other.arguments),
            Kind::Cwd => start.cwd.clone_from(&other.cwd),
            Kind::User => start.uid = other.uid,
            Kind::Umask => start.umask = other.umask,
            Kind::Interpreter => start.program.clone_from(&other.program),
            Kind::Limit => {
                start.limits.retain(|limit| limit.name != toggle.key);
                start.limits.extend(other.limits.iter().find(|limit| limit.name == toggle.key).cloned());
            }
            _ => {}
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(value: &str, extra: Option<(&str, &str)>) -> Start {
        let mut environment = BTreeMap::from([("MODE".to_owned(), value.to_owned())]);
        environment.extend(extra.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Start {
            program: "/usr/bin/python3".to_owned(),
            arguments: vec![value.to_owned()],
            environment,
            cwd: format!("/{value}"),
            uid: 0,
            umask: Some(0o22),
            limits: vec![Limit { name: "NOFILE".to_owned(), soft: Some(value.len() as u64), hard: None }],
        }
    }

    #[test]
    fn what_is_toggled_is_as_in_the_other_run_and_nothing_else() {
        let (working, failing) = (some("live", Some(("EXTRA", "1"))), some("testing", None));
        let toggle = |kind, key: &str| Toggle { kind, key: key.to_owned(), working: None, failing: None };
        let toggles = [
            toggle(Kind::Env, "MODE"),
            toggle(Kind::Env, "EXTRA"),
            toggle(Kind::Cwd, "cwd"),
            toggle(Kind::Argv, "arguments"),
            toggle(Kind::Limit, "NOFILE"),
        ];
        let with =
            |base, set: &[usize]| start(&working, &failing, &toggles, base, &set.iter().copied().collect());
        assert_eq!(with(Base::Failing, &[]), failing);
        assert_eq!(with(Base::Failing, &[0, 1, 2, 3, 4]), working);
        assert_eq!(with(Base::Working, &[0, 1, 2, 3, 4]), failing);
        let one = with(Base::Failing, &[1]);
        assert_eq!(one.environment.get("EXTRA").map(String::as_str), Some("1"));
        assert_eq!(one.environment.get("MODE").map(String::as_str), Some("testing"));
        assert_eq!(with(Base::Working, &[1]).environment.get("EXTRA"), None);
    }
}
