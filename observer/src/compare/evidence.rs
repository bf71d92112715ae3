//! How what a run was given shows in what it did: a value in an address, a queue, a path or an exception. Knows both runs; weighs only
//! how strong a sign is.

use std::collections::{BTreeSet, HashSet};

use super::{effects, run::Run, touched};
use crate::python::{self, Owner};

/// A sign that a difference matters: how much, and which.
pub(super) type Sign = (u32, String);

/// Both runs, and what was gathered of them once.
pub(super) struct Evidence<'a> {
    working: &'a Run,
    failing: &'a Run,
    /// What was agreed with the broker in one run and not in the other.
    facts: [BTreeSet<String>; 2],
    /// What the failing run alone said of exceptions: type, message, and the lines of source they came through.
    exceptions: Vec<(String, String)>,
    /// The lines of own sources they came through.
    frames: Vec<(String, u32)>,
}

/// A variable named so few lines from where an exception came through is near it.
const NEAR_LINES: u32 = 8;

impl<'a> Evidence<'a> {
    pub(super) fn new(working: &'a Run, failing: &'a Run) -> Self {
        let facts = |run| effects::facts(run).into_iter().flat_map(|(name, value)| fact(&name, value));
        let (a, b): (BTreeSet<String>, BTreeSet<String>) =
            (facts(working).collect(), facts(failing).collect());
        let told = |run: &Run| {
            let raised = run.model.tracebacks.iter().flat_map(|raised| raised.traceback.chain());
            raised
                .map(|traceback| {
                    let lines = traceback.frames.iter().filter_map(|frame| frame.source.as_deref());
                    let text = lines.chain([traceback.message.as_str()]).collect::<Vec<_>>().join("\n");
                    (traceback.name().to_owned(), text)
                })
                .collect::<Vec<_>>()
        };
        let before = told(working);
        let raised = failing.model.tracebacks.iter().flat_map(|raised| raised.traceback.chain());
        let frames =
            raised.flat_map(|traceback| &traceback.frames).map(|frame| (frame.file.clone(), frame.line));
        let frames = frames.filter(|(file, _)| python::owner(file) == Owner::Own).collect();
        let exceptions = told(failing).into_iter().filter(|one| !before.contains(one)).collect();
        Self {
            working,
            failing,
            facts: [a.difference(&b).cloned().collect(), b.difference(&a).cloned().collect()],
            exceptions,
            frames,
        }
    }

    /// An exception of the failing run alone whose type is one of these (`Warning` means any type that ends so).
    pub(super) fn raised(&self, kinds: &[&str]) -> Option<&str> {
        let one_of = |name: &str| kinds.iter().any(|kind| name.ends_with(kind));
        self.exceptions.iter().map(|(name, _)| name.as_str()).find(|name| one_of(name))
    }

    /// Whether an exception of the failing run alone speaks of this word.
    pub(super) fn exception_names(&self, word: &str) -> bool {
        self.exceptions.iter().any(|(_, text)| holds(text, word))
    }

    /// That a variable's values or name show in what the runs did.
    pub(super) fn of_variable(
        &self,
        name: &str,
        working: Option<&str>,
        failing: Option<&str>,
    ) -> Option<Sign> {
        let signs = [
            self.paths(&entries(working), &entries(failing)),
            self.spoken(name, failing),
            self.agreed(working, failing),
            self.named(name),
        ];
        signs.into_iter().flatten().max_by_key(|(weight, _)| *weight)
    }

    /// That files below the one run's folders were found, and those below the other's were not, or say something else.
    pub(super) fn paths(&self, working: &[&str], failing: &[&str]) -> Option<Sign> {
        let one = |a: &[&str], b: &[&str]| -> Vec<String> {
            let own = |entry: &&&str| entry.starts_with('/') && entry.len() > 1 && !b.contains(*entry);
            a.iter().filter(own).map(|entry| entry.trim_end_matches('/').to_owned()).collect()
        };
        let (a, b) = (one(working, failing), one(failing, working));
        let (works, fails) = (&self.working.touched, &self.failing.touched);
        for (from, to, got, other, in_failing) in
            [(&a, &b, works, fails, false), (&b, &a, fails, works, true)]
        {
            for folder in from {
                for rest in got.below(folder) {
                    for beside in to {
                        let (path, there) = (format!("{folder}{rest}"), format!("{beside}{rest}"));
                        if other.lacks(&there) && !other.got.contains_key(&there) {
                            let run = if in_failing { "fails" } else { "works" };
                            return Some((
                                125,
                                format!(
                                    "the run that {run} found {path}, the other looked for {there} in vain"
                                ),
                            ));
                        }
                        if !in_failing && touched::differ(got.looks.get(&path), other.looks.get(&there)) {
                            return Some((122, format!("it leads to {path} and {there}, which differ")));
                        }
                    }
                }
            }
        }
        for (from, got, other) in [(&a, works, fails), (&b, fails, works)] {
            if from.is_empty() {
                continue;
            }
            let name = |path: &'a str| path.rsplit('/').next().unwrap_or_default();
            let names: HashSet<&str> = other.got.keys().map(|path| name(path)).collect();
            for folder in from {
                if let Some(rest) = got.below(folder).find(|rest| !names.contains(name(rest))) {
                    return Some((108, format!("{folder}{rest} was read in one run only")));
                }
            }
        }
        None
    }

