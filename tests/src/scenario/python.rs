//! The interpreter and the packages a scenario asks for. It runs nothing of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::file::Scenario;
use crate::venv::{self, Venv};

/// Where an environment lies that another user may enter: root's home is closed to them.
const OPEN_CACHE: &str = "/var/cache/observer-lab";

/// The interpreter, or why there is none.
pub(super) fn interpreter(scenario: &Scenario) -> Result<PathBuf, String> {
    if scenario.user.is_some() {
        return Ok(venv::DEBIANS.into());
    }
    venv::pyenv(&scenario.python).ok_or_else(|| format!("no Python {} in ~/.pyenv/versions", scenario.python))
}

/// Its virtual environment, made when it is not there yet.
pub(super) fn venv(scenario: &Scenario) -> Result<Venv> {
    let interpreter = interpreter(scenario).map_err(anyhow::Error::msg)?;
    let mut requirements = format!("dramatiq[rabbitmq]=={}\n", scenario.dramatiq);
    if !scenario.packages.iter().any(|package| package.starts_with("pika==")) {
        requirements.push_str("pika==1.4.4\n");
    }
    for package in &scenario.packages {
        requirements.push_str(&format!("{package}\n"));
    }
    if scenario.user.is_some() {
        return Venv::ensure_in(Path::new(OPEN_CACHE), &interpreter, &requirements);
    }
    Venv::ensure_with(&interpreter, &requirements)
}
