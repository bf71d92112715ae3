//! Names that processes looked up, and what they were told: by the questions they sent to a name server, and by the opens of
//! `/etc/hosts`, with which glibc begins (2.36, nss/nss_files/files-hosts.c). Knows events; draws no conclusions.

use std::collections::BTreeMap;

use super::mark::Mark;
use crate::event::{Body, Event, Pid};

/// Names told apart, over all processes; more are not kept.
const MAX_NAMES: usize = 5_000;
/// Processes whose look-ups are kept.
const MAX_PROCESSES: usize = 10_000;

/// One name that one process asked a name server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The first question.
    pub first: Mark,
    /// The last question or answer.
    pub last: Mark,
    /// Questions.
    pub questions: u64,
    /// The last answer's code that was not "no error" (RFC 1035, 4.1.1: 3 is "no such name").
    pub refused: Option<(Mark, u8)>,
    /// Answers.
    pub answers: u64,
    /// Whether an answer had a record in it.
    pub resolved: bool,
}

/// What one process looked up without regard to the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consulted {
    /// `/etc/hosts` was opened first.
    pub first: Mark,
    /// And last.
    pub last: Mark,
    /// How often.
    pub count: u64,
}

/// All look-ups.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    names: BTreeMap<(Pid, String), Asked>,
    hosts: BTreeMap<Pid, Consulted>,
}

impl Lookups {
    /// The names a process asked a name server for.
    pub fn names(&self, pid: Pid) -> impl Iterator<Item = (&str, &Asked)> {
        self.names
            .range((pid, String::new())..)
            .take_while(move |((of, _), _)| *of == pid)
            .map(|((_, name), asked)| (name.as_str(), asked))
    }

    /// How often a process began to look a name up.
    pub fn consulted(&self, pid: Pid) -> Option<&Consulted> {
        self.hosts.get(&pid)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let mark = Mark::new(id, event);
        match &event.body {
            Body::Lookup { name, code, records, .. } => {
                let key = (event.pid, name.to_ascii_lowercase());
                if !self.names.contains_key(&key) && self.names.len() >= MAX_NAMES {
                    return;
                }
                let asked = self.names.entry(key).or_insert(Asked {
                    first: mark,
                    last: mark,
                    questions: 0,
                    refused: None,
                    answers: 0,
                    resolved: false,
                });
                asked.last = mark;
                match code {
                    None => asked.questions += 1,
                    Some(code) => {
                        asked.answers += 1;
                        asked.resolved |= *records > 0;
                        if *code != 0 {
                            asked.refused = Some((mark, *code));
                        }
                    }
                }
            }
            Body::Open(call) if call.errno == 0 && super::files::path_of(call) == Some("/etc/hosts") => {
                if self.hosts.len() >= MAX_PROCESSES && !self.hosts.contains_key(&event.pid) {
                    return;
                }
                let fresh = Consulted { first: mark, last: mark, count: 0 };
                let known = self.hosts.entry(event.pid).or_insert(fresh);
                known.last = mark;
                known.count += 1;
            }
            _ => {}
        }
    }
}
