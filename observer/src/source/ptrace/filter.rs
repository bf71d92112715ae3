//! A seccomp filter that stops a command at the calls which are recorded, and at no other. It stays for good: see [`Filter`].

use nix::libc::{self, sock_filter};

use super::calls;
use crate::source::launch::Filter;

/// The architecture stands behind the number (`struct seccomp_data`, include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

fn statement(code: u32, value: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Jumps when what was loaded equals `value`, by so many statements, and otherwise by so many.
fn equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { jt: then, jf: otherwise, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}

/// Calls of 32-bit programs pass: their numbers mean other calls.
pub(super) fn filter() -> Filter {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![
        statement(load, ARCHITECTURE),
        equal(super::stop::NATIVE, 1, 0),
        statement(answer, libc::SECCOMP_RET_ALLOW),
        statement(load, NUMBER),
    ];
    for number in calls::recorded() {
        program.extend([equal(number, 0, 1), statement(answer, libc::SECCOMP_RET_TRACE)]);
    }
    program.push(statement(answer, libc::SECCOMP_RET_ALLOW));
    Filter(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn answer(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 7 {
                libc::BPF_LD => loaded = if k == NUMBER { number } else { architecture },
                libc::BPF_JMP => at += usize::from(if loaded == k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[test]
    fn what_is_recorded_is_stopped_and_the_rest_passes() {
        let Filter(program) = filter();
        let ours = |number: libc::c_long| answer(&program, super::super::stop::NATIVE, number as u32);
        assert_eq!(ours(libc::SYS_openat), libc::SECCOMP_RET_TRACE);
        assert_eq!(ours(libc::SYS_sendto), libc::SECCOMP_RET_TRACE);
        assert_eq!(ours(libc::SYS_futex), libc::SECCOMP_RET_ALLOW);
        assert_eq!(ours(100_000), libc::SECCOMP_RET_ALLOW);
        assert_eq!(answer(&program, 0x4000_0003, libc::SYS_openat as u32), libc::SECCOMP_RET_ALLOW);
    }
}
