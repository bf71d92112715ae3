//! What was found on disk of modules, in one line. Knows events and styles.

use super::style::{Line, ODD, PLAIN};
use crate::{
    event::{FileLook, ModuleSearch, SourceLook},
    words::units,
};

/// Where a module is.
pub(super) fn search<'a>(line: &'a mut Line, search: &ModuleSearch) -> &'a mut Line {
    line.push(PLAIN, format!("{}: ", search.name));
    match search.near.as_slice() {
        [] => line.push(PLAIN, format!("not near by ({} looked at)", units::counted(search.entries, "name"))),
        near => {
            let paths: Vec<&str> = near.iter().map(|near| near.path.as_str()).collect();
            line.push(ODD, format!("found {}", paths.join(", ")))
        }
    };
    if let Some(installed) = &search.installed {
        line.push(PLAIN, format!("; installed: {installed}"));
    }
    if !search.absent.is_empty() {
        line.push(ODD, format!("; not there: {}", search.absent.join(", ")));
    }
    line.push(PLAIN, if search.complete { "" } else { " (search cut short)" })
}

/// What a source says of actors and brokers.
pub(super) fn look<'a>(line: &'a mut Line, look: &SourceLook) -> &'a mut Line {
    let numbers = |lines: &[u32]| lines.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    line.push(PLAIN, format!("{}: ", look.path));
    line.push(
        PLAIN,
        match look.actors.as_slice() {
            [] => "no actor".to_owned(),
            lines => format!("actors in line {}", numbers(lines)),
        },
    );
    if !look.set_broker.is_empty() {
        line.push(PLAIN, format!(", set_broker in line {}", numbers(&look.set_broker)));
    }
    line
}

/// What a text was that was read.
pub(super) fn text<'a>(line: &'a mut Line, look: &FileLook) -> &'a mut Line {
    line.push(PLAIN, format!("{}: {}", look.path, units::size(look.len_bytes)));
    if let Some(digest) = &look.digest {
        line.push(PLAIN, format!(", content {digest}"));
    }
    let names: Vec<&str> = look.variables.iter().map(|(_, name)| name.as_str()).collect();
    line.push(PLAIN, if names.is_empty() { String::new() } else { format!(", names {}", names.join(", ")) })
}
