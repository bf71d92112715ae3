//! Calls that name a file, as they return: the path from the target's memory, the directory it starts from out of `/proc`.

use super::{
    calls::{Before, Call, Kind, Recorder},
    memory,
};
use crate::source::{
    call::{self, Base, Named},
    proc,
};

const AT_FDCWD: i32 = -100;

impl Recorder {
    pub(super) fn file(&self, call: &Call, ret: i64) {
        let [first, second, third, fourth, ..] = call.args;
        let mut args = [first, second, third, fourth];
        let (address, directory) = match call.kind {
            Kind::Path | Kind::Chdir => (Some(first), AT_FDCWD),
            Kind::Openat2 => {
                args[2] = memory::value(call.tid, third).map_or(0, u64::from_ne_bytes);
                (Some(second), first as i32)
            }
            Kind::AtPath => (Some(second), first as i32),
            _ => (None, first as i32),
        };
        // No address is how `statx` and its like mean the descriptor itself.
        let path = match address {
            Some(0) | None => None,
            Some(address) => memory::string(call.tid, address),
        };
        let unread = path.is_none() && address.is_some_and(|address| address != 0);
        let path = path.unwrap_or_default();
        let base = match &call.before {
            _ if path.starts_with(b"/") => Base::None,
            _ if unread => Base::Unknown,
            Before::Directory(directory) => Self::base(directory.clone()),
            _ if directory == AT_FDCWD => Self::base(proc::cwd(call.tid)),
            _ => Self::base(proc::fd_link(call.tid, directory)),
        };
        let duration_ns = call.duration_ns();
        let named = Named { nr: call.nr, ret, args, duration_ns, path: &path, unread, base };
        if let Some(body) = call::file(named) {
            self.say(call, body);
        }
    }

    /// A link of `/proc` as a directory: `None` and what is no path (`pipe:[…]`) is unknown.
    fn base(link: Option<String>) -> Base {
        match link.filter(|link| link.starts_with('/')) {
            Some(path) => {
                let path = path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned();
                Base::Is { path, whole: true }
            }
            None => Base::Unknown,
        }
    }
}
