//! What an interpreter has loaded when its process ends: the names in `sys.modules`, from its memory. It reads what stands still, at the one
//! stop before the memory is given back.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use procfs::process::{MMapPath, Process};

use super::memory;
use crate::{
    event::LoadedModules,
    python::{entrance::Entrance, layout::Layout, registry},
};

/// Where an interpreter keeps what it knows.
#[derive(Clone, Copy)]
struct Place {
    /// The inode of the file that holds its code.
    holder: u64,
    /// `_PyRuntime`, behind the beginning of that file in memory.
    runtime: u64,
    layout: Layout,
}

/// Interpreters that were looked at, by device and inode of their executables.
#[derive(Default)]
pub(super) struct Interpreters(Mutex<HashMap<(u64, u64), Place>>);

impl Interpreters {
    /// Keeps what was found out about the interpreter of an executable.
    pub(super) fn learn(&self, executable: &Path, holder: &Path, found: &Entrance) {
        let (Some(runtime), Ok(executable), Ok(holder)) =
            (found.runtime, fs::metadata(executable), fs::metadata(holder))
        else {
            return;
        };
        let place = Place { holder: holder.ino(), runtime, layout: found.layout };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((executable.dev(), executable.ino()), place);
    }

    /// What a process has loaded that stands still; `None` where it is no interpreter that is known, or has put its modules away.
    pub(super) fn loaded(&self, pid: u32) -> Option<LoadedModules> {
        let executable = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let place = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *known.get(&(executable.dev(), executable.ino()))?
        };
        let maps = Process::new(pid.cast_signed()).and_then(|process| process.maps()).ok()?;
        let image = maps.into_iter().find(|map| {
            map.offset == 0 && map.inode == place.holder && matches!(map.pathname, MMapPath::Path(_))
        })?;
        let read = |ranges: &[memory::Range]| {
            let wanted: u64 = ranges.iter().map(|(_, length)| length).sum();
            let bytes = memory::ranges(pid, ranges, wanted);
            (bytes.len() as u64 == wanted).then_some(bytes)
        };
        let found = registry::loaded(&place.layout, image.address.0 + place.runtime, &read)?;
        Some(LoadedModules { names: found.names, complete: found.complete })
    }
}
