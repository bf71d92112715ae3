//! Calls that name a file, and the absolute path they mean. Follows no symbolic link and looks at no disk.

use super::{errno, known, name, text};
use crate::event::{Body, Fd, FileCall, Known};

const AT_FDCWD: i32 = -100;
/// Longest path, as the kernel limits it, with its NUL.
const PATH_MAX: usize = 4096;

/// The directory a relative path starts from.
pub(in crate::source) enum Base {
    /// None is needed: the path is absolute.
    None,
    /// It could not be had, or the descriptor is no file (a pipe, a socket).
    Unknown,
    /// It is this one, or one that ends so.
    Is {
        /// Absolute.
        path: String,
        /// Whether all of it is there.
        whole: bool,
    },
}

/// A call that names a file, as it returned.
pub(in crate::source) struct Named<'a> {
    pub(in crate::source) nr: u32,
    pub(in crate::source) ret: i64,
    /// The first four arguments; for `openat2` the third is the flags, fetched.
    pub(in crate::source) args: [u64; 4],
    pub(in crate::source) duration_ns: u64,
    pub(in crate::source) path: &'a [u8],
    /// Whether the path was looked for in vain.
    pub(in crate::source) unread: bool,
    pub(in crate::source) base: Base,
}

/// `base` and `path` to an absolute path without `.`, `..` and doubled slashes.
fn normalise(base: &str, path: &str) -> String {
    let clean = |path: &str| !path.contains("/.") && !path.contains("//") && !path.ends_with('/');
    if path.starts_with('/') && path.len() > 1 && clean(path) {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a path fills all the room there is and was refused for its length: then there may be more of it.
pub(in crate::source) fn too_long(path: &[u8], ret: i64) -> bool {
    const ENAMETOOLONG: i64 = 36;
    ret == -ENAMETOOLONG && path.len() >= PATH_MAX - 1
}

/// The event of such a call; `None` when it is none.
pub(in crate::source) fn file(call: Named<'_>) -> Option<Body> {
    let syscall = name(call.nr);
    let at = matches!(
        syscall.as_str(),
        "openat" | "openat2" | "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat"
    );
    let on_fd = matches!(syscall.as_str(), "fchdir" | "getdents" | "getdents64");
    let given = !too_long(call.path, call.ret);
    let path = text(call.path);
    let unread = path.is_empty() && call.unread && !on_fd;
    let resolved = match call.base {
        Base::None => known(normalise("", &path), given),
        Base::Unknown => Known::unknown(),
        Base::Is { path: base, whole } => known(normalise(&base, &path), given && whole),
    };
    let flags = match syscall.as_str() {
        "open" | "access" => call.args[1],
        "creat" => 0o1101, // O_WRONLY | O_CREAT | O_TRUNC
        "openat" | "openat2" | "statx" | "faccessat" | "faccessat2" => call.args[2],
        "newfstatat" => call.args[3],
        _ => 0,
    };
    let dirfd = call.args[0] as i32;
    let file = FileCall {
        path: if unread { Known::unknown() } else { known(path, given) },
        resolved,
        dirfd: ((at && dirfd != AT_FDCWD) || on_fd).then_some(Fd(dirfd)),
        flags,
        result: (call.ret >= 0).then_some(call.ret),
        errno: errno(call.ret),
        duration_ns: call.duration_ns,
        syscall,
    };
    Some(match file.syscall.as_str() {
        "open" | "creat" | "openat" | "openat2" => Body::Open(file),
        "stat" | "lstat" | "newfstatat" | "statx" => Body::Stat(file),
        "access" | "faccessat" | "faccessat2" => Body::Access(file),
        "readlink" | "readlinkat" => Body::Readlink(file),
        "chdir" | "fchdir" => Body::Chdir(file),
        "getdents" | "getdents64" => Body::Scan(file),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_without_following_links() {
        assert_eq!(normalise("/srv/app", "../lib/./x.py"), "/srv/lib/x.py");
        assert_eq!(normalise("/srv/app", ""), "/srv/app");
        assert_eq!(normalise("/srv", "/usr//lib/../bin/"), "/usr/bin");
        assert_eq!(normalise("/", "../../etc"), "/etc");
        assert_eq!(normalise("/srv", "/usr/lib/x.so"), "/usr/lib/x.so");
    }
}
