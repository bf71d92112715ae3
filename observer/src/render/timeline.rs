//! One line an event. Knows events and their words; nothing of sessions or of what events mean together.

use crate::{
    event::{
        Absence, Address, Body, Direction, Disconnect, Event, Exec, FdKind, FdTarget, FileCall, Hop, Known,
        NoteLevel, Origin, OutputStream, Sender, Tid,
    },
    render::{
        broker, disk, modules,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN},
    },
    words::{self, escape, names, units},
};

/// Of recorded stream data, this many bytes are shown; of output, more.
const DATA_PREVIEW_BYTES: usize = 48;
const OUTPUT_PREVIEW_BYTES: usize = 400;
const EINPROGRESS: i32 = 115;

/// An event as a line: when (seconds since the start), process and thread, what.
pub fn line(event: &Event, started_ns: u64) -> Line {
    let mut line = Line::new();
    line.push(DIM, format!("{:>12} ", units::moment(event.at_ns, started_ns)));
    let who = match (event.pid.0, event.tid) {
        (0, _) => "-".to_owned(),
        (pid, Tid(tid)) if tid == 0 || tid == pid => pid.to_string(),
        (pid, tid) => format!("{pid}/{tid}"),
    };
    line.push(NAME, format!(" {who:<15} "));
    let word = event.body.file_call().map_or(event.body.kind(), |call| call.syscall.as_str());
    line.push(PLAIN, format!("{word:<10} "));
    line.append(what(event));
    line
}

/// What an event says, without when, who and its kind.
pub fn what(event: &Event) -> Line {
    let mut line = Line::new();
    describe(&mut line, event);
    if event.observed_from == Origin::Proc {
        line.push(DIM, " (from /proc: it was so when we looked)");
    }
    line
}

/// The environment a program was started with, a line a variable; empty for other events.
pub fn environment(event: &Event) -> Vec<Line> {
    let Body::Exec(exec) = &event.body else { return Vec::new() };
    let indent = " ".repeat(41);
    match exec.env.get() {
        Some(variables) => {
            variables.iter().map(|variable| Line::new().with(DIM, &indent).with(PLAIN, variable)).collect()
        }
        None => vec![Line::new().with(DIM, format!("{indent}environment {}", why_absent(&exec.env)))],
    }
}

