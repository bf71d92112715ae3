//! Which interpreters are probed for their imports, since when, and what of a process's imports cannot be seen. Knows installations and
//! where their entrances are; nothing of what the probes tell.
//!
//! A probe stands in a file, for whoever maps it: so the interpreters a command may start are probed before it runs, and nothing of its
//! start is missed. An interpreter nobody expected is probed when it is executed; by then its first imports are over.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use super::programs::Programs;
use crate::{
    event::{Event, Exec, ImportSight},
    python::{
        entrance::{self, Entrance},
        installed::{self, Start},
    },
    source::{
        interpreter::{self, Sight},
        proc,
    },
};

/// Interpreters probed before a command runs: each costs tens of milliseconds. Letting go of a probe takes the kernel a tenth of a second,
/// one after the other (Linux 6.18), and after the command's end.
const MOST_AHEAD: usize = 6;
/// Interpreters probed in one observation.
const MOST: usize = 64;

/// What is known of the files that hold interpreters.
#[derive(Default)]
pub(super) struct Interpreters {
    /// With the time of their last change: a file may be written over.
    holders: HashMap<(u64, u64, i64), Holder>,
    /// How many are probed.
    probed: u32,
}

struct Holder {
    version: Option<String>,
    /// Where it imports, or why that is not known.
    entrance: Result<Entrance, String>,
    /// Since when it is probed, or why it is not; `None` when its probes were let go of.
    probed: Option<Result<u64, String>>,
}

impl Interpreters {
    /// Probes what a command may start.
    pub(super) fn expect(&mut self, programs: &mut Programs, start: &Start) {
        let root = Path::new("/");
        for executable in start.interpreters() {
            if self.holders.len() >= MOST_AHEAD {
                return;
            }
            if let Some(holder) = installed::holder(&executable, root) {
                self.probe(programs, &executable, &holder, root);
            }
        }
    }

    /// A program was started: when it is Python, which, and how much will be seen of its imports.
    pub(super) fn started(&mut self, programs: &mut Programs, event: &Event, exec: &Exec) -> Option<Event> {
        interpreter::of_exec(event.pid, exec, |executable, holder, root| {
            let known = self.probe(programs, executable, holder, root);
            let (imports, why) = match known.and_then(|holder| holder.probed.as_ref()) {
                Some(Ok(since_ns)) if *since_ns <= event.at_ns => (ImportSight::Seen, None),
                Some(Ok(_)) => {
                    let why = "the interpreter was not expected, or ran already, and was probed only then";
                    (ImportSight::Late, Some(why.to_owned()))
                }
                Some(Err(why)) => (ImportSight::Inferred, Some(why.clone())),
                None => (ImportSight::Inferred, Some(format!("more than {MOST} interpreters"))),
            };
            Sight { version: known.and_then(|holder| holder.version.clone()), imports, why }
        })
    }

    /// All probes were let go of: each is taken again when it is needed.
    pub(super) fn rest(&mut self) {
        self.probed = 0;
        if self.holders.len() >= MOST {
            self.holders.clear();
        }
        for holder in self.holders.values_mut() {
            holder.probed = None;
        }
    }

    fn probe(
        &mut self,
        programs: &mut Programs,
        executable: &Path,
        holder: &Path,
        root: &Path,
    ) -> Option<&Holder> {
        let file = installed::inside(root, holder);
        let meta = fs::metadata(&file).ok()?;
        let key = (meta.dev(), meta.ino(), meta.mtime());
        if !self.holders.contains_key(&key) {
            if self.holders.len() >= MOST {
                return None;
            }
            self.holders.insert(key, look(executable, &file));
        }
        let holder = self.holders.get_mut(&key)?;
        if holder.probed.is_none() {
            holder.probed = Some(match &holder.entrance {
                Ok(entrance) => {
                    let slot = self.probed;
                    self.probed += 1;
                    programs.probe_imports(slot, &file, entrance).map(|()| proc::monotonic_ns())
                }
                Err(why) => Err(why.clone()),
            });
        }
        Some(holder)
    }
}

/// What a file says of itself.
fn look(executable: &Path, file: &Path) -> Holder {
    let name = |path: &Path| path.file_name().and_then(|name| installed::minor_in(&name.to_string_lossy()));
    let minor = name(file).or_else(|| name(executable));
    let by_name = || minor.map(|minor| format!("3.{minor}"));
    match entrance::find(file, minor) {
        Ok(entrance) => {
            let version = entrance.version.clone().or_else(by_name);
            Holder { version, entrance: Ok(entrance), probed: None }
        }
        Err(why) => {
            let text = format!("cannot find where {} imports: {why}", file.display());
            Holder { version: by_name(), entrance: Err(text), probed: None }
        }
    }
}

/// Offsets as the programs take them.
pub(super) fn wire(entrance: &Entrance) -> observer_ebpf::Python {
    let layout = entrance.layout;
    observer_ebpf::Python {
        frame: layout.frame,
        inner: layout.inner.unwrap_or(0),
        has_inner: u32::from(layout.inner.is_some()),
        code: layout.code,
        filename: layout.filename.unwrap_or(0),
        name: layout.name,
        ascii: layout.ascii,
        compact: layout.compact,
        interned_bits: layout.interned_bits,
        exception: layout.exception.unwrap_or(0),
        exception_is_type: u32::from(layout.exception_is_type),
        pad: 0,
    }
}
