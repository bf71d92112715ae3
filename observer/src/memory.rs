//! Keeps what the program holds small. Knows the allocator, and nothing of what memory is for.
#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrapper")]

/// Lets all threads take from one heap. Events are made by one thread and kept or dropped by another: with a heap for each, the one fills up
/// with what the other cannot use (50 MB in 200 for an export, 20 in 40 for the service; glibc 2.36). Elsewhere than with glibc it does
/// nothing.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number, under the allocator's own lock.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Gives what is free in the heap back to the system: of itself the allocator does so at the heap's end only. For who works by fits and
/// starts and runs for long. Elsewhere than with glibc it does nothing.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it looks at nothing but the allocator's own lists, under its own lock.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
