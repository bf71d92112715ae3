//! What a rule finds, and what is concluded of all findings. Knows the catalogue and events' numbers; how it is shown is others' business.

use serde::Serialize;

use super::catalogue::{Code, Severity};
use crate::{
    event::Pid,
    model::{ladder::Rung, mark::Mark},
};

/// An event that proves something, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The event's number in the session.
    pub event: u64,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// What it says, for a person.
    pub text: String,
}

impl Evidence {
    /// What a marked event says.
    pub fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { event: mark.event, at_ns: mark.at_ns, text: text.into() }
    }
}

/// The process a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Its id.
    pub pid: Pid,
    /// The part it plays: `worker`, `master`, `fork`, `program`.
    pub role: &'static str,
}

/// Something that was found, with what proves it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// Its refinement, one of the catalogue's; `None` when there is none or it cannot be told.
    pub cause: Option<&'static str>,
    /// How bad it is.
    pub severity: Severity,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// The cause with its particulars, in one line.
    pub title: String,
    /// What happened, in a sentence or three.
    pub summary: String,
    /// In which process; the first of them when there are several.
    pub process: Option<Subject>,
    /// The other processes with the same finding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Subject>,
    /// The rung of the ladder that broke.
    pub rung: Rung,
    /// The events that prove it, in order of time.
    pub evidence: Vec<Evidence>,
    /// One thing a person can do next.
    pub remedy: String,
}

impl Finding {
    /// A finding as its catalogue entry has it. `confidence` is from 0 to 1.
    pub fn new(code: Code, confidence: f64, summary: impl Into<String>) -> Self {
        let entry = code.entry();
        Self {
            code,
            cause: None,
            severity: entry.severity,
            confidence,
            title: entry.title.to_owned(),
            summary: summary.into(),
            process: None,
            also: Vec::new(),
            rung: entry.rung,
            evidence: Vec::new(),
            remedy: entry.remedy.to_owned(),
        }
    }

    /// With a refinement of the catalogue.
    #[must_use]
    pub fn cause(mut self, cause: Option<&'static str>) -> Self {
        debug_assert!(
            cause.is_none_or(|cause| self.code.entry().causes.iter().any(|(name, _)| *name == cause))
        );
        self.cause = cause;
        self
    }

    /// With a title that names the particulars.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// About this process.
    #[must_use]
    pub fn about(mut self, process: Subject) -> Self {
        self.process = Some(process);
        self
    }

    /// As sure as this, from 0 to 1.
    #[must_use]
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = confidence;
        self
    }

    /// As bad as this.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// At another rung than the catalogue's.
    #[must_use]
    pub fn rung(mut self, rung: Rung) -> Self {
        self.rung = rung;
        self
    }

    /// Proved by these too.
    #[must_use]
    pub fn evidence(mut self, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// With this to do next.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// What is concluded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// Its refinement.
    pub cause: Option<&'static str>,
    /// In one line.
    pub title: String,
    /// In a sentence or three.
    pub summary: String,
    /// The rung of the ladder it is about.
    pub rung: Rung,
    /// What to do next.
    pub remedy: String,
}

impl From<&Finding> for Verdict {
    fn from(finding: &Finding) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity,
            confidence: finding.confidence,
            cause: finding.cause,
            title: finding.title.clone(),
            summary: finding.summary.clone(),
            rung: finding.rung,
            remedy: finding.remedy.clone(),
        }
    }
}
