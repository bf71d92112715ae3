//! What the service may do once it has started: what it needs, and no more. Knows capabilities; nothing of why they are needed elsewhere.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What stays. Programs and probes for interpreters that are first seen later (BPF, PERFMON); `/proc` of everybody (SYS_PTRACE); interpreters
/// that not everybody may read, a directory for a new user, and removing what lies in it (DAC_READ_SEARCH, DAC_OVERRIDE); files on an
/// owner's behalf (SETUID, SETGID: see `session::Owner`).
pub(super) const KEPT: [Capability; 7] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
];

/// Gives up the rest, for this thread, those it will start, and what it will execute. To be called while there is one thread.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_up_the_rest() -> Result<(), CapsError> {
    let kept = CapsHashSet::from(KEPT);
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        // Without CAP_SETPCAP, as in a unit that has bounded them already, there is nothing to take away.
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let permitted: CapsHashSet = caps::read(None, CapSet::Permitted)?.intersection(&kept).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    // What a hook executes gets no rights from its file.
    nix::sys::prctl::set_no_new_privs().map_err(|error| CapsError::from(error.to_string()))
}