fn describe(line: &mut Line, event: &Event) {
    match &event.body {
        Body::Fork { child } => line.push(PLAIN, format!("process {child}")),
        Body::Thread { child } => line.push(PLAIN, format!("thread {child}")),
        Body::Exec(exec) => describe_exec(line, exec),
        Body::ExecFailed { path, errno } => {
            line.push(PLAIN, quoted(path));
            result(line, *errno, "")
        }
        Body::ExitCall { code, group } => line.push(
            PLAIN,
            if *group { format!("whole process, {code}") } else { format!("this thread, {code}") },
        ),
        Body::ThreadExit { code, signal } => ended(line, *code, *signal),
        Body::Exit { code, signal, core_dumped } => {
            ended(line, *code, *signal);
            line.push(BAD, if *core_dumped { ", core dumped" } else { "" })
        }
        Body::Signal { signal, code, sender, group, queued } => {
            let to = if *group { "process" } else { "thread" };
            line.push(ODD, names::signal(*signal))
                .push(PLAIN, format!(" to the {to} from {}", sender_text(sender, *code)));
            line.push(DIM, if *queued { "" } else { " (ignored or already pending)" })
        }
        Body::SignalDelivered { signal, handled } => {
            let how = if *handled { " to the program's handler" } else { ": default action" };
            line.push(PLAIN, names::signal(*signal)).push(PLAIN, how)
        }
        Body::OomVictim => line.push(BAD, "chosen by the kernel's out-of-memory killer"),
        body @ (Body::Open(call)
        | Body::Stat(call)
        | Body::Access(call)
        | Body::Readlink(call)
        | Body::Scan(call)
        | Body::Chdir(call)) => describe_file(line, call, matches!(body, Body::Open(_))),
        Body::Lost { hop, what, cpu, count } => {
            let cpu = cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
            line.push(
                BAD,
                format!("{} of {what} at the {}{cpu}", units::counted(*count, "event"), hop_text(*hop)),
            )
        }
        Body::Gap { since_ns, gone, why } => line.push(BAD, words::gap(*since_ns, event.at_ns, gone, why)),
        Body::Note { level, text } => line.push(level_style(*level), text),
        Body::ModuleSearch(search) => disk::search(line, search),
        Body::SourceLook(look) => disk::look(line, look),
        Body::FileLook(look) => disk::text(line, look),
        Body::Import(import) => modules::import(line, import),
        Body::CachedImport(import) => modules::cached(line, import),
        Body::Imported(import) => modules::imported(line, import, event.at_ns),
        Body::Interpreter(interpreter) => modules::interpreter(line, interpreter),
        Body::Distributions(distributions) => modules::distributions(line, distributions),
        Body::ModuleShadows(shadows) => modules::shadows(line, shadows),
        Body::LoadedModules(loaded) => modules::loaded(line, loaded),
        Body::Stuck { syscall, since_ns, on, .. } => {
            let on = on.get().map_or(String::new(), |on| format!(" on {on}"));
            let after = units::duration(event.at_ns.saturating_sub(*since_ns));
            line.push(ODD, format!("in {syscall}{on} for {after}"))
        }
        Body::Unstuck { syscall, since_ns, result } => {
            let after = units::duration(event.at_ns.saturating_sub(*since_ns));
            let result =
                result.get().map_or_else(String::new, |result| format!(" = {}", call_result(*result)));
            line.push(PLAIN, format!("{syscall}{result} after {after}"))
        }
        Body::State { state } => {
            line.push(if matches!(state, 'T' | 't') { ODD } else { PLAIN }, state_text(*state))
        }
        Body::Output { stream, len, piece_offset, errno, .. } => {
            let piece =
                if *piece_offset == 0 { String::new() } else { format!(", from byte {piece_offset}") };
            line.push(PLAIN, format!("{}, {}{piece} ", stream_text(*stream), units::size(*len)));
            preview(line, &event.bytes, OUTPUT_PREVIEW_BYTES);
            if *errno == 0 { line } else { result(line, *errno, "") }
        }
        body => describe_socket(line, body, &event.bytes),
    };
}

fn describe_exec<'a>(line: &'a mut Line, exec: &Exec) -> &'a mut Line {
    match exec.argv.get() {
        Some(argv) => line.push(GOOD, words::command(argv)),
        None => {
            line.push(GOOD, quoted(&exec.path)).push(DIM, format!(" (arguments {})", why_absent(&exec.argv)))
        }
    };
    if matches!(exec.argv, Known::Partial { .. }) {
        line.push(DIM, " … (arguments cut)");
    }
    let exe = exec.exe.get().and_then(|exe| exe.path.get());
    line.push(DIM, format!("  file {}", exe.map_or_else(|| quoted(&exec.path), |exe| escape::quote(exe))));
    line.push(DIM, format!(", in {}", quoted(&exec.cwd)));
    let stdio: Vec<String> = exec.stdio.iter().map(target_text).collect();
    line.push(DIM, if stdio.is_empty() { String::new() } else { format!(", 0-2: {}", stdio.join(", ")) })
}

fn describe_file<'a>(line: &'a mut Line, call: &FileCall, opens: bool) -> &'a mut Line {
    let path = if call.path.get().is_some_and(|path| !path.is_empty()) { &call.path } else { &call.resolved };
    line.push(PLAIN, quoted(path));
    let resolved = call.resolved.get().filter(|resolved| Some(*resolved) != path.get());
    line.push(DIM, resolved.map_or(String::new(), |resolved| format!(" [{}]", escape::quote(resolved))));
    if opens {
        line.push(DIM, format!(" {}", names::open_flags(call.flags)));
    }
    let value = call.result.map_or_else(|| "0".to_owned(), |result| result.to_string());
    result(line, call.errno, &value);
    line.push(DIM, format!(" ({})", units::duration(call.duration_ns)))
}

