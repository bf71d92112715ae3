//! Whether a process is one that a user may have recorded: the same rule by which the kernel lets them trace it. Knows `/proc`; nothing of
//! recordings.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::source::proc;

/// A process that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// When it was created, in clock ticks since the machine's start.
    pub(super) ticks: u64,
    /// Its command line.
    pub(super) command: Vec<String>,
}

/// Looks at a process on behalf of a user, whose it must be ([`proc::is_of`]); root's are all. While it is looked at its number cannot pass
/// to another process unnoticed: a descriptor of it is held, and asked at the end whether it lives.
///
/// # Errors
/// When it is not there or not theirs: the two are told in the same words.
pub(super) fn of_user(pid: u32, uid: u32) -> Result<Found, String> {
    let none = || format!("there is no process {pid} of yours; `ps -u \"$USER\" -f` lists them");
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(none)?;
    let descriptor = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| none())?;
    let theirs = uid == 0 || proc::is_of(pid, uid);
    let found = Found { ticks: proc::start_ticks(pid).ok_or_else(none)?, command: proc::cmdline(pid) };
    if !theirs || proc::process_of(pid) != Some(pid) {
        return Err(none());
    }
    // Readable once it has ended (`pidfd_open(2)`).
    let mut ended = [PollFd::new(&descriptor, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec::default())) {
        Ok(0) => Ok(found),
        _ => Err(none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_theirs_and_runs() {
        let own = std::process::id();
        let uid = nix::unistd::getuid().as_raw();
        let found = of_user(own, uid).unwrap();
        assert_eq!(Some(found.ticks), proc::start_ticks(own));
        assert!(!found.command.is_empty());
        let others = of_user(own, uid + 1).unwrap_err();
        let none = of_user(4_194_305, uid + 1).unwrap_err();
        assert_eq!(
            others.replace(&own.to_string(), "N"),
            none.replace("4194305", "N"),
            "no word of who it is"
        );
        assert!(of_user(0, uid).is_err() && of_user(u32::MAX, 0).is_err());
    }
}
