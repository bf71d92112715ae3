//! Records of calls that name a file, and directories as the kernel keeps them.

use observer_ebpf as wire;
use observer_ebpf::flag;

use super::{duration, split};
use crate::{
    event::Body,
    source::call::{self, Base, Named},
};

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

pub(super) fn file(record: &[u8]) -> Option<Body> {
    let (call, tail) = split::<wire::FileCall>(record)?;
    let path = tail.get(..call.path_len as usize)?;
    let base = tail.get(call.path_len as usize..)?.get(..call.base_len as usize)?;
    let on_fd = matches!(call::name(call.header.nr).as_str(), "fchdir" | "getdents" | "getdents64");
    let fault = call.header.flags & flag::FAULT != 0;
    let base = if call.has_base == 0 {
        Base::None
    } else if fault || (base.is_empty() && path.is_empty() && !on_fd) {
        Base::Unknown
    } else {
        Base::Is { path: components(base), whole: call.header.flags & flag::CUT == 0 }
    };
    call::file(Named {
        nr: call.header.nr,
        ret: call.ret,
        args: call.args,
        duration_ns: duration(&call.header),
        path,
        unread: fault,
        base,
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
}
