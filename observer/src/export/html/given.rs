//! What the processes were given, and in which versions: programs with arguments, directory, user, limits and environment, interpreters,
//! packages. Knows the model; what was redacted in the session is so here.

use super::text::Text;
use crate::{
    diagnose::case::Case,
    event::{Exec, Known},
    model::process::Execution,
    render::{modules, style::Line, timeline::why_absent},
    words,
};

/// Programs shown, and variables of one.
const MOST_PROGRAMS: usize = 20;
const MOST_VARIABLES: usize = 300;

/// A program that ran.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: Text,
    /// What it was given, by name.
    pub(super) facts: Vec<(&'static str, Text)>,
    /// Its environment, or why it is not there.
    pub(super) variables: Vec<Text>,
    pub(super) without: Text,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) programs: Vec<Program>,
    pub(super) left_out: usize,
    pub(super) interpreters: Vec<Text>,
    pub(super) packages: Vec<Text>,
}

/// What was given.
pub(super) fn of(case: &Case<'_>) -> Given {
    let execs = || {
        case.model
            .processes
            .iter()
            .flat_map(|process| process.execs.iter().map(move |exec| (process.pid, exec)))
    };
    let text = |line: Line| Text::line(&line);
    let interpreters = case.model.modules.programs().filter_map(|program| {
        let mut line = Line::new().with(crate::render::style::PLAIN, format!("process {}: ", program.pid));
        modules::interpreter(&mut line, program.interpreter.as_ref()?);
        Some(text(line))
    });
    let mut packages: Vec<Text> = case
        .model
        .modules
        .distributions()
        .iter()
        .map(|found| {
            let mut line = Line::new();
            modules::distributions(&mut line, found);
            text(line)
        })
        .collect();
    packages.dedup();
    Given {
        programs: execs().take(MOST_PROGRAMS).map(|(pid, exec)| program(case, pid, exec)).collect(),
        left_out: execs().count().saturating_sub(MOST_PROGRAMS),
        interpreters: interpreters.take(MOST_PROGRAMS).collect(),
        packages,
    }
}

fn program(case: &Case<'_>, pid: crate::event::Pid, exec: &Execution) -> Program {
    let argv = exec
        .argv
        .get()
        .map_or_else(|| format!("(arguments {})", why_absent(&exec.argv)), |argv| words::command(argv));
    let cut = if matches!(exec.argv, Known::Partial { .. }) { " … (cut)" } else { "" };
    let argv = Text::of(format!("{argv}{cut}"));
    let mut facts = vec![
        ("arguments", argv.clone()),
        ("file", Text::known(&exec.exe)),
        ("directory", Text::known(&exec.cwd)),
    ];
    let mut variables = Vec::new();
    let without = match &exec.details {
        Some(details) => {
            facts.extend(started_with(details));
            let all = details.env.get();
            variables.extend(all.into_iter().flatten().take(MOST_VARIABLES).map(Text::of));
            let more = all.map_or(0, Vec::len).saturating_sub(MOST_VARIABLES);
            match (&details.env, more) {
                (Known::Absent { .. }, _) => format!("environment {}", why_absent(&details.env)),
                (_, 1..) => format!("and {more} more variables"),
                (Known::Partial { .. }, _) => "the rest could not be had".to_owned(),
                _ => String::new(),
            }
        }
        None => "the environment of so many programs is not kept".to_owned(),
    };
    let name = format!("{} ({}): {argv}", pid, case.role(pid).name());
    Program { name: Text::of(name), facts, variables, without: Text::of(without) }
}

fn started_with(exec: &Exec) -> Vec<(&'static str, Text)> {
    let user = exec.user.get().map_or_else(
        || format!("({})", why_absent(&exec.user)),
        |user| {
            format!("uid {} (effective {}), gid {} (effective {})", user.uid, user.euid, user.gid, user.egid)
        },
    );
    let umask = exec
        .umask
        .get()
        .map_or_else(|| format!("({})", why_absent(&exec.umask)), |mask| format!("{mask:03o}"));
    let bound = |bound: Option<u64>| bound.map_or_else(|| "unlimited".to_owned(), |bound| bound.to_string());
    let limits = exec.limits.get().map_or_else(
        || format!("({})", why_absent(&exec.limits)),
        |limits| {
            let one = |limit: &crate::event::Limit| {
                format!("{} {}/{}", limit.name, bound(limit.soft), bound(limit.hard))
            };
            limits.iter().map(one).collect::<Vec<_>>().join(", ")
        },
    );
    vec![
        ("user", Text::of(user)),
        ("umask", Text::of(umask)),
        ("terminal", Text::known(&exec.tty)),
        ("limits (soft/hard)", Text::of(limits)),
    ]
}
