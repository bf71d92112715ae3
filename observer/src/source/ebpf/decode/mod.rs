//! Records to domain events. Every length is checked and every kind looked up; what does not fit is counted, never guessed. It keeps
//! no state but the programs whose arguments are still on their way, and which sockets lead to a name server.

mod file;
mod import;
mod program;
mod socket;

use std::collections::HashMap;

use observer_ebpf as wire;
use observer_ebpf::{flag, kind};
use program::Waiting;
use syscalls::Sysno;
use zerocopy::FromBytes;

use crate::{
    event::{Body, Direction, Event, Fd, Known, Origin, OutputStream, Pid, Sender, SocketId, Tid},
    source::{
        call::{self, NameServers, c_text, errno, known, status, text},
        proc,
    },
};

/// Decodes one source's records.
#[derive(Default)]
pub(super) struct Decoder {
    waiting: HashMap<u32, Waiting>,
    /// Records that could not be decoded since last asked, by kind.
    pub(super) undecodable: HashMap<&'static str, u64>,
    pipes: proc::PipeHolders,
    name_servers: NameServers,
    imports: import::Stacks,
}

/// A copy, because a record stands at any address.
fn split<T: FromBytes>(record: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(record).ok()
}

impl Decoder {
    /// Decodes one record and appends what it says.
    pub(super) fn record(&mut self, record: &[u8], out: &mut Vec<Event>) {
        let Some((header, _)) = split::<wire::Header>(record) else {
            *self.undecodable.entry("unknown").or_default() += 1;
            return;
        };
        let name = kind::NAMES.get(usize::from(header.kind)).copied().unwrap_or("unknown");
        if self.body(&header, record, out).is_none() {
            *self.undecodable.entry(name).or_default() += 1;
        }
    }

    fn body(&mut self, header: &wire::Header, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        if matches!(header.kind, kind::EXEC | kind::EXIT | kind::IMPORT_END) {
            self.imports.settle(header.tid, out);
        }
        let mut event = |body| {
            out.push(Event {
                at_ns: header.at_ns,
                pid: Pid(header.tgid),
                tid: Tid(header.tid),
                observed_from: Origin::Ebpf,
                body,
                bytes: Vec::new(),
            });
        };
        match header.kind {
            kind::FORK => {
                let (fork, _) = split::<wire::Fork>(record)?;
                self.imports.fork(header.tid, &fork);
                event(if header.flags & flag::THREAD == 0 {
                    Body::Fork { child: Pid(fork.child_tgid) }
                } else {
                    Body::Thread { child: Tid(fork.child_tid) }
                });
            }
            kind::EXEC => {
                self.imports.forget(header.tid);
                self.imports.forget_process(header.tgid);
                self.exec(record, out)?;
            }
            kind::ARGS => self.arguments(record, out)?,
            kind::EXEC_FAILED => {
                let (call, tail) = split::<wire::FileCall>(record)?;
                let path = tail.get(..call.path_len as usize)?;
                let path = if header.flags & flag::FAULT != 0 && path.is_empty() {
                    Known::unknown()
                } else {
                    known(text(path), !call::too_long(path, call.ret))
                };
                event(Body::ExecFailed { path, errno: errno(call.ret) });
            }
            kind::EXIT => {
                let (exit, _) = split::<wire::Exit>(record)?;
                self.imports.forget(header.tid);
                if exit.last != 0 {
                    self.imports.forget_process(header.tgid);
                    let (code, signal, core_dumped) = status(exit.group_code);
                    event(Body::Exit { code, signal, core_dumped });
                } else {
                    let (code, signal, _) = status(exit.code);
                    event(Body::ThreadExit { code, signal });
                }
            }
            kind::EXIT_CALL => {
                let (call, _) = split::<wire::ExitCall>(record)?;
                let group = Sysno::new(header.nr as usize) == Some(Sysno::exit_group);
                event(Body::ExitCall { code: call.code as i32, group });
            }
            kind::SIGNAL => event(signal(&split::<wire::Signal>(record)?.0)),
            kind::DELIVER => {
                let (deliver, _) = split::<wire::Deliver>(record)?;
                // The kernel ends the other threads of a process by SIGKILL, whether it was `exit_group` or a deadly signal (6.1,
                // kernel/signal.c, get_signal): nobody sent that one, and what ended the process is in its `Exit`.
                if deliver.signal != nix::libc::SIGKILL {
                    event(Body::SignalDelivered { signal: deliver.signal, handled: deliver.handled != 0 });
                }
            }
            kind::OOM => event(Body::OomVictim),
            kind::FILE => event(file::file(record)?),
            kind::SOCKET => {
                let body = socket::socket(&split::<wire::SocketCall>(record)?.0)?;
                self.name_servers.see(&body);
                event(body);
            }
            kind::SOCKET_STATE => {
                if let Some(body) = socket::socket_state(&split::<wire::SocketState>(record)?.0) {
                    event(body);
                }
            }
            kind::DATA | kind::OUTPUT => {
                data(record, out)?;
                if let Some(event) = out.pop() {
                    out.extend(self.name_servers.lookup(event));
                }
            }
            kind::IMPORT_CALL => self.imports.call(&split::<wire::ImportStart>(record)?.0, out),
            kind::IMPORT_START => event(self.imports.start(&split::<wire::ImportStart>(record)?.0)),
            kind::IMPORT_END => {
                if let Some(body) = self.imports.end(&split::<wire::ImportEnd>(record)?.0) {
                    event(body);
                }
            }
            kind::SLOW => {
                let (slow, _) = split::<wire::Slow>(record)?;
                let body = Body::Unstuck {
                    syscall: call::name(header.nr),
                    since_ns: header.enter_ns,
                    result: slow.ret,
                };
                event(body);
            }
            _ => return None,
        }
        Some(())
    }
}

