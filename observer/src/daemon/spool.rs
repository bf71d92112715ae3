//! The service's directory: whose sessions lie where, and which recordings are under way, so that they can be gone on with after a crash.
//! Knows files and plans; nothing of processes or clients.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{dispatch::Answer, plan::Plan};
use crate::session::StateDir;

/// Where the plans of what is under way are.
const RUNNING: &str = "running";

/// Whose a recording is that is being concluded, and who waits for that.
type Ending = (u32, Vec<Answer<()>>);

/// See the module. Copies are the same directory.
#[derive(Clone)]
pub(super) struct Spool {
    base: PathBuf,
    /// The group that may read all sessions.
    group: Option<u32>,
    /// Recordings that are being concluded.
    ending: Arc<Mutex<HashMap<String, Ending>>>,
}

impl Spool {
    /// Opens the directory, and makes what is missing in it.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) fn new(base: &Path, group: Option<u32>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(base)?;
        match DirBuilder::new().mode(0o700).create(base.join(RUNNING)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // While there is every right to: what is above the directories of users.
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        StateDir::service(base, own.0, own.1, group).map_err(io::Error::other)?;
        // And they themselves: the group may have come or gone since. What cannot be put right is said when it is needed.
        for uid in crate::session::service::owners(base) {
            let gid = crate::session::Owner::of(uid, uid).gid;
            if let Err(error) = StateDir::service(base, uid, gid, group) {
                tracing::warn!("{error}");
            }
        }
        Ok(Self { base: base.to_owned(), group, ending: Arc::default() })
    }

    /// The directory itself.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of a plan's owner; from now on the plan is under way.
    pub(super) fn open(&self, plan: &Plan) -> Result<StateDir, String> {
        let dir = self.dir_of(plan)?;
        let path = self.running(&plan.id);
        let json = serde_json::to_vec(plan).map_err(|error| error.to_string())?;
        let write = || {
            let aside = path.with_extension("part");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            let written = file.write_all(&json).and_then(|()| fs::rename(&aside, &path));
            if written.is_err() {
                // On a full disk even what is empty is in the way of the next look.
                let _ = fs::remove_file(&aside);
            }
            written
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(dir)
    }

    /// The directory of a plan's owner.
    pub(super) fn dir_of(&self, plan: &Plan) -> Result<StateDir, String> {
        StateDir::service(&self.base, plan.uid, plan.gid, self.group).map_err(|error| error.to_string())
    }

    /// What was under way when we were ended. What cannot be read is removed, and said.
    pub(super) fn left_over(&self) -> Vec<Plan> {
        let entries = fs::read_dir(self.base.join(RUNNING)).into_iter().flatten().flatten();
        let mut plans = Vec::new();
        for path in entries.map(|entry| entry.path()) {
            let plan = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
            match plan {
                Some(plan) => plans.push(plan),
                None => {
                    tracing::warn!("cannot read {}: what it was about is not gone on with", path.display());
                    let _ = fs::remove_file(&path);
                }
            }
        }
        plans
    }

    /// A recording is over and will be concluded; who waits for that is told by [`Spool::done`].
    pub(super) fn ends(&self, id: &str, uid: u32, waiting: Vec<Answer<()>>) {
        self.lock().insert(id.to_owned(), (uid, waiting));
    }

    /// Has somebody wait for one that is being concluded and is this user's, or root's to ask for; else gives them back.
    pub(super) fn wait(&self, id: &str, uid: u32, answer: Answer<()>) -> Option<Answer<()>> {
        match self.lock().get_mut(id) {
            Some((owner, waiting)) if uid == 0 || *owner == uid => waiting.push(answer),
            _ => return Some(answer),
        }
        None
    }

    /// It is concluded.
    pub(super) fn done(&self, id: &str) {
        let _ = fs::remove_file(self.running(id));
        let waiting = self.lock().remove(id).map(|(_, waiting)| waiting);
        for answer in waiting.into_iter().flatten() {
            let _ = answer.send(Ok(()));
        }
    }

    fn running(&self, id: &str) -> PathBuf {
        self.base.join(RUNNING).join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
