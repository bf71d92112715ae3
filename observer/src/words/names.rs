//! Numbers of the kernel by the names people know. Knows Linux's constants and nothing else.

use nix::{errno::Errno, libc, sys::signal::Signal};

/// An error number: `ECONNREFUSED`.
pub fn errno(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("errno {number}"),
        known => format!("{known:?}"),
    }
}

/// A signal: `SIGTERM`.
pub fn signal(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |known| known.as_str().to_owned())
}

/// A name server's answer (RFC 1035, 4.1.1): `NXDOMAIN`.
pub fn name_server_code(code: u8) -> String {
    match code {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("RCODE {code}"),
    }
}

/// The flags of `open`: `O_RDONLY|O_CLOEXEC`; what has no name is added in hexadecimal.
pub fn open_flags(flags: u64) -> String {
    // O_TMPFILE contains O_DIRECTORY's bit and O_SYNC contains O_DSYNC's: the larger one first.
    const FLAGS: [(i32, &str); 15] = [
        (libc::O_TMPFILE, "O_TMPFILE"),
        (libc::O_SYNC, "O_SYNC"),
        (libc::O_CREAT, "O_CREAT"),
        (libc::O_EXCL, "O_EXCL"),
        (libc::O_NOCTTY, "O_NOCTTY"),
        (libc::O_TRUNC, "O_TRUNC"),
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_DSYNC, "O_DSYNC"),
        (libc::O_DIRECT, "O_DIRECT"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_NOATIME, "O_NOATIME"),
        (libc::O_CLOEXEC, "O_CLOEXEC"),
        (libc::O_PATH, "O_PATH"),
    ];
    let mut rest = flags & !3;
    let mut text = match flags & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    }
    .to_owned();
    for (bits, name) in FLAGS {
        let bits = u64::from(bits.unsigned_abs());
        if rest & bits == bits {
            rest &= !bits;
            text.push('|');
            text.push_str(name);
        }
    }
    if rest != 0 {
        text.push_str(&format!("|{rest:#x}"));
    }
    text
}

/// An address family: `AF_INET`.
pub fn family(number: u32) -> String {
    match i32::try_from(number) {
        Ok(libc::AF_UNIX) => "AF_UNIX".to_owned(),
        Ok(libc::AF_INET) => "AF_INET".to_owned(),
        Ok(libc::AF_INET6) => "AF_INET6".to_owned(),
        Ok(libc::AF_NETLINK) => "AF_NETLINK".to_owned(),
        Ok(libc::AF_PACKET) => "AF_PACKET".to_owned(),
        _ => format!("address family {number}"),
    }
}

/// A socket type: `SOCK_STREAM`.
pub fn socket_type(number: u32) -> String {
    match i32::try_from(number) {
        Ok(libc::SOCK_STREAM) => "SOCK_STREAM".to_owned(),
        Ok(libc::SOCK_DGRAM) => "SOCK_DGRAM".to_owned(),
        Ok(libc::SOCK_RAW) => "SOCK_RAW".to_owned(),
        Ok(libc::SOCK_SEQPACKET) => "SOCK_SEQPACKET".to_owned(),
        _ => format!("socket type {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_names() {
        assert_eq!(errno(111), "ECONNREFUSED");
        assert_eq!(errno(9999), "errno 9999");
        assert_eq!(signal(15), "SIGTERM");
        assert_eq!(signal(40), "signal 40");
        assert_eq!(open_flags(0o2000000), "O_RDONLY|O_CLOEXEC");
        assert_eq!(open_flags(0o101), "O_WRONLY|O_CREAT");
        assert_eq!(open_flags(1 << 40), "O_RDONLY|0x10000000000");
        assert_eq!(family(2), "AF_INET");
    }
}
