//! Calls that name a file, and the absolute path they mean. Follows no symbolic link and looks at no disk.

use observer_ebpf as wire;
use observer_ebpf::flag;

use super::{duration, errno, known, split, syscall, text};
use crate::event::{Body, Fd, FileCall, Known};

const AT_FDCWD: i32 = -100;

/// Components, leaf first and each ended by NUL, to an absolute path.
pub(super) fn components(tail: &[u8]) -> String {
    let mut path = String::with_capacity(tail.len() + 1);
    for part in tail.split(|byte| *byte == 0).rev().filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(part));
    }
    if path.is_empty() {
        path.push('/');
    }
    path
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
pub(super) fn too_long(path: &[u8], ret: i64) -> bool {
    const ENAMETOOLONG: i64 = 36;
    ret == -ENAMETOOLONG && path.len() >= wire::PATH_MAX - 1
}

pub(super) fn file(record: &[u8]) -> Option<Body> {
    let (call, tail) = split::<wire::FileCall>(record)?;
    let path = tail.get(..call.path_len as usize)?;
    let base = tail.get(call.path_len as usize..)?.get(..call.base_len as usize)?;
    let name = syscall(call.header.nr);
    let at = matches!(
        name.as_str(),
        "openat" | "openat2" | "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat"
    );
    let on_fd = matches!(name.as_str(), "fchdir" | "getdents" | "getdents64");
    let given = !too_long(path, call.ret);
    let path = text(path);
    let unread = path.is_empty() && call.header.flags & flag::FAULT != 0 && !on_fd;
    let whole = given && call.header.flags & flag::CUT == 0;
    let resolved = if call.has_base == 0 {
        known(normalise("", &path), given)
    } else if call.header.flags & flag::FAULT != 0 || (base.is_empty() && path.is_empty() && !on_fd) {
        // No directory could be read, or the descriptor is no file (a pipe, a socket).
        Known::unknown()
    } else {
        known(normalise(&components(base), &path), whole)
    };
    let flags = match name.as_str() {
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
        duration_ns: duration(&call.header),
        syscall: name,
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
    fn components_come_leaf_first() {
        assert_eq!(components(b"minimal_worker.py\0app\0srv\0"), "/srv/app/minimal_worker.py");
        assert_eq!(components(b""), "/");
    }

    #[test]
    fn paths_are_normalised_without_following_links() {
        assert_eq!(normalise("/srv/app", "../lib/./x.py"), "/srv/lib/x.py");
        assert_eq!(normalise("/srv/app", ""), "/srv/app");
        assert_eq!(normalise("/srv", "/usr//lib/../bin/"), "/usr/bin");
        assert_eq!(normalise("/", "../../etc"), "/etc");
        assert_eq!(normalise("/srv", "/usr/lib/x.so"), "/usr/lib/x.so");
    }
}