fn signal(signal: &wire::Signal) -> Body {
    let len = (signal.cmdline_len as usize).min(wire::CMDLINE_MAX);
    let cmdline = text(signal.cmdline[..len].trim_ascii_end()).replace('\0', " ").trim_end().to_owned();
    let sender = if signal.sender == 0 {
        Known::none()
    } else {
        let cmdline = match (cmdline.is_empty(), len == wire::CMDLINE_MAX) {
            (true, _) => Known::unknown(),
            (false, cut) => known(cmdline, !cut),
        };
        Known::Is(Sender { pid: Pid(signal.sender), name: c_text(&signal.comm), cmdline })
    };
    Body::Signal {
        signal: signal.signal,
        code: signal.code,
        sender,
        group: signal.group != 0,
        queued: signal.result == 0,
    }
}

fn duration(header: &wire::Header) -> u64 {
    if header.enter_ns == 0 { 0 } else { header.at_ns.saturating_sub(header.enter_ns) }
}

fn data(record: &[u8], out: &mut Vec<Event>) -> Option<()> {
    let (data, tail) = split::<wire::Data>(record)?;
    let bytes = tail.get(..data.captured as usize)?.to_vec();
    let fd = Fd(data.fd);
    let body = if data.header.kind == kind::OUTPUT {
        let stream = match data.fd {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => OutputStream::Pipe,
        };
        Body::Output {
            stream,
            fd,
            inode: data.inode,
            len: data.len,
            piece_offset: data.offset,
            errno: data.errno as i32,
        }
    } else {
        let sent = data.header.flags & flag::SENT != 0;
        Body::Data {
            socket: SocketId(data.inode),
            fd,
            direction: if sent { Direction::Sent } else { Direction::Received },
            offset: data.offset,
            len: data.len,
            syscall: call::name(data.header.nr),
            errno: data.errno as i32,
            since_attach: data.header.flags & flag::SINCE_ATTACH != 0,
            redacted: Vec::new(),
        }
    };
    out.push(Event {
        at_ns: data.header.at_ns,
        pid: Pid(data.header.tgid),
        tid: Tid(data.header.tid),
        observed_from: Origin::Ebpf,
        body,
        bytes,
    });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_counted_and_gives_nothing() {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for len in 0..2048 {
            for fill in [0, 1, 2, 10, 0x7f, 0xff] {
                decoder.record(&vec![fill; len], &mut out);
            }
        }
        assert!(decoder.undecodable.values().sum::<u64>() > 0);
    }
}
