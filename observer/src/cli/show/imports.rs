//! `show --imports`: what each process imported, up to a moment. Knows sessions, the model and rendering; draws no conclusions.

use std::io::Write;

use serde::Serialize;

use super::Args;
use crate::{
    event::{Body, Interpreter, ModuleShadows, Pid},
    fold,
    model::{
        Model,
        ladder::{self, Ladder, Rung},
        modules::{AtEnd, Before, Cached, Module, Program},
    },
    render::{
        imports::{self, ModulePath, Part},
        json, modules,
        style::{DIM, Line},
    },
    session::{Filter, Session},
    words::units,
};

/// Up to when imports are of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The process's first connection that speaks AMQP.
    Connect,
    /// Its first consumer.
    Ready,
    /// Its end.
    Exit,
    /// So many nanoseconds after the session began.
    After(u64),
}

impl Until {
    /// Reads the word, or the time.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "connect" => Self::Connect,
            "ready" => Self::Ready,
            "exit" => Self::Exit,
            time => {
                let ns = units::parse_duration_ns(time);
                Self::After(ns.map_err(|why| format!("connect, ready, exit, or a time: {why}"))?)
            }
        })
    }

    /// When that was for a process; `None` when it did not come to it.
    fn at_ns(self, pid: Pid, ladders: &[Ladder], started_ns: u64) -> Option<u64> {
        let reached = |rung: Rung| {
            let ladder = ladders.iter().find(|ladder| ladder.pid == pid)?;
            ladder.rungs.iter().find(|step| step.rung == rung)?.at_ns
        };
        match self {
            Self::Connect => reached(Rung::Connect),
            Self::Ready => reached(Rung::Consume),
            Self::Exit => None,
            Self::After(ns) => Some(started_ns.saturating_add(ns)),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Connect => "connected",
            Self::Ready => "consumed",
            Self::Exit | Self::After(_) => "",
        }
    }
}

/// File look-ups are needed, unlike in the other views; what was said to a broker only to know when it was said.
fn wanted(args: &Args) -> Filter {
    let is_left_out = |kind: &str| kind == "output" || (kind == "data" && args.until.is_none());
    let kinds = Body::KINDS.iter().filter(|kind| !is_left_out(kind));
    Filter { kinds: kinds.map(|kind| (*kind).to_owned()).collect(), ..Filter::default() }
}

fn parts<'a>(args: &Args, model: &'a Model, started_ns: u64) -> Vec<Part<'a>> {
    let ladders = if args.until.is_some() { ladder::ladders(model) } else { Vec::new() };
    let is_wanted = |program: &&Program| args.pids.is_empty() || args.pids.contains(&program.pid.0);
    let part = |program: &'a Program| {
        let until_ns = args.until.and_then(|until| until.at_ns(program.pid, &ladders, started_ns));
        let never = args.until.filter(|until| until_ns.is_none() && *until != Until::Exit).map(Until::words);
        Part { program, until_ns, never, path: module_path(model, program) }
    };
    model.modules.programs().filter(is_wanted).map(part).collect()
}

/// From its imports; where they were not seen, from what its first thread asked for in vain.
fn module_path<'a>(model: &'a Model, program: &'a Program) -> ModulePath<'a> {
    let (directories, complete) = program.search_path();
    let asked = model.imports.of(program.pid).map(|trail| trail.longest.as_slice()).unwrap_or_default();
    if directories.is_empty() && program.modules.iter().all(|module| module.inferred) {
        return ModulePath { directories: asked, complete: false, inferred: true };
    }
    ModulePath { directories, complete, inferred: false }
}

/// Writes them for people.
pub(super) fn screen(
    args: &Args,
    session: &Session,
    columns: usize,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let model = fold::fold(session, &wanted(args), None)?;
    let started_ns = session.header().started_ns;
    let parts = parts(args, &model, started_ns);
    for part in &parts {
        for line in imports::lines(part, args.tree, args.all, args.limit, started_ns) {
            line.write(out, args.tree.then_some(columns))?;
        }
    }
    for found in model.modules.distributions() {
        let mut line = Line::new();
        modules::distributions(&mut line, found);
        line.write(out, None)?;
    }
    let last = match parts.as_slice() {
        [] => "no imports: no Python was seen to run",
        _ => {
            "not seen: archives on the module path that held nothing; further statements of one place for one loaded module"
        }
    };
    Line::new().with(DIM, last).write(out, None)?;
    Ok(())
}

