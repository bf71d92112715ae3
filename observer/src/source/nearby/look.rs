//! What the source of a module says of actors and brokers, line by line. Reads a file; keeps line numbers and module names, no text.

use std::{fs::File, io::Read};

use crate::event::SourceLook;

/// Of a file, so much is read.
const MAX_BYTES: u64 = 256 << 10;
/// Of each kind of line, so many are told.
const MAX_LINES: usize = 100;

pub(super) fn look(path: &str) -> SourceLook {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        // A pipe or a device would not end.
        if file.metadata()?.is_file() { file.take(MAX_BYTES + 1).read_to_end(&mut bytes) } else { Ok(0) }
    });
    let complete = read.is_ok_and(|len| len > 0 && len as u64 <= MAX_BYTES) || is_empty(path);
    SourceLook { path: path.to_owned(), complete, ..of(&String::from_utf8_lossy(&bytes)) }
}

fn is_empty(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0)
}

fn of(text: &str) -> SourceLook {
    let mut look = SourceLook::default();
    let mut quoted = None;
    // The line of an actor's declaration that is not closed yet, and how many brackets are open.
    let mut open: Option<(u32, i32)> = None;
    for (number, line) in (1_u32..).zip(text.lines()) {
        if skip_quoted(line, &mut quoted) {
            continue;
        }
        let code = line.split('#').next().unwrap_or_default();
        let trimmed = code.trim();
        if let Some((first, depth)) = &mut open {
            if names_broker(trimmed) {
                push(&mut look.with_broker, *first);
            }
            *depth += balance(trimmed);
            if *depth <= 0 {
                open = None;
            }
            continue;
        }
        if declares_actor(trimmed) {
            push(&mut look.actors, number);
            if names_broker(trimmed) {
                push(&mut look.with_broker, number);
            }
            let depth = balance(trimmed);
            open = (depth > 0).then_some((number, depth));
        } else if trimmed.contains("set_broker(") && !trimmed.starts_with("def ") {
            push(&mut look.set_broker, number);
            if code.starts_with([' ', '\t']) {
                push(&mut look.set_broker_later, number);
            }
        } else {
            imports(trimmed, number, &mut look.imports);
        }
    }
    look
}

/// `@dramatiq.actor`, `@actor(…)`, `@broker.actor`, `name = dramatiq.actor(function)`, `class A(dramatiq.GenericActor)`.
fn declares_actor(code: &str) -> bool {
    let decorator = code.strip_prefix('@').is_some_and(|rest| {
        let name = rest.split('(').next().unwrap_or(rest).trim();
        let last = name.rsplit('.').next().unwrap_or(name);
        last == "actor" || last.ends_with("_actor")
    });
    let call = code.contains("dramatiq.actor(") || code.contains("= actor(") || code.contains("Actor(");
    let class = code.starts_with("class ") && code.contains("GenericActor");
    decorator || class || (call && !code.starts_with("class ") && !code.starts_with("def "))
}

fn names_broker(code: &str) -> bool {
    code.contains("broker=") || code.contains("broker =")
}

fn balance(code: &str) -> i32 {
    code.chars().fold(0, |depth, c| match c {
        '(' | '[' | '{' => depth + 1,
        ')' | ']' | '}' => depth - 1,
        _ => depth,
    })
}

/// Whether a line is inside a text of several lines.
fn skip_quoted(line: &str, quoted: &mut Option<&'static str>) -> bool {
    if let Some(mark) = *quoted {
        if line.contains(mark) {
            *quoted = None;
        }
        return true;
    }
    for mark in ["\"\"\"", "'''"] {
        if line.matches(mark).count() % 2 == 1 {
            *quoted = Some(mark);
            return line.trim_start().starts_with(mark);
        }
    }
    false
}

fn imports(code: &str, number: u32, imports: &mut Vec<(u32, String)>) {
    let mut add = |name: &str| {
        if !name.is_empty() && name.len() <= 200 && imports.len() < MAX_LINES {
            imports.push((number, name.to_owned()));
        }
    };
    if let Some((module, names)) = code.strip_prefix("from ").and_then(|rest| rest.split_once(" import ")) {
        add(module.trim());
        // What is imported of a package may be a module of it.
        for name in names.trim_matches(['(', ')', ' ']).split(',') {
            let name = name.split_whitespace().next().unwrap_or_default();
            let dot = if module.trim().ends_with('.') { "" } else { "." };
            add(&format!("{}{dot}{name}", module.trim()));
        }
    } else if let Some(names) = code.strip_prefix("import ") {
        names.split(',').for_each(|name| add(name.split_whitespace().next().unwrap_or_default()));
    }
}

fn push(lines: &mut Vec<u32>, number: u32) {
    if lines.len() < MAX_LINES && lines.last() != Some(&number) {
        lines.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_and_brokers_are_found_by_line() {
        let look = of(r#"import dramatiq
from app import tasks, models as m
"""
@dramatiq.actor
"""
@dramatiq.actor
def a(): pass

@dramatiq.actor(
    max_retries=3,
    broker=other,
)
def b(): pass
# @dramatiq.actor
dramatiq.set_broker(x)
def setup():
    set_broker(y)
c = dramatiq.actor(f, queue_name="q")
"#);
        assert_eq!(look.actors, [6, 9, 18]);
        assert_eq!(look.with_broker, [9]);
        assert_eq!(look.set_broker, [15, 17]);
        assert_eq!(look.set_broker_later, [17]);
        let names: Vec<&str> = look.imports.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["dramatiq", "app", "app.tasks", "app.models"]);
    }
}
