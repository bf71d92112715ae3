//! A pair as it is written: TOML under `tests/pairs`, one scenario for each side. It runs nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::super::file::{self, Scenario};
use super::noise;

/// Two runs of one worker, and what makes the second fail.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The file's name.
    pub name: String,
    /// What was planted.
    pub about: About,
    /// The run that works.
    pub working: Scenario,
    /// The run that fails.
    pub failing: Scenario,
}

/// What a pair says of itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The planted difference; several where it takes them together.
    pub expect: Vec<Planted>,
    /// What `observer bisect` must come to.
    pub bisect: Bisect,
    /// The set it must prove, where that is not `expect`: another environment's package is toggled with the environment.
    pub proves: Option<Vec<Planted>>,
    /// Further options of `observer bisect`.
    #[serde(default)]
    pub options: String,
}

/// A difference by its public names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// `env`, `file`, …
    pub kind: String,
    /// A variable's name, a path; `{…}` is filled in.
    pub key: String,
}

/// What a bisection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bisect {
    /// It proves the set.
    Proved,
    /// It cannot toggle what was planted: it says that it left it out, and proves nothing.
    LeftOut,
    /// It proves nothing, and blames nothing: the outcome is not always the same.
    Unproved,
}

/// The folder of the pairs.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pairs")
}

/// The pairs that are meant by one of these patterns, in the order of their names; all when there is no pattern.
pub fn chosen(patterns: &[String]) -> Result<Vec<Pair>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()).with_context(|| format!("cannot read {}", folder().display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let meant = patterns.is_empty() || patterns.iter().any(|pattern| file::matches(pattern, &name));
        if meant && path.extension().is_some_and(|extension| extension == "toml") {
            let text = fs::read_to_string(&path)?;
            found.push(parse(&name, &text).with_context(|| format!("in {}", path.display()))?);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn parse(name: &str, text: &str) -> Result<Pair> {
    let mut base: Table = text.parse()?;
    let mut about = Table::new();
    for key in ["expect", "bisect", "proves", "options"] {
        about.extend(base.remove_entry(key));
    }
    let mut side = |called: &str| match base.remove(called) {
        Some(Value::Table(side)) => Ok(side),
        _ => bail!("there is no [{called}]"),
    };
    let (mut working, failing) = (side("working")?, side("failing")?);
    if !failing.contains_key("expect") {
        bail!("[failing] does not say what is concluded of it: write expect = {{ code = … }}");
    }
    let idle = Table::from_iter([("code".to_owned(), Value::from("idle"))]);
    working.entry("expect").or_insert_with(|| idle.into());
    let scenario = |called: &str, side: Table| {
        let mut scenario = file::finish(format!("{name}/{called}"), file::overlaid(base.clone(), side))?;
        noise::add(&mut scenario.env, called == "working");
        anyhow::Ok(scenario)
    };
    Ok(Pair {
        name: name.to_owned(),
        about: about.try_into()?,
        working: scenario("working", working)?,
        failing: scenario("failing", failing)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_can_be_read_and_differs_in_dozens_of_innocent_things() {
        let pairs = chosen(&[]).unwrap();
        assert!(pairs.len() >= 15, "{}", pairs.len());
        for pair in pairs {
            let differs = |name: &&String| pair.working.env.get(*name) != pair.failing.env.get(*name);
            let names: std::collections::BTreeSet<_> =
                pair.working.env.keys().chain(pair.failing.env.keys()).filter(differs).collect();
            assert!(names.len() >= 24, "{}: {}", pair.name, names.len());
            assert!(!pair.about.expect.is_empty(), "{}", pair.name);
            assert!(pair.working.what.len() > 20, "{}: says what?", pair.name);
        }
    }
}
