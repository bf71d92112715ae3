//! `attach` by the service: for users who may not load eBPF programs themselves. The command is started here, in the user's own terminal and
//! environment; the service records it. Knows the protocol; what is recorded it does not see.

use std::{ops::ControlFlow, path::PathBuf};

use super::{
    Args, Backend, SharedEnd,
    end::{self, Hearsay, Supervisor},
    left_over, say,
    target::Target,
};
use crate::{
    capability::Capability,
    cli::{
        Context, ExitStatus,
        live::{Attached, Seat},
        printable, progress,
        service::Service,
    },
    daemon::protocol::{Record, Reply, Request},
    event::Body,
    fold,
    session::{Filter, Session},
    source::probe,
    words,
};

/// The service, when it is to record: it was asked for, or it is there and there is no eBPF without it.
///
/// # Errors
/// When it was asked for and is not there.
pub(super) fn wanted(
    args: &Args,
    context: &Context,
    capabilities: &[Capability],
) -> anyhow::Result<Option<Service>> {
    if args.backend == Backend::Service {
        return Service::connect().map(Some);
    }
    let better = args.backend == Backend::Auto
        && !args.seccomp
        && context.state_dir.is_none()
        && probe::require_ebpf(capabilities).is_err();
    Ok(if better { Service::connect().ok() } else { None })
}

/// Has the service record.
///
/// # Errors
/// When it refuses, or nothing could be started.
pub(super) fn run(
    args: &Args,
    context: &Context,
    target: &Target,
    mut service: Service,
) -> anyhow::Result<ExitStatus> {
    let seat = args.follow.then(|| Seat::find(target.attached().is_none(), context.format));
    let stops = end::block_signals(seat.as_ref().map_or(&[], Seat::signals))?;
    let held = match target {
        Target::Start(command) => Some(stops.unblocked(|| command.hold(None))??),
        Target::Running { .. } => None,
    };
    let root = held.as_ref().map(|held| held.pid);
    let Some(pid) = root.or_else(|| target.attached()) else { anyhow::bail!("nothing to observe") };
    let request = Request::Record(Record {
        pid: pid.0,
        held: root.is_some(),
        command: target.command(),
        name: args.name.clone(),
        broker: args.broker.clone().filter(|broker| !broker.is_empty()),
        management: args.management.clone(),
        firehose: args.firehose,
        bodies: args.bodies,
    });
    let Reply::Begun { id, name, path } = service.ask(&request)? else {
        anyhow::bail!("the service is of another version: it said something unknown");
    };
    let path = PathBuf::from(path);
    if !args.quiet {
        let how = if root.is_some() { "" } else { "; Ctrl-C lets it go" };
        let command = printable(&words::command(&target.command()));
        say(&format!("observer: the service records {command} as session {name} (eBPF){how}"));
    }
    if matches!(seat, Some(Seat::Shared)) {
        say(&format!(
            "observer: the command has this terminal; to follow in a view, in another one: observer show {name} --follow"
        ));
    }
    let following = seat.map(|seat| Attached::start(seat, &path, context));
    let launched = held.map(|held| held.release());
    let seen = Hearsay::Session { path: path.clone(), root };
    let supervisor =
        Supervisor { root, root_end: None, attached: target.attached(), limit_ns: args.limit, seen };
    let ended = supervisor.wait(&stops);
    if let Some(following) = &following {
        following.close();
    }
    progress::while_slow("closing the session", || finish(service, &id, root.is_none()));
    if let Some(Err(error)) = following.map(Attached::join) {
        say(&format!("observer: cannot follow the session: {error:#}; it is recorded all the same"));
    }
    let wanted = if args.quiet { fold::without_files() } else { Filter::default() };
    // What is derived from it the service has written.
    let model =
        progress::while_slow("reading the session", || fold::fold(&Session::open(&path)?, &wanted, None));
    Ok(left_over(SharedEnd { args, context, path: &path, name: &name, model, launched, root, ended: &ended }))
}

/// Waits until the service has concluded the session. One that went away goes on with it when it is back: what there is until then is shown.
fn finish(mut service: Service, id: &str, let_go: bool) {
    let id = id.to_owned();
    let errand = |service: &mut Service| {
        if let_go {
            // It may have ended by itself.
            let _ = service.ask(&Request::LetGo { id: id.clone() });
        }
        service.ask(&Request::Wait { id: id.clone() }).map(drop)
    };
    if errand(&mut service).is_ok() {
        return;
    }
    let again = Service::connect().and_then(|mut service| errand(&mut service));
    if let Err(error) = again {
        say(&format!("observer: {error:#}; the session is shown as far as it is written"));
    }
}

/// Whether the session says that `root` was sent a signal by `sender` at `since_ns` or later.
pub(super) fn was_signalled(
    path: &std::path::Path,
    root: u32,
    signal: i32,
    sender: u32,
    since_ns: u64,
) -> bool {
    let Ok(session) = Session::open(path) else { return false };
    let started_ns = session.header().started_ns;
    let filter = Filter {
        kinds: vec!["signal".into()],
        pids: vec![crate::event::Pid(root)],
        from_ns: Some(since_ns.saturating_sub(started_ns)),
        ..Filter::default()
    };
    let mut found = false;
    let read = session.events(&filter, |_, event| match &event.body {
        Body::Signal { signal: number, sender: by, .. }
            if *number == signal && by.get().map_or(0, |by| by.pid.0) == sender =>
        {
            found = true;
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    read.is_ok() && found
}
