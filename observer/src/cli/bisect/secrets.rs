//! Puts secrets back where a session has only marks of them. Knows marks and our own environment; a secret that is not there is named.

use std::collections::{BTreeSet, HashMap};

use crate::{
    compare::toggle::Start,
    session::{Redactor, StateDir},
};

/// What every mark begins with.
const MARK: &str = "«redacted";

/// Replaces marks by the secrets that our own environment holds; answers the variables that still hold one.
pub(super) fn put_back(dir: &StateDir, starts: [&mut Start; 2]) -> anyhow::Result<Vec<String>> {
    let redactor = Redactor::open(dir)?;
    let mut known: HashMap<String, String> = HashMap::new();
    for (name, value) in std::env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
            known.extend(redactor.marks(name, value));
        }
    }
    let mut missing = BTreeSet::new();
    for start in starts {
        for (name, value) in &mut start.environment {
            for (mark, secret) in &known {
                if value.contains(mark.as_str()) {
                    *value = value.replace(mark.as_str(), secret);
                }
            }
            if value.contains(MARK) {
                missing.insert(name.clone());
            }
        }
        for word in &mut start.arguments {
            for (mark, secret) in &known {
                *word = word.replace(mark.as_str(), secret);
            }
            if word.contains(MARK) {
                missing.insert("an argument".to_owned());
            }
        }
    }
    Ok(missing.into_iter().collect())
}