    /// Whether all that the runs read below these folders is known to be the same, and is not nothing.
    pub(super) fn found_the_same(&self, working: Option<&str>, failing: Option<&str>) -> bool {
        let (Some(a), Some(b)) = (working, failing) else { return false };
        let texts = |run: &'a Run, folder: &str| -> Vec<(String, Option<String>)> {
            let looks = run.touched.below(folder).filter_map(|rest| {
                let look = run.touched.looks.get(&format!("{}{rest}", folder.trim_end_matches('/')))?;
                Some((rest.to_owned(), look.digest.clone()))
            });
            looks.collect()
        };
        let (one, two) = (texts(self.working, a), texts(self.failing, b));
        !one.is_empty() && one == two
    }

    fn spoken(&self, name: &str, failing: Option<&str>) -> Option<Sign> {
        if self.exception_names(name) {
            return Some((121, "an exception in the run that fails speaks of it".to_owned()));
        }
        let value = failing.filter(|value| value.len() >= 4)?;
        self.exception_names(value)
            .then(|| (114, "an exception in the run that fails speaks of its value".to_owned()))
    }

    /// That values show in what was agreed with the broker, where that differs.
    pub(super) fn agreed(&self, working: Option<&str>, failing: Option<&str>) -> Option<Sign> {
        let [works, fails] = &self.facts;
        let (a, b) = (parts(working.unwrap_or_default()), parts(failing.unwrap_or_default()));
        let shows = |own: &[String], others: &[String], facts: &BTreeSet<String>| {
            let own = own.iter().filter(|part| !others.contains(*part));
            own.flat_map(|part| facts.iter().filter(move |fact| shows_in(part, fact))).next().cloned()
        };
        match (shows(&a, &b, works), shows(&b, &a, fails)) {
            (Some(one), Some(other)) => {
                Some((118, format!("its values show in what was agreed with the broker: {one}, {other}")))
            }
            (Some(fact), None) | (None, Some(fact)) => {
                Some((112, format!("its value shows in what was agreed with the broker: {fact}")))
            }
            (None, None) => None,
        }
    }

    /// That a source or a configuration that was read names a variable; more so where an exception came through.
    fn named(&self, name: &str) -> Option<Sign> {
        let looks = [self.working, self.failing].into_iter().flat_map(|run| run.touched.looks.values());
        let signs = looks.flat_map(|look| {
            let own = python::owner(&look.path) == Owner::Own;
            let quoted = (&look.variables, if own { 96 } else { 84 });
            [quoted, (&look.alike, 76)].into_iter().filter_map(|(names, weight)| {
                let (line, _) = names.iter().find(|(_, one)| one == name)?;
                let beside = self.frames.iter().filter(|(file, _)| *file == look.path);
                let nearest = beside.map(|(_, at)| at.abs_diff(*line)).min();
                let closer = match nearest {
                    Some(lines) if lines <= NEAR_LINES => 6,
                    Some(_) => 3,
                    None => 0,
                };
                Some((weight + closer, format!("{} names it in line {line}", look.path)))
            })
        });
        // Of several files the first by name: the answer must not depend on the order of a table.
        signs.max_by(|(a, one), (b, other)| a.cmp(b).then_with(|| other.cmp(one)))
    }

    /// Whether it is known at all what the programs' sources name.
    pub(super) fn knows_sources(&self) -> bool {
        !self.working.touched.looks.is_empty() || !self.failing.touched.looks.is_empty()
    }
}

/// The entries of a list of paths; a value that is none is its only entry.
fn entries(value: Option<&str>) -> Vec<&str> {
    value.map_or_else(Vec::new, |value| value.split(':').collect())
}

/// What of a fact a value can be: `127.0.0.1:5672` has two such parts.
fn fact(name: &str, value: String) -> Vec<String> {
    match name.split_once(' ') {
        Some(("queue", queue)) => vec![queue.to_owned()],
        Some(("consumer", queue)) => vec![queue.trim_start_matches("of ").to_owned()],
        _ if name == "address" => value
            .rsplit_once(':')
            .map_or_else(|| vec![value.clone()], |(ip, port)| vec![ip.to_owned(), port.to_owned()]),
        _ if name == "closed" => Vec::new(),
        _ => vec![value],
    }
}

/// A value, or what a URL consists of: user, host, port, path.
fn parts(value: &str) -> Vec<String> {
    let Some((_, rest)) = value.split_once("://") else {
        return if value.is_empty() { Vec::new() } else { vec![value.to_owned()] };
    };
    let (account, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let user = account.split(':').next().unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let path = path.replace("%2F", "/").replace("%2f", "/");
    let parts = [user.to_owned(), host.to_owned(), port.to_owned(), path];
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Whether a value is a fact, or a word of it.
fn shows_in(value: &str, fact: &str) -> bool {
    value == fact || (value.len() >= 3 && holds(fact, value))
}

/// Whether a text holds a word: neither a letter nor a digit stands beside it.
fn holds(text: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            let before = text.get(..at).and_then(|before| before.chars().next_back());
            let after = text.get(at + word.len()..).and_then(|after| after.chars().next());
            !inside(before) && !inside(after)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_parts_and_a_value_is_one() {
        assert_eq!(
            parts("amqp://u:«redacted:3f9a»@rabbit:5672/shop%2Feu?heartbeat=3"),
            ["u", "rabbit", "5672", "shop/eu"]
        );
        assert_eq!(parts("amqp://rabbit"), ["rabbit"]);
        assert_eq!(parts("mail"), ["mail"]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn a_value_shows_as_a_word_not_as_a_part_of_one() {
        assert!(shows_in("blue", "blue.mail"));
        assert!(shows_in("4", "4"));
        assert!(!shows_in("4", "4.mail"));
        assert!(!shows_in("mail", "mails"));
        assert!(holds("KeyError: 'SHOP_REGION'", "SHOP_REGION"));
        assert!(!holds("SHOP_REGIONS", "SHOP_REGION"));
    }
}
