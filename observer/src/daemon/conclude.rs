//! What a finished session says: the verdict, in the words of a report. Knows sessions and diagnoses; nothing of who is told.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::plan::Plan;
use super::report::{Occasion, Report};
use crate::{
    diagnose::{self, case::Case},
    fold,
    session::{Filter, Session, SessionError},
};

/// A verdict, and what the session takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conclusion {
    pub(super) occasion: Occasion,
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) code: String,
    pub(super) cause: Option<String>,
    pub(super) severity: String,
    pub(super) title: String,
    pub(super) summary: String,
    pub(super) remedy: Option<String>,
    /// As the session has it: redacted.
    pub(super) command: Vec<String>,
}

/// Folds a session, writes the tables that are derived from it, and explains it.
///
/// # Errors
/// When the session cannot be read.
pub(super) fn conclude(path: &Path, occasion: Occasion) -> Result<Conclusion, SessionError> {
    let model = fold::derive(path, &Filter::default())?;
    let session = Session::open(path)?;
    let ending = session.ending();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    let verdict = diagnose::explain(&case).verdict;
    Ok(Conclusion {
        occasion,
        // Not as the file has it, which its owner can write to: others' sessions are known by theirs.
        id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_owned(),
        bytes: fs::symlink_metadata(path).map_or(0, |file| file.len()),
        code: verdict.code.name().to_owned(),
        cause: verdict.cause.map(str::to_owned),
        severity: verdict.severity.name().to_owned(),
        title: verdict.title.clone(),
        summary: verdict.summary.clone(),
        remedy: Some(verdict.remedy.clone()).filter(|remedy| !remedy.is_empty()),
        command: session.header().command.clone(),
    })
}

impl Conclusion {
    /// Whether something is wrong: what the service keeps a session for.
    pub(super) fn is_trouble(&self) -> bool {
        self.occasion != Occasion::Ended || self.severity != "ok"
    }

    /// What is told of it.
    pub(super) fn report(&self, plan: &Plan) -> Report {
        Report {
            occasion: self.occasion,
            code: self.code.clone(),
            cause: self.cause.clone(),
            severity: self.severity.clone(),
            title: self.title.clone(),
            summary: self.summary.clone(),
            remedy: self.remedy.clone(),
            session: self.id.clone(),
            name: plan.name.clone(),
            path: self.path.to_string_lossy().into_owned(),
            pid: plan.root.0,
            uid: plan.uid,
            unit: plan.unit.clone(),
            rule: plan.rule.clone(),
            command: self.command.clone(),
        }
    }
}
