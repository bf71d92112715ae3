//! Where the lab keeps what is slow to make: virtual environments and build tools. It knows nothing of what is in them.

use std::path::PathBuf;

/// The lab's folder: `$OBSERVER_CACHE`, else `$XDG_CACHE_HOME/observer`, else `~/.cache/observer`.
///
/// Set `OBSERVER_CACHE` where another user must read it: `/root` is usually closed to them.
pub fn dir() -> PathBuf {
    if let Some(dir) = set("OBSERVER_CACHE") {
        return dir;
    }
    if let Some(dir) = set("XDG_CACHE_HOME") {
        return dir.join("observer");
    }
    set("HOME").unwrap_or_else(|| PathBuf::from("/root")).join(".cache/observer")
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
