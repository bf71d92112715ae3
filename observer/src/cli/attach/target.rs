//! What to observe, from what was asked: a command to start as whom, or one running process. Knows `/proc` and the user database.

use std::{
    ffi::{CString, OsString},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    sys::{resource::Resource, signal::kill},
    unistd::{Pid as UnixPid, User},
};

use super::Args;
use crate::{
    cli::printable,
    event::Pid,
    session::Invoker,
    source::{
        launch::{Command, Standing},
        proc,
    },
    words,
};

/// What is to be observed.
pub(super) enum Target {
    /// A command to start.
    Start(Command),
    /// A process that runs already.
    Running {
        /// The root of the tree.
        pid: Pid,
        /// Its command line.
        command: Vec<String>,
    },
}

/// Several matches are listed up to here.
const LISTED: usize = 10;

impl Target {
    pub(super) fn from_args(args: &Args, invoker: &Invoker) -> anyhow::Result<Self> {
        if let Some(wanted) = &args.pid {
            return running(wanted);
        }
        let words = match &args.cmd {
            Some(line) => shlex::split(line).with_context(|| {
                format!(
                    "cannot split --cmd {line:?} into words: a quote is not closed, or it ends in a backslash; close it, or give the \
                     words after --: observer attach -- python -m dramatiq MODULE"
                )
            })?
            .into_iter()
            .map(OsString::from)
            .collect(),
            None => args.words.clone(),
        };
        if words.first().is_none_or(|word| word.is_empty()) {
            bail!(
                "nothing to observe: give a command (observer attach --cmd \"python -m dramatiq MODULE\") or a running process (--pid PID)"
            );
        }
        let environment = args.environment.as_deref().map(environment).transpose()?;
        Ok(Self::Start(Command {
            words,
            standing: standing(args.user.as_deref(), invoker)?,
            environment,
            umask: args.umask,
            limits: args.limits.clone(),
        }))
    }

    /// The command line.
    pub(super) fn command(&self) -> Vec<String> {
        match self {
            Self::Start(command) => {
                command.words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
            }
            Self::Running { command, .. } => command.clone(),
        }
    }

    /// The process, when it was running already.
    pub(super) const fn attached(&self) -> Option<Pid> {
        match self {
            Self::Start(_) => None,
            Self::Running { pid, .. } => Some(*pid),
        }
    }
}

/// A soft limit, `NOFILE=64`: the name as `prlimit` prints it.
pub(super) fn limit(text: &str) -> Result<(Resource, u64), String> {
    let (name, soft) = text.split_once('=').ok_or("write NAME=SOFT")?;
    let resource = match name {
        "CPU" => Resource::RLIMIT_CPU,
        "FSIZE" => Resource::RLIMIT_FSIZE,
        "DATA" => Resource::RLIMIT_DATA,
        "STACK" => Resource::RLIMIT_STACK,
        "CORE" => Resource::RLIMIT_CORE,
        "RSS" => Resource::RLIMIT_RSS,
        "NPROC" => Resource::RLIMIT_NPROC,
        "NOFILE" => Resource::RLIMIT_NOFILE,
        "MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "AS" => Resource::RLIMIT_AS,
        "LOCKS" => Resource::RLIMIT_LOCKS,
        "SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "NICE" => Resource::RLIMIT_NICE,
        "RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RTTIME" => Resource::RLIMIT_RTTIME,
        _ => return Err("no such limit; see prlimit".to_owned()),
    };
    let soft = soft.parse().map_err(|_| "the limit is no number".to_owned())?;
    Ok((resource, soft))
}

/// The environment in a file: `NAME=value` strings, each ended by NUL, as in `/proc/PID/environ`.
fn environment(file: &Path) -> anyhow::Result<Vec<CString>> {
    let bytes =
        std::fs::read(file).with_context(|| format!("cannot read the environment in {}", file.display()))?;
    let strings = bytes.split(|byte| *byte == 0).filter(|string| !string.is_empty());
    Ok(strings.filter_map(|string| CString::new(string).ok()).collect())
}

