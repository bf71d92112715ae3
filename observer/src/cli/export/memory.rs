//! Keeps what an export holds small. Knows the allocator, and nothing of exports.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// Lets all threads take from one heap. Events are made by the thread that reads ahead and kept or dropped by another: with a heap for each,
/// the one fills up with what the other cannot use (50 MB in 200, glibc 2.36). Elsewhere than with glibc it does nothing.
pub(super) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number, under the allocator's own lock.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}