fn describe_socket<'a>(line: &'a mut Line, body: &Body, bytes: &[u8]) -> &'a mut Line {
    match body {
        Body::Socket { socket, fd, family, socket_type, protocol } => {
            let (family, kind) = (names::family(*family), names::socket_type(*socket_type));
            line.push(PLAIN, format!("{family} {kind} protocol {protocol} = {}", fd.0))
                .push(DIM, socket_text(socket.0))
        }
        Body::SocketFailed { family, errno } => {
            line.push(PLAIN, names::family(*family));
            result(line, *errno, "")
        }
        Body::Connect { socket, peer, errno, duration_ns, .. } => {
            line.push(PLAIN, address(peer));
            result(line, *errno, "0");
            line.push(DIM, format!(" ({})", units::duration(*duration_ns))).push(DIM, socket_text(socket.0))
        }
        Body::Connected { socket, peer, local, errno, duration_ns } => {
            line.push(PLAIN, address(peer));
            if *errno == 0 {
                line.push(GOOD, " established").push(DIM, format!(", from {}", address(local)));
            } else {
                result(line, *errno, "");
            }
            line.push(DIM, format!(" ({})", units::duration(*duration_ns))).push(DIM, socket_text(socket.0))
        }
        Body::Bind { socket, address: at, errno, .. } | Body::Listen { socket, address: at, errno, .. } => {
            line.push(PLAIN, address(at));
            result(line, *errno, "0").push(DIM, socket_text(socket.0))
        }
        Body::Accept { socket, fd, peer, local } => line
            .push(PLAIN, format!("{} at {} = {}", address(peer), address(local), fd.0))
            .push(DIM, socket_text(socket.0)),
        Body::Close { socket, fd } => {
            line.push(PLAIN, format!("descriptor {}", fd.0)).push(DIM, socket_text(socket.0))
        }
        Body::Disconnect { socket, how, errno, peer, .. } => {
            let style = if matches!(how, Disconnect::ByUs | Disconnect::Closed) { PLAIN } else { ODD };
            line.push(PLAIN, address(peer)).push(style, format!(" {}", ending(*how)));
            if *errno != 0 {
                line.push(BAD, format!(", {}", names::errno(*errno)));
            }
            line.push(DIM, socket_text(socket.0))
        }
        Body::Data { socket, direction, offset, len, syscall, errno, redacted, .. } => {
            let arrow = if *direction == Direction::Sent { "→" } else { "←" };
            line.push(PLAIN, format!("{arrow} {} {syscall} ", units::size(*len)));
            match (*errno, *len) {
                (0, 0) => line.push(ODD, "end of stream"),
                (0, _) => preview(line, bytes, DATA_PREVIEW_BYTES),
                (errno, _) => result(line, errno, ""),
            };
            line.push(DIM, if redacted.is_empty() { "" } else { " (partly blanked)" });
            line.push(DIM, format!(" at byte {offset}")).push(DIM, socket_text(socket.0))
        }
        Body::Lookup { socket, name, code, records } => {
            line.push(NAME, name);
            match (*code, *records) {
                (None, _) => line.push(PLAIN, " asked for"),
                (Some(0), 0) => line.push(ODD, " has no address"),
                (Some(0), records) => {
                    line.push(PLAIN, format!(" → {}", units::counted(records.into(), "record")))
                }
                (Some(code), _) => line.push(BAD, format!(" → {}", names::name_server_code(code))),
            };
            line.push(DIM, socket_text(socket.0))
        }
        // Everything else is described by the caller, or is the broker's.
        body => broker::describe(line, body),
    }
}

fn result<'a>(line: &'a mut Line, errno: i32, value: &str) -> &'a mut Line {
    match errno {
        0 => line.push(PLAIN, format!(" = {value}")),
        EINPROGRESS => line.push(DIM, " = EINPROGRESS"),
        _ => line.push(BAD, format!(" = {}", names::errno(errno))),
    }
}

fn preview<'a>(line: &'a mut Line, bytes: &[u8], most: usize) -> &'a mut Line {
    let shown = bytes.get(..most).unwrap_or(bytes);
    line.push(PLAIN, "\"")
        .push_bytes(PLAIN, shown)
        .push(PLAIN, if shown.len() < bytes.len() { "\"…" } else { "\"" })
}

