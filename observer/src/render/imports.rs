//! Imports for people: a tree, or what stands out. Knows the model and styles.

use super::{
    modules,
    style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG},
};
use crate::{
    model::modules::{Module, Program},
    python::{self, Owner},
    words::units,
};

/// Modules listed by time, unless a limit says otherwise.
const SLOWEST: u64 = 15;
/// Your own modules, and failed ones, that are listed.
const OTHERS: usize = 30;

/// What is shown of one program.
pub struct Part<'a> {
    /// The program.
    pub program: &'a Program,
    /// Up to when; `None`: all of it.
    pub until_ns: Option<u64>,
    /// What it never did, when the moment asked for never came.
    pub never: Option<&'static str>,
    /// Its module path.
    pub path: ModulePath<'a>,
}

/// The directories of a module path, in the order in which they were searched. Archives are on it too, but are not asked each time.
#[derive(Clone, Copy)]
pub struct ModulePath<'a> {
    /// The directories.
    pub directories: &'a [String],
    /// Whether they are all.
    pub complete: bool,
    /// Whether imports were not seen, and only the questions that were asked tell.
    pub inferred: bool,
}

impl Part<'_> {
    /// Whether a module is part of it.
    pub fn has(&self, module: &Module) -> bool {
        self.until_ns.is_none_or(|until| module.start_ns <= until)
    }
}

/// A program's imports.
pub fn lines(part: &Part<'_>, tree: bool, all: bool, limit: Option<u64>, started_ns: u64) -> Vec<Line> {
    let program = part.program;
    let modules: Vec<&Module> = program.modules.iter().filter(|module| part.has(module)).collect();
    // A fork that imported nothing of its own.
    if modules.is_empty() && part.until_ns.is_none() && !all {
        return Vec::new();
    }
    let mut lines = vec![head(part, &modules, started_ns)];
    if let Some(interpreter) = &program.interpreter {
        let mut line = Line::new().with(PLAIN, "  ");
        modules::interpreter(&mut line, interpreter);
        lines.push(line);
    }
    if let Some(line) = at_start(program) {
        lines.push(line);
    }
    if let Some(never) = part.never.filter(|never| !never.is_empty()) {
        lines.push(Line::new().with(ODD, format!("  it never {never}: this is all it imported")));
    }
    if tree {
        lines.push(Line::new().with(DIM, "       total       self  module"));
        lines.extend(modules.iter().map(|module| one(module, module.depth, part)));
    } else {
        lines.extend(outstanding(&modules, part, limit));
        lines.extend(hiding(program));
        lines.extend(search_path(&part.path));
    }
    let cached = program.cached.iter().filter(|one| part.until_ns.is_none_or(|until| one.at_ns <= until));
    let cached = cached.count() as u64;
    if cached > 0 {
        let count = units::counted(cached, "further import statement");
        let text = format!("  {count} asked for what was loaded already; --format json lists them");
        lines.push(Line::new().with(DIM, text));
    }
    if program.left_out > 0 {
        let count = units::counted(program.left_out, "module");
        lines.push(Line::new().with(ODD, format!("  {count} not kept")));
    }
    lines
}

fn head(part: &Part<'_>, modules: &[&Module], started_ns: u64) -> Line {
    let outermost = modules.iter().filter(|module| module.is_outermost(&part.program.modules));
    let total: u64 = outermost.filter_map(|module| module.total_ns()).sum();
    let inferred = modules.iter().filter(|module| module.inferred).count();
    let mut line = Line::new().with(STRONG, format!("process {}", part.program.pid));
    let count = units::counted(modules.len() as u64, "module");
    line.push(PLAIN, format!(": {count} in {}", units::duration(total)));
    if let Some(before) = part.program.before {
        let count = units::counted(before.modules, "module");
        line.push(DIM, format!(", beside {count} it had from {}, which forked it", before.pid));
    }
    if let Some(at_end) = &part.program.at_end {
        let count = at_end.otherwise_unseen.len();
        line.push(DIM, format!(", {} in memory at its end, {count} of them not here", at_end.modules));
    }
    if inferred > 0 {
        line.push(DIM, format!(", {inferred} of them inferred from opened files"));
    }
    if let Some(until_ns) = part.until_ns {
        line.push(DIM, format!(", until {}", units::moment(until_ns, started_ns)));
    }
    line
}

