//! Which Python a process runs, from the program that was started: its installation and its environment, on the disk. How much is seen of
//! its imports is its source's to say.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::proc;
use crate::{
    event::{Body, Event, Exec, ImportSight, Interpreter, Origin, Pid, Tid},
    python::installed,
};

/// What a source knows of an interpreter.
pub(super) struct Sight {
    /// `3.12.1`; without the last part where only the name of the file tells.
    pub(super) version: Option<String>,
    /// How much it sees of its imports.
    pub(super) imports: ImportSight,
    /// Why it does not see all of them.
    pub(super) why: Option<String>,
}

/// The interpreter a program is, if it is one. `sight` is asked with the executable, the file that holds its code, and the root directory
/// of the process as a path of ours.
pub(super) fn of_exec(
    pid: Pid,
    exec: &Exec,
    sight: impl FnOnce(&Path, &Path, &Path) -> Sight,
) -> Option<Event> {
    let executable = PathBuf::from(exec.exe.get()?.path.get()?);
    if !installed::may_be_python(&executable.to_string_lossy()) {
        return None;
    }
    let root = root_of(pid.0);
    let holder = installed::holder(&executable, &root);
    // A script that is called python-something is none.
    let holder = holder.filter(|holder| installed::inside(&root, holder).exists())?;
    let Sight { version, imports, why } = sight(&executable, &holder, &root);
    let started = Path::new(exec.path.get()?);
    let started = exec.cwd.get().map_or_else(|| started.to_owned(), |cwd| Path::new(cwd).join(started));
    // From /proc the path is resolved already; what was typed tells the environment.
    let typed = exec.argv.get().and_then(|argv| argv.first()).map(PathBuf::from);
    let typed = typed.filter(|typed| typed.is_absolute() && typed != &started);
    let env = installed::virtual_env(&started, &root)
        .or_else(|| typed.and_then(|typed| installed::virtual_env(&typed, &root)));
    let own_prefix = || Some(executable.parent()?.parent()?.to_string_lossy().into_owned());
    let interpreter = Interpreter {
        version,
        holder: Some(holder.to_string_lossy().into_owned()),
        prefix: env.as_ref().map(|env| env.prefix.clone()).or_else(own_prefix),
        base_prefix: env.and_then(|env| env.base_prefix).or_else(own_prefix),
        imports,
        why,
        executable: executable.to_string_lossy().into_owned(),
    };
    Some(Event {
        at_ns: proc::monotonic_ns(),
        pid,
        tid: Tid(pid.0),
        observed_from: Origin::Proc,
        body: Body::Interpreter(Box::new(interpreter)),
        bytes: Vec::new(),
    })
}

/// The root directory of a process, as a path of ours.
fn root_of(pid: u32) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let same = |other: &Path| {
        let (one, two) = (fs::metadata(&root).ok()?, fs::metadata(other).ok()?);
        Some((one.dev(), one.ino()) == (two.dev(), two.ino()))
    };
    if same(Path::new("/")) == Some(false) { root } else { "/".into() }
}