fn ended(line: &mut Line, code: Option<i32>, signal: Option<i32>) -> &mut Line {
    match (code, signal) {
        (_, Some(signal)) => line.push(BAD, format!("killed by {}", names::signal(signal))),
        (Some(0), None) => line.push(GOOD, "status 0"),
        (Some(code), None) => line.push(BAD, format!("status {code}")),
        (None, None) => line.push(ODD, "status unknown"),
    }
}

/// How a connection ended, in words.
pub const fn ending(how: Disconnect) -> &'static str {
    match how {
        Disconnect::ByUs => "closed by us",
        Disconnect::ByPeer => "closed by the peer",
        Disconnect::ResetByPeer => "reset by the peer",
        Disconnect::ResetByUs => "reset by us",
        Disconnect::Failed => "given up by the kernel",
        Disconnect::Closed => "closed",
    }
}

/// An address, or why there is none.
pub fn address(known: &Known<Address>) -> String {
    known.get().map_or_else(|| format!("address {}", why_absent(known)), ToString::to_string)
}

/// A sender of a signal: process, name and command line.
pub fn sender_text(sender: &Known<Sender>, code: i32) -> String {
    match sender.get() {
        Some(sender) => {
            let what = sender.cmdline.get().filter(|cmdline| !cmdline.is_empty()).unwrap_or(&sender.name);
            format!("{} ({what})", sender.pid)
        }
        None if code > 0 => "the kernel".to_owned(),
        None => format!("a sender {}", why_absent(sender)),
    }
}

/// A place where events are lost, in words.
pub const fn hop_text(hop: Hop) -> &'static str {
    match hop {
        Hop::Ring => "kernel's ring buffer",
        Hop::Rules => "rules",
        Hop::KernelTable => "kernel's table of processes and sockets",
        Hop::Decode => "decoder",
        Hop::Channel => "way to the session",
        Hop::Store => "session's store",
        Hop::Evicted => "flight recorder's ring, for later ones",
        Hop::Unwatched => "observer, which was not there",
    }
}

/// A stream's name.
pub const fn stream_text(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
        OutputStream::Pipe => "pipe",
    }
}

/// Why a value is not there, as an adjective.
pub const fn why_absent<T>(known: &Known<T>) -> &'static str {
    match known {
        Known::Is(_) => "known",
        Known::Partial { .. } => "cut",
        Known::Absent { absent: Absence::Unknown } => "unknown",
        Known::Absent { absent: Absence::None } => "none",
        Known::Absent { absent: Absence::Lost } => "lost",
        Known::Absent { absent: Absence::NotCollected } => "not collected",
    }
}

/// The style that fits a note's level.
pub const fn level_style(level: NoteLevel) -> anstyle::Style {
    match level {
        NoteLevel::Info => PLAIN,
        NoteLevel::Warning => ODD,
        NoteLevel::Trouble => BAD,
    }
}

fn quoted(known: &Known<String>) -> String {
    match known {
        Known::Is(text) => escape::quote(text),
        Known::Partial { partial, .. } => format!("{}…", escape::quote(partial)),
        Known::Absent { .. } => format!("({})", why_absent(known)),
    }
}

fn target_text(target: &Known<FdTarget>) -> String {
    let Some(target) = target.get() else { return why_absent(target).to_owned() };
    match (target.what, target.path.get()) {
        (FdKind::Pipe, _) => format!("pipe:[{}]", target.inode),
        (FdKind::Socket, _) => format!("socket:[{}]", target.inode),
        (_, Some(path)) => path.clone(),
        (what, None) => format!("{what:?}").to_lowercase(),
    }
}

fn state_text(state: char) -> String {
    match state {
        'T' => "T (stopped)".to_owned(),
        't' => "t (stopped by a tracer)".to_owned(),
        'R' => "R (running)".to_owned(),
        'S' => "S (sleeping)".to_owned(),
        'D' => "D (disk sleep)".to_owned(),
        'Z' => "Z (zombie)".to_owned(),
        other => other.to_string(),
    }
}

fn socket_text(inode: u64) -> String {
    format!(" socket:[{inode}]")
}

fn call_result(value: i64) -> String {
    // The kernel returns errors as −1 … −4095.
    match i32::try_from(value) {
        Ok(errno @ -4095..=-1) => names::errno(-errno),
        _ => value.to_string(),
    }
}
