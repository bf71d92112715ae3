//! Imports and interpreters, in one line. Knows events and styles.

use super::style::{BAD, DIM, Line, ODD, PLAIN};
use crate::{
    event::{
        CachedImport, Distribution, Distributions, Import, ImportSight, Imported, Interpreter, Known,
        LoadedModules, ModuleShadows,
    },
    words::units,
};

fn name(module: &Known<String>) -> String {
    match module {
        Known::Is(name) => name.clone(),
        Known::Partial { partial, .. } => format!("{partial}…"),
        Known::Absent { .. } => "(name unknown)".to_owned(),
    }
}

/// An import that begins.
pub(super) fn import<'a>(line: &'a mut Line, import: &Import) -> &'a mut Line {
    line.push(PLAIN, indent(import.depth)).push(PLAIN, name(&import.module));
    by(line, &import.importer, &import.function)
}

/// An import of what is loaded.
pub(super) fn cached<'a>(line: &'a mut Line, import: &CachedImport) -> &'a mut Line {
    let dots = ".".repeat(import.level.min(10) as usize);
    line.push(PLAIN, indent(import.depth)).push(PLAIN, format!("{dots}{}", name(&import.module)));
    line.push(DIM, ", loaded already");
    by(line, &import.importer, &import.function)
}

fn indent(depth: u32) -> String {
    "  ".repeat((depth as usize).min(20))
}

/// Whose code asks.
fn by<'a>(line: &'a mut Line, importer: &Known<String>, function: &Known<String>) -> &'a mut Line {
    if let Some(importer) = importer.get() {
        let function = function.get().filter(|function| *function != "<module>");
        let function = function.map_or_else(String::new, |function| format!(", in {function}"));
        line.push(DIM, format!("  by {importer}{function}"));
    }
    line
}

/// An import that has ended.
pub(super) fn imported<'a>(line: &'a mut Line, import: &Imported, at_ns: u64) -> &'a mut Line {
    line.push(PLAIN, indent(import.depth)).push(PLAIN, name(&import.module));
    if !import.loaded {
        line.push(BAD, " failed");
        line.push(BAD, import.exception.as_ref().map_or_else(String::new, |kind| format!(" with {kind}")));
    }
    line.push(DIM, format!(" after {}", units::duration(at_ns.saturating_sub(import.since_ns))))
}

/// An interpreter.
pub fn interpreter<'a>(line: &'a mut Line, interpreter: &Interpreter) -> &'a mut Line {
    let version = interpreter.version.as_deref().unwrap_or("of unknown version");
    line.push(PLAIN, format!("Python {version}, {}", interpreter.executable));
    if let Some(prefix) = &interpreter.prefix {
        line.push(DIM, format!(", prefix {prefix}"));
    }
    if let Some(base) =
        interpreter.base_prefix.as_ref().filter(|base| Some(*base) != interpreter.prefix.as_ref())
    {
        line.push(DIM, format!(", made from {base}"));
    }
    let seen = match interpreter.imports {
        ImportSight::Seen => return line,
        ImportSight::Late => "; its first imports are inferred from opened files",
        ImportSight::Inferred => "; its imports are inferred from opened files",
    };
    line.push(ODD, seen);
    line.push(DIM, interpreter.why.as_ref().map_or_else(String::new, |why| format!(" ({why})")))
}

/// Versions of what was loaded.
pub fn distributions<'a>(line: &'a mut Line, distributions: &Distributions) -> &'a mut Line {
    let one = |one: &Distribution| {
        let editable = one.editable.as_ref().map_or_else(String::new, |from| format!(" (edited in {from})"));
        format!("{} {}{editable}", one.name, one.version)
    };
    let found: Vec<String> = distributions.found.iter().map(one).collect();
    line.push(DIM, format!("{}: ", distributions.site));
    line.push(PLAIN, if found.is_empty() { "no distribution in use".to_owned() } else { found.join(", ") });
    if !distributions.unclaimed.is_empty() {
        line.push(ODD, format!("; of no distribution: {}", distributions.unclaimed.join(", ")));
    }
    line.push(DIM, if distributions.complete { "" } else { " (not all looked at)" })
}

/// What was loaded when the process ended.
pub(super) fn loaded<'a>(line: &'a mut Line, loaded: &LoadedModules) -> &'a mut Line {
    let packages = loaded.names.iter().filter(|name| !name.contains('.') && !name.starts_with('_'));
    let packages: Vec<&str> = packages.map(String::as_str).collect();
    let at_least = if loaded.complete { "" } else { "at least " };
    line.push(PLAIN, format!("{at_least}{}", units::counted(loaded.names.len() as u64, "module")));
    line.push(DIM, format!(" in memory: {}", packages.join(", ")))
}

/// Modules that hide others.
pub(super) fn shadows<'a>(line: &'a mut Line, shadows: &ModuleShadows) -> &'a mut Line {
    let asked = units::counted(shadows.asked, "module");
    if shadows.hiding.is_empty() {
        line.push(DIM, format!("none of {asked} hides another"));
    }
    for (index, hiding) in shadows.hiding.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let hidden = hiding.hidden.join(", ");
        line.push(ODD, format!("{separator}{} in {} hides {hidden}", hiding.name, hiding.entry));
    }
    line.push(DIM, if shadows.complete { "" } else { " (not all looked at)" })
}
