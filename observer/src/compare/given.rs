//! What a run was given besides its environment: arguments, directory, user, limits, mask, interpreter, terminal. Knows a program's start.

use super::{Difference, Kind, difference, evidence::Evidence, run::Run};
use crate::{
    event::{Exec, Known, Limit},
    model::files,
    words,
};

/// Exec's descriptors 0 to 2, by name.
const STDIO: [&str; 3] = ["stdin", "stdout", "stderr"];
const EMFILE: i32 = 24;
const EACCES: i32 = 13;

pub(super) fn differences(working: &Run, failing: &Run, evidence: &Evidence<'_>, out: &mut Vec<Difference>) {
    let (Some(a), Some(b)) = (&working.program, &failing.program) else { return };
    let mut push = |kind, key: &str, a: Option<String>, b: Option<String>, weight, why: &str| {
        if a != b {
            out.push(difference(kind, key, (a, b), weight, why));
        }
    };
    let argv = |exec: &Exec| exec.argv.get().map(|argv| words::command(argv.get(1..).unwrap_or_default()));
    let (weight, why) = arguments(working, failing, a, b, evidence);
    push(Kind::Argv, "arguments", argv(a), argv(b), weight, &why);
    let cwd = |exec: &Exec| exec.cwd.get().cloned();
    let (one, two) = (cwd(a), cwd(b));
    let sign = evidence.paths(one.as_deref().as_slice(), two.as_deref().as_slice());
    let (weight, why) = sign.unwrap_or_else(|| {
        if evidence.found_the_same(one.as_deref(), two.as_deref()) {
            (35, "what was read below it is the same in both".to_owned())
        } else {
            (70, "modules and files are looked for from here".to_owned())
        }
    });
    push(Kind::Cwd, "cwd", one, two, weight, &why);
    let refused = |run: &Run, errno: i32| run.model.files.refused.keys().any(|(_, number)| *number == errno);
    let denied = refused(failing, EACCES) && !refused(working, EACCES);
    let by_refusal = |weight: u32, why: &'static str| {
        if denied {
            (115, "a file could not be opened (EACCES) in the run that fails only")
        } else {
            (weight, why)
        }
    };
    let user = |exec: &Exec| exec.user.get().map(|user| format!("{}:{}", user.euid, user.egid));
    let (weight, why) = by_refusal(65, "files and directories are open to some users only");
    push(Kind::User, "user", user(a), user(b), weight, why);
    let groups = |exec: &Exec| {
        let groups = exec.user.get()?.groups.get()?;
        Some(groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    };
    let (weight, why) = if user(a) == user(b) {
        by_refusal(30, "groups open files and sockets")
    } else {
        (20, "follows from the user")
    };
    push(Kind::User, "groups", groups(a), groups(b), weight, why);
    let umask = |exec: &Exec| exec.umask.get().map(|umask| format!("{umask:03o}"));
    let (weight, why) = by_refusal(45, "it decides who may read what is written");
    push(Kind::Umask, "umask", umask(a), umask(b), weight, why);
    let exe = |exec: &Exec| exec.exe.get().and_then(|exe| exe.path.get().cloned());
    push(Kind::Interpreter, "executable", exe(a), exe(b), 106, "another interpreter has other modules");
    push(
        Kind::Interpreter,
        "prefix",
        working.prefix.clone(),
        failing.prefix.clone(),
        78,
        "installed packages come from another environment",
    );
    let tty = |exec: &Exec| exec.tty.get().cloned().map(|_| "a terminal".to_owned());
    push(Kind::File, "controlling terminal", tty(a), tty(b), 8, "seldom matters to a worker");
    for (number, name) in STDIO.iter().enumerate() {
        let leads = |exec: &Exec| {
            exec.stdio
                .get(number)
                .and_then(Known::get)
                .map(|target| format!("{:?}", target.what).to_lowercase())
        };
        push(Kind::File, name, leads(a), leads(b), 12, "where it reads or writes");
    }
    limits(working, failing, (a, b), evidence, out);
}

/// How much the arguments matter: those that are the same but for temporary names do not.
fn arguments(working: &Run, failing: &Run, a: &Exec, b: &Exec, evidence: &Evidence<'_>) -> (u32, String) {
    let (Some(a), Some(b)) = (a.argv.get(), b.argv.get()) else { return (0, String::new()) };
    let normal = |run: &Run, words: &[String]| -> Vec<String> {
        words.iter().skip(1).map(|word| run.normal.path(word)).collect()
    };
    if normal(working, a) == normal(failing, b) {
        return (15, "they name the same, in another place".to_owned());
    }
    let only = |words: &[String], others: &[String]| -> Vec<String> {
        words.iter().skip(1).filter(|word| !others.contains(word)).cloned().collect()
    };
    let (one, two) = (only(a, b), only(b, a));
    let signs = one
        .iter()
        .map(Some)
        .chain([None])
        .flat_map(|one| two.iter().map(Some).chain([None]).map(move |two| (one, two)));
    signs
        .filter_map(|(one, two)| evidence.agreed(one.map(String::as_str), two.map(String::as_str)))
        .max_by_key(|(weight, _)| *weight)
        .unwrap_or_else(|| (100, "the program was told something else".to_owned()))
}

fn limits(
    working: &Run,
    failing: &Run,
    (a, b): (&Exec, &Exec),
    evidence: &Evidence<'_>,
    out: &mut Vec<Difference>,
) {
    let (Some(a), Some(b)) = (a.limits.get(), b.limits.get()) else { return };
    let no_thread = evidence.exception_names("can't start new thread");
    let no_memory = evidence.raised(&["MemoryError"]).is_some();
    let too_large = evidence.exception_names("File too large");
    let ran_out = |run: &Run| {
        run.model.files.refused.keys().any(|(_, errno)| *errno == EMFILE)
            || run.model.connections.iter().any(|connection| connection.result == Some(EMFILE))
    };
    let emfile = ran_out(failing) && !ran_out(working);
    let written = |limit: &Limit| {
        let one =
            |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
        format!("{}:{}", one(limit.soft), one(limit.hard))
    };
    for limit in a {
        let Some(other) = b.iter().find(|other| other.name == limit.name) else { continue };
        if limit == other {
            continue;
        }
        let (weight, why) = match limit.name.as_str() {
            "NOFILE" if emfile => (120, "the run that fails ran out of descriptors (EMFILE)"),
            "NPROC" if no_thread => (120, "the run that fails could not start a thread"),
            "AS" | "DATA" | "STACK" if no_memory => (120, "the run that fails ran out of memory"),
            "FSIZE" if too_large => (120, "the run that fails could not write a file so large"),
            "NOFILE" | "NPROC" | "AS" | "DATA" | "STACK" | "FSIZE" => {
                (50, "it bounds what the process may have")
            }
            _ => (20, "it bounds what the process may have"),
        };
        out.push(difference(
            Kind::Limit,
            limit.name.clone(),
            (Some(written(limit)), Some(written(other))),
            if other.soft.is_some_and(|soft| limit.soft.is_none_or(|before| soft < before)) {
                weight + 10
            } else {
                weight
            },
            why,
        ));
    }
}

/// Whether a path could not be opened in a run.
pub(super) fn is_refused(run: &Run, path: &str) -> bool {
    run.model.files.refused.keys().any(|(refused, errno)| refused == path && !files::is_missing(*errno))
}
