//! A scenario as it is written: TOML under `tests/scenarios`, its variants folded in. It runs nothing and knows no broker.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::{Table, Value};

/// One thing to run, and what is to be concluded from it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `family/name`, and `@variant` where it is one. Not in the file: its path says it.
    #[serde(skip)]
    pub name: String,
    /// What is wrong, and how it is produced, in a sentence.
    pub what: String,
    /// The verdict.
    pub expect: Expect,
    /// Codes that must be among the findings too.
    #[serde(default)]
    pub also: Vec<String>,
    /// Texts that the verdict's title, summary, remedy or evidence must contain.
    #[serde(default)]
    pub says: Vec<String>,
    /// Why it is not concluded yet. It is run and shown all the same, and counts as what it is once it is right.
    pub not_yet: Option<String>,
    /// Why this machine cannot produce it.
    pub not_here: Option<String>,
    /// A shell command that succeeds where it can be produced after all: `not_here` counts only when this fails.
    pub needs: Option<String>,
    /// What ptrace cannot see of it: with that backend it is listed with this, and not run. Empty: nothing.
    #[serde(default)]
    pub ptrace: String,
    /// What is observed.
    pub command: String,
    /// Further options of `observer attach`.
    #[serde(default)]
    pub attach: String,
    /// Start the command unobserved, and attach to it when this holds.
    pub running: Option<String>,
    /// End the observation when these hold, one after the other, after all steps.
    #[serde(default)]
    pub until: Words,
    /// How long the command has to end by itself once it was asked to.
    #[serde(default = "grace_s")]
    pub grace_s: u64,
    /// The scenario fails when it takes longer.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// Which account of the broker the observer is given.
    #[serde(default)]
    pub broker: Account,
    /// Which broker.
    #[serde(default)]
    pub node: Node,
    /// Lines of `rabbitmq.conf`, for a node of its own.
    #[serde(default)]
    pub node_config: String,
    /// Python, as `3.12`.
    #[serde(default = "python")]
    pub python: String,
    /// dramatiq's version.
    #[serde(default = "dramatiq")]
    pub dramatiq: String,
    /// What else pip installs beside it.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The command's directory, below the scene.
    #[serde(default)]
    pub cwd: String,
    /// Files of the scene.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Variables of the command.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Limits of the command, by the names `prlimit` has for them.
    #[serde(default)]
    pub limits: BTreeMap<String, Value>,
    /// Who runs the command.
    pub user: Option<String>,
    /// The command's umask, in octal.
    pub umask: Option<String>,
    /// The command's standard input.
    #[serde(default)]
    pub stdin: Input,
    /// Its standard output.
    #[serde(default)]
    pub stdout: Output,
    /// Its standard error.
    #[serde(default)]
    pub stderr: Output,
    /// What happens before it is started.
    #[serde(default)]
    pub before: Vec<Step>,
    /// What happens while it runs.
    #[serde(default)]
    pub during: Vec<Step>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Its code.
    pub code: String,
    /// Its cause; absent means null.
    pub cause: Option<String>,
}

/// A snippet of Python, and when it is its turn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What must hold first, one after the other.
    #[serde(default)]
    pub when: Words,
    /// What is done to a node of the scenario's own, before the snippet.
    pub broker: Option<BrokerStep>,
    /// The snippet.
    #[serde(default)]
    pub run: String,
}

/// What can be done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerStep {
    /// Ends it by SIGKILL.
    Kill,
    /// Starts it again, after asking it to stop when it still runs.
    Restart,
}

/// One text or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Words(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Words {
    fn from(words: OneOrMany) -> Self {
        match words {
            OneOrMany::One(word) => Self(vec![word]),
            OneOrMany::Many(words) => Self(words),
        }
    }
}

/// What of the broker's own account the observer is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Account {
    /// Whether it is given the broker's address.
    Given(bool),
    /// What it is given instead: `worker`, or a URL.
    Other(String),
}

impl Default for Account {
    fn default() -> Self {
        Self::Given(true)
    }
}

/// Which RabbitMQ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// The one of all scenarios: no more than its own virtual host may be broken.
    #[default]
    Shared,
    /// One that this scenario may stop, kill and configure.
    Own,
}

/// Standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that nobody ever writes to.
    Pipe,
    /// Not open.
    Closed,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// A file, which `output:` looks into.
    #[default]
    File,
    /// A pipe whose reader reads, into that same file.
    Pipe,
    /// A pipe that somebody holds and never reads.
    PipeUnread,
    /// A pipe that nobody reads any more.
    PipeClosed,
    /// Not open.
    Closed,
    /// A disk that is full.
    Full,
}

const fn grace_s() -> u64 {
    5
}

