//! Files that both runs wanted: what they say, and whether they are there. And versions of what is installed. Knows what was read; shows
//! no content.

use std::collections::BTreeMap;

use super::{Difference, Kind, difference, divergence::Found, evidence::Evidence, run::Run, touched};
use crate::{
    event::FileLook,
    python::{self, Owner},
    words::units,
};

/// The weight of a file that says something else, and was read before the runs parted.
const CONTENT: u32 = 106;

pub(super) fn differences(
    working: &Run,
    failing: &Run,
    diverged: Option<&Found>,
    evidence: &Evidence<'_>,
    out: &mut Vec<Difference>,
) {
    contents(working, failing, diverged, out);
    installed(working, failing, evidence, out);
}

/// Files somebody wrote for the program, that a run read and did not write itself: as they compare, and as they are called.
fn texts(run: &Run) -> BTreeMap<String, &str> {
    let written = &run.touched.written;
    let own = |path: &&String| {
        (python::owner(path) == Owner::Own || path.ends_with(".pth")) && !written.contains(*path)
    };
    run.touched.got.keys().filter(own).map(|path| (run.normal.path(path), path.as_str())).collect()
}

fn contents(working: &Run, failing: &Run, diverged: Option<&Found>, out: &mut Vec<Difference>) {
    let (a, b) = (texts(working), texts(failing));
    let until_ns = diverged.map_or(u64::MAX, |diverged| diverged.failing_ns);
    let said = |look: Option<&FileLook>| {
        look.map_or_else(
            || "there".to_owned(),
            |look| {
                let digest = look.digest.as_deref().unwrap_or("-");
                format!("{}, content {}", units::size(look.len_bytes), digest.get(..8).unwrap_or(digest))
            },
        )
    };
    let mut found = Vec::new();
    for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
        let (one, other) = (a.get(name).copied(), b.get(name).copied());
        let look = |run: &Run, path: Option<&str>| path.and_then(|path| run.touched.looks.get(path)).cloned();
        let (look_a, look_b) = (look(working, one), look(failing, other));
        // The other run may have wanted the same file, or the one that is to it what this one is to this run.
        let lacked = |run: &Run, path: &str| {
            let there = run.normal.whole(name);
            run.touched.missing.contains(path)
                || there.is_some_and(|there| run.touched.missing.contains(&there))
        };
        let (values, weight, why) = match (one, other) {
            (Some(_), Some(path)) if touched::differ(look_a.as_ref(), look_b.as_ref()) => {
                let before = failing.touched.got.get(path).is_some_and(|at_ns| *at_ns <= until_ns);
                let weight = if before { CONTENT } else { 64 };
                let values = (Some(said(look_a.as_ref())), Some(said(look_b.as_ref())));
                (values, weight, "its content differs, and both runs read it")
            }
            (Some(path), None) if lacked(failing, path) => (
                (Some(said(look_a.as_ref())), None),
                110,
                "is not there in the run that fails, which looked for it",
            ),
            (None, Some(path)) if lacked(working, path) => (
                (None, Some(said(look_b.as_ref()))),
                107,
                "is not there in the run that works, which looked for it",
            ),
            _ => continue,
        };
        // Two files of one name in two places: what led there is what differs.
        let moved = match (one, other) {
            (Some(one), Some(other)) => one != other,
            (Some(path), None) => !failing.touched.missing.contains(path),
            (None, Some(path)) => !working.touched.missing.contains(path),
            (None, None) => false,
        };
        let key = if moved { name.as_str() } else { one.or(other).unwrap_or(name) };
        let read_ns = other.and_then(|path| failing.touched.got.get(path)).copied().unwrap_or_default();
        found.push((read_ns, difference(Kind::File, key, values, if moved { 58 } else { weight }, why)));
    }
    // Of several that were read before the runs parted, the last one is the likeliest.
    let before = found.iter_mut().filter(|(read_ns, one)| *read_ns <= until_ns && one.weight == CONTENT);
    if let Some((_, last)) = before.max_by_key(|(read_ns, _)| *read_ns) {
        last.weight += 1;
    }
    out.extend(found.into_iter().map(|(_, one)| one));
}

/// Versions of what both loaded: what one of them only did not load may be there all the same.
fn installed(working: &Run, failing: &Run, evidence: &Evidence<'_>, out: &mut Vec<Difference>) {
    let (a, b) = (&working.touched.installed, &failing.touched.installed);
    for (name, version) in a {
        let Some(other) = b.get(name).filter(|other| *other != version) else { continue };
        let (weight, why) = if evidence.exception_names(&name.replace('-', "_")) {
            (124, "an exception in the run that fails speaks of it")
        } else {
            (113, "its modules were loaded")
        };
        let values = (Some(version.clone()), Some(other.clone()));
        out.push(difference(Kind::PackageVersion, name.clone(), values, weight, why));
    }
}