/// Times, name, file; indented by depth.
fn one(module: &Module, depth: usize, part: &Part<'_>) -> Line {
    let time = |ns: Option<u64>| ns.map_or_else(|| "·".to_owned(), units::duration);
    let mut line = Line::new();
    line.push(DIM, format!("{:>12} {:>10}  ", time(module.total_ns()), time(module.self_ns())));
    line.push(PLAIN, "  ".repeat(depth.min(40)));
    let style = match module.loaded {
        Some(false) => BAD,
        _ if is_own(module) => GOOD,
        _ => NAME,
    };
    line.push(style, &module.name).push(style, if module.name_cut { "…" } else { "" });
    let going_on = part.until_ns.is_some_and(|until| module.end_ns.is_none_or(|end| end > until));
    match module.loaded {
        Some(false) => {
            let with = module.exception.as_ref().map_or_else(String::new, |kind| format!(" with {kind}"));
            line.push(BAD, format!("  failed{with}"))
        }
        _ if module.inferred => line.push(DIM, "  (inferred)"),
        None => line.push(ODD, "  never ended"),
        Some(true) if going_on => line.push(ODD, "  not ended by then"),
        Some(true) => &mut line,
    };
    if let Some(file) = &module.file {
        line.push(DIM, format!("  {file}"));
    }
    if !module.portions.is_empty() {
        line.push(DIM, format!("  namespace in {}", module.portions.join(", ")));
    }
    line
}

/// What was done before the program: `.pth` files, and what they and `sitecustomize` imported.
fn at_start(program: &Program) -> Option<Line> {
    let mut said = Vec::new();
    if !program.pth.is_empty() {
        said.push(format!("read {}", program.pth.join(", ")));
    }
    for module in program.customized() {
        let by =
            if module.importer.as_deref() == Some("<string>") { " for a line of a .pth file" } else { "" };
        let from = module.file.as_ref().map_or_else(String::new, |file| format!(" from {file}"));
        said.push(format!("imported {}{by}{from}", module.name));
    }
    (!said.is_empty()).then(|| Line::new().with(PLAIN, format!("  at its start it {}", said.join("; "))))
}

/// Where a top-level module was looked for in vain before it was found, or at all.
fn looked(module: &Module, path: &ModulePath<'_>) -> Option<String> {
    let in_vain = match (module.loaded, module.tried.split_last()) {
        (Some(true), Some((_, before))) => before,
        _ => &module.tried,
    };
    match in_vain {
        [] => None,
        all if all == path.directories => Some("  not in any directory of the module path".to_owned()),
        some => Some(format!("  not in {}", some.join(", "))),
    }
}

fn is_own(module: &Module) -> bool {
    module.file.as_deref().is_some_and(|file| python::owner(file) == Owner::Own)
}

fn outstanding(modules: &[&Module], part: &Part<'_>, limit: Option<u64>) -> Vec<Line> {
    let mut lines = Vec::new();
    let by_file = part.program.by_file();
    let mut slowest: Vec<&Module> =
        modules.iter().copied().filter(|module| module.self_ns().is_some()).collect();
    slowest.sort_by_key(|module| std::cmp::Reverse(module.self_ns()));
    slowest.truncate(limit.unwrap_or(SLOWEST) as usize);
    let mut section = |title: &str, of: Vec<&Module>, searched: bool| {
        if of.is_empty() {
            return;
        }
        lines.push(Line::new().with(DIM, format!("  {title}")));
        let hidden = of.len().saturating_sub(OTHERS.max(limit.unwrap_or(0) as usize));
        let shown = of.len() - hidden;
        for module in of.into_iter().take(shown) {
            let mut line = one(module, 0, part);
            let asker = part.program.asker(module, &by_file).or(module.importer.as_deref());
            if let Some(asker) = asker.filter(|_| searched) {
                line.push(DIM, format!("  for {asker}"));
            }
            if let Some(looked) = looked(module, &part.path).filter(|_| searched) {
                line.push(DIM, looked);
            }
            lines.push(line);
        }
        if hidden > 0 {
            lines.push(Line::new().with(DIM, format!("{hidden:>24} more; with them: --tree")));
        }
    };
    section("by their own time (total, self):", slowest, false);
    let is_open = |module: &Module| module.loaded.is_none() && !module.inferred;
    let failed = modules.iter().copied().filter(|module| module.loaded == Some(false) || is_open(module));
    section("failed, or never ended:", failed.collect(), true);
    section("your own:", modules.iter().copied().filter(|module| is_own(module)).collect(), true);
    lines
}

fn hiding(program: &Program) -> Vec<Line> {
    let Some(shadows) = program.shadows.as_ref().filter(|shadows| !shadows.hiding.is_empty()) else {
        return Vec::new();
    };
    let whole = if shadows.complete { "" } else { " (not all looked at)" };
    let mut lines = vec![Line::new().with(DIM, format!("  hiding others of the same name{whole}:"))];
    lines.extend(shadows.hiding.iter().map(|hiding| {
        let text = format!("    {} in {} hides {}", hiding.name, hiding.entry, hiding.hidden.join(", "));
        Line::new().with(ODD, text)
    }));
    lines
}

fn search_path(path: &ModulePath<'_>) -> Vec<Line> {
    if path.directories.is_empty() {
        return Vec::new();
    }
    let known = match (path.complete, path.inferred) {
        (_, true) => ", inferred from what was asked for",
        (true, false) => "",
        (false, false) => ", as far as it was searched",
    };
    let mut lines = vec![Line::new().with(DIM, format!("  the module path, in order{known}:"))];
    lines.extend(path.directories.iter().map(|one| Line::new().with(PLAIN, format!("    {one}"))));
    lines
}