const fn timeout_s() -> u64 {
    90
}

fn python() -> String {
    "3.12".into()
}

fn dramatiq() -> String {
    "2.2.1".into()
}

/// The folder of the scenarios.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// All scenarios with all their variants, in the order of their names.
pub fn all() -> Result<Vec<Scenario>> {
    let mut found = Vec::new();
    let families = fs::read_dir(folder()).with_context(|| format!("cannot read {}", folder().display()))?;
    for family in families {
        let family = family?;
        if !family.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(family.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = format!("{}/{stem}", family.file_name().to_string_lossy());
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                found.extend(parse(&name, &text).with_context(|| format!("in {}", path.display()))?);
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Those that are meant by one of these patterns; all when there is no pattern.
pub fn chosen(patterns: &[String]) -> Result<Vec<Scenario>> {
    let mut all = all()?;
    all.retain(|scenario| {
        patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &scenario.name))
    });
    Ok(all)
}

/// A file's scenario and its variants.
pub fn parse(name: &str, text: &str) -> Result<Vec<Scenario>> {
    let mut base: Table = text.parse()?;
    let variants = match base.remove("variant") {
        None => Vec::new(),
        Some(Value::Array(variants)) => variants,
        Some(_) => bail!("`variant` is no array of tables: write [[variant]]"),
    };
    let mut all = vec![finish(name.to_owned(), base.clone())?];
    for variant in variants {
        let Value::Table(mut variant) = variant else { bail!("a variant is no table: write [[variant]]") };
        let Some(Value::String(called)) = variant.remove("name") else { bail!("a variant has no `name`") };
        all.push(finish(format!("{name}@{called}"), overlaid(base.clone(), variant))?);
    }
    Ok(all)
}

/// A variant replaces what it names; of `files`, `env` and `limits` only the entries it names.
pub(super) fn overlaid(mut base: Table, variant: Table) -> Table {
    for (key, value) in variant {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) if key != "expect" => under.extend(over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
    base
}

pub(super) fn finish(name: String, table: Table) -> Result<Scenario> {
    let scenario: Scenario = table.try_into().with_context(|| format!("scenario {name}"))?;
    if scenario.node == Node::Shared && !scenario.node_config.is_empty() {
        bail!("{name}: `node_config` is for a node of its own: write node = \"own\"");
    }
    Ok(Scenario { name, ..scenario })
}

/// Whether a name is meant by a pattern in which `*` stands for any text. A pattern without one is looked for anywhere in the name.
pub fn matches(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = r#"
what = "it is told so"
expect = { code = "module-not-found", cause = "wrong-cwd" }
command = "python -m dramatiq tasks"
[env]
A = "1"
B = "2"
[[variant]]
name = "spawn"
command = "python -m dramatiq --use-spawn tasks"
expect = { code = "idle" }
env = { B = "3" }
"#;

    #[test]
    fn a_variant_replaces_what_it_names_and_its_verdict_whole() {
        let [base, spawn] = parse("import/x", SCENARIO).unwrap().try_into().unwrap();
        assert_eq!((base.name.as_str(), spawn.name.as_str()), ("import/x", "import/x@spawn"));
        assert_eq!(base.expect.cause.as_deref(), Some("wrong-cwd"));
        assert_eq!(spawn.expect, Expect { code: "idle".into(), cause: None });
        assert_eq!((spawn.env["A"].as_str(), spawn.env["B"].as_str()), ("1", "3"));
        assert_eq!(spawn.command, "python -m dramatiq --use-spawn tasks");
    }

    #[test]
    fn a_word_that_is_misspelt_is_an_error() {
        let error = parse("a/b", &format!("comand = \"x\"\n{SCENARIO}")).unwrap_err();
        assert!(format!("{error:#}").contains("comand"), "{error:#}");
    }

    #[test]
    fn every_scenario_can_be_read_and_names_a_code_of_the_catalogue_form() {
        for scenario in all().unwrap() {
            let codes = scenario.also.iter().chain([&scenario.expect.code]);
            for code in codes.chain(&scenario.expect.cause) {
                assert!(
                    code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-')),
                    "{}: {code}",
                    scenario.name
                );
            }
            assert!(scenario.what.len() > 20, "{}: says what?", scenario.name);
        }
    }

    #[test]
    fn patterns() {
        assert!(matches("ends", "ends/healthy"));
        assert!(matches("*healthy*", "ends/healthy@spawn"));
        assert!(matches("ends/*@spawn", "ends/healthy@spawn"));
        assert!(!matches("ends/*@spawn", "ends/healthy"));
        assert!(!matches("healthy*", "ends/healthy"));
        assert!(matches("*", "ends/healthy"));
    }
}