/// Writes them as one JSON document: schema `observer.show-imports/1`.
pub(super) fn document(args: &Args, session: &Session, out: &mut impl Write) -> anyhow::Result<()> {
    let header = session.header();
    let model = fold::fold(session, &wanted(args), None)?;
    write!(out, r#"{{"schema":"observer.show-imports/1","session":"#)?;
    json::write(out, &json::Described::new(session))?;
    write!(out, r#","processes":["#)?;
    for (index, part) in parts(args, &model, header.started_ns).iter().enumerate() {
        write!(out, "{}", if index == 0 { "\n" } else { ",\n" })?;
        json::write(out, &Told::new(part, header.started_ns))?;
    }
    write!(out, "\n],\"distributions\":")?;
    json::write(out, &model.modules.distributions())?;
    writeln!(out, "}}")?;
    Ok(())
}

#[derive(Serialize)]
struct Told<'a> {
    pid: Pid,
    since_start_ns: i64,
    interpreter: Option<&'a Interpreter>,
    /// The moment asked for; null when it never came.
    until_ns: Option<u64>,
    /// What it had when it was forked; null when it was started.
    before: Option<Before>,
    /// Directories of the module path, in order.
    search_path: &'a [String],
    search_path_complete: bool,
    search_path_inferred: bool,
    /// Those of them that packages are installed in.
    site_packages: Vec<&'a str>,
    /// The `.pth` files that were read, in order.
    pth: &'a [String],
    /// Modules that `site` imported for a `.pth` file or as `sitecustomize` and `usercustomize`, by name.
    customized: Vec<&'a str>,
    /// Other modules of the same names further down the path; null when the disk was not asked.
    shadows: Option<&'a ModuleShadows>,
    modules: Vec<One<'a>>,
    /// Places in `modules` in the order in which they were ready, or had failed: as `-X importtime` prints them.
    ended: Vec<usize>,
    /// Import statements whose module was loaded already: the first of each place.
    cached: Vec<Again<'a>>,
    left_out: u64,
    /// What stood in `sys.modules` when it ended; null when that was not read.
    at_end: Option<&'a AtEnd>,
}

#[derive(Serialize)]
struct Again<'a> {
    #[serde(flatten)]
    cached: &'a Cached,
    /// The absolute name; null when it is relative to a package that is not known.
    module: Option<String>,
    since_start_ns: i64,
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    module: &'a Module,
    /// The module that asked for it, where that is known by name.
    asker: Option<&'a str>,
    since_start_ns: i64,
    total_ns: Option<u64>,
    self_ns: Option<u64>,
}

impl<'a> Told<'a> {
    fn new(part: &Part<'a>, started_ns: u64) -> Self {
        let program = part.program;
        let since = |at_ns: u64| at_ns.cast_signed().wrapping_sub_unsigned(started_ns);
        let ModulePath { directories, complete, inferred } = part.path;
        let by_file = program.by_file();
        let site_packages = directories.iter().map(String::as_str);
        // They are in the order in which they began: what is left out is at the end, and no place changes.
        let modules: Vec<One<'_>> = program
            .modules
            .iter()
            .filter(|module| part.has(module))
            .map(|module| One {
                since_start_ns: since(module.start_ns),
                total_ns: module.total_ns(),
                self_ns: module.self_ns(),
                asker: program.asker(module, &by_file),
                module,
            })
            .collect();
        Self {
            pid: program.pid,
            since_start_ns: since(program.since_ns),
            interpreter: program.interpreter.as_ref(),
            until_ns: part.until_ns,
            before: program.before,
            search_path: directories,
            search_path_complete: complete,
            search_path_inferred: inferred,
            site_packages: site_packages.filter(|one| one.ends_with("-packages")).collect(),
            pth: &program.pth,
            customized: program.customized().map(|module| module.name.as_str()).collect(),
            shadows: program.shadows.as_ref(),
            cached: program
                .cached
                .iter()
                .filter(|cached| part.until_ns.is_none_or(|until| cached.at_ns <= until))
                .map(|cached| Again {
                    module: program.absolute(cached, &by_file),
                    since_start_ns: since(cached.at_ns),
                    cached,
                })
                .collect(),
            ended: program.ended.iter().copied().filter(|at| *at < modules.len()).collect(),
            modules,
            left_out: program.left_out,
            at_end: program.at_end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_word_or_a_time() {
        assert_eq!(Until::parse("ready"), Ok(Until::Ready));
        assert_eq!(Until::parse("1.5s"), Ok(Until::After(1_500_000_000)));
        assert!(Until::parse("later").is_err());
    }
}