/// Whom to run as: `--user`, else whoever called sudo, else as we are.
fn standing(user: Option<&str>, invoker: &Invoker) -> anyhow::Result<Option<Standing>> {
    let invoker = match user {
        None if !invoker.through_sudo => return Ok(None),
        None => invoker.clone(),
        Some(wanted) => {
            if !nix::unistd::geteuid().is_root() {
                bail!("cannot run the command as {wanted}: only root can; use sudo, or leave out --user");
            }
            let entry = match wanted.parse() {
                Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
                Err(_) => User::from_name(wanted),
            };
            let entry = entry.with_context(|| format!("cannot look up user {wanted}"))?;
            let entry = entry.with_context(|| format!("no such user: {wanted}; see `getent passwd`"))?;
            Invoker::of(&entry)
        }
    };
    let home = invoker.home.to_string_lossy().into_owned();
    let identity = vec![
        ("HOME".to_owned(), home),
        ("USER".to_owned(), invoker.name.clone()),
        ("LOGNAME".to_owned(), invoker.name),
    ];
    // For another user than the caller, the caller's environment would be the wrong one.
    let before_sudo = if user.is_none() { proc::environment_before_sudo() } else { None };
    Ok(Some(Standing { uid: invoker.uid, gid: invoker.gid, groups: invoker.groups, before_sudo, identity }))
}

/// The process with this id, or the root of the one tree whose command line contains these words.
fn running(wanted: &str) -> anyhow::Result<Target> {
    if let Ok(pid) = wanted.parse::<u32>() {
        if proc::parent(pid).is_none() {
            // EPERM, or that it could be sent a signal, says that it is there.
            if i32::try_from(pid).is_ok_and(|pid| kill(UnixPid::from_raw(pid), None) != Err(Errno::ESRCH)) {
                bail!(
                    "cannot attach to process {pid}: /proc does not show it to us (mounted with hidepid); use sudo"
                );
            }
            bail!("cannot attach to process {pid}: no such process; find it with `pgrep -af dramatiq`");
        }
        if proc::process_of(pid) != Some(pid) {
            bail!(
                "cannot attach to {pid}: it is a thread of process {}; attach to that",
                proc::process_of(pid).unwrap_or_default()
            );
        }
        return target(pid);
    }
    let ours = std::process::id();
    let is_ours = |pid: u32| {
        // sudo and the shell that carry our own command line match every word of it.
        let mut next = Some(ours);
        std::iter::from_fn(|| {
            let pid = next?;
            next = proc::parent(pid).filter(|parent| *parent != 0);
            Some(pid)
        })
        .any(|ancestor| ancestor == pid)
    };
    let mut found: Vec<u32> = proc::all_pids()
        .into_iter()
        .filter(|pid| proc::cmdline(*pid).join(" ").contains(wanted) && !is_ours(*pid))
        .collect();
    found.sort_unstable();
    let roots: Vec<u32> = found
        .iter()
        .copied()
        .filter(|pid| proc::parent(*pid).is_none_or(|parent| !found.contains(&parent)))
        .collect();
    match roots.as_slice() {
        [] => bail!("cannot attach: no process has {wanted:?} in its command line; see `ps -ef`"),
        [pid] => target(*pid),
        several => {
            let mut text = format!(
                "cannot attach: {} processes have {wanted:?} in their command lines:\n",
                several.len()
            );
            for pid in several.iter().take(LISTED) {
                let _ = writeln!(text, "  {pid:>7}  {}", printable(&proc::cmdline(*pid).join(" ")));
            }
            if several.len() > LISTED {
                let _ = writeln!(text, "  and {} more", several.len() - LISTED);
            }
            text.push_str("say which: observer attach --pid PID");
            bail!(text)
        }
    }
}

fn target(pid: u32) -> anyhow::Result<Target> {
    let command = proc::cmdline(pid);
    if command.is_empty() {
        bail!("cannot attach to process {pid}: it has no command line (a kernel thread, or it has ended)");
    }
    tracing::debug!(pid, command = words::command(&command), "attaching");
    Ok(Target::Running { pid: Pid(pid), command })
}
