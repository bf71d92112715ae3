//! How many file events a second the session takes on one core: `cargo run --release --example store_bench -- [EVENTS]`.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use observer::{
    event::{Body, Event, Fd, FileCall, Known, Origin, Pid, Tid},
    session::{Ending, Filter, Header, Invoker, Recorder, Redactor, Session, StateDir},
};

/// Events handed over at once, as a source's poll does.
const BATCH: u64 = 1024;

fn main() -> anyhow::Result<()> {
    let total: u64 = std::env::args().nth(1).map_or(Ok(2_000_000), |count| count.parse())?;
    let scratch = std::env::temp_dir().join(format!("observer-store-bench-{}", std::process::id()));
    let dir = StateDir::open(Some(&scratch), &Invoker::current())?;
    let mut recorder = Recorder::create(&dir, header(dir.new_id()?), Redactor::open(&dir)?)?;
    let session = recorder.path().to_owned();

    let (mut appending, mut computing) = (Duration::ZERO, Duration::ZERO);
    for batch in 0..total.div_ceil(BATCH) {
        // Made outside the measured time: in a recording, the source makes them.
        let events = (batch * BATCH..((batch + 1) * BATCH).min(total)).map(event).collect();
        let (begin, cpu) = (Instant::now(), cpu_time()?);
        recorder.append(events, None);
        appending += begin.elapsed();
        computing += cpu_time()? - cpu;
    }
    let begin = Instant::now();
    let trouble =
        recorder.finish(Ending { ended_ns: total, code: Some(0), signal: None, reason: "exited".into() });
    let finishing = begin.elapsed();
    let begin = Instant::now();
    let mut read = 0_u64;
    let count = |_, _| {
        read += 1;
        ControlFlow::Continue(())
    };
    Session::open(&session)?.events(&Filter::default(), count)?;
    let reading = begin.elapsed();
    anyhow::ensure!(read == total, "{read} of {total} events came back");
    let size_bytes = session.metadata()?.len();
    let peak = std::fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");

    println!(
        "{total} events: {:.0} events/s stored ({:.0} a second of CPU), {:.0} events/s read",
        total as f64 / appending.as_secs_f64(),
        total as f64 / computing.as_secs_f64(),
        total as f64 / reading.as_secs_f64()
    );
    println!(
        "finish {finishing:.2?}, {} bytes an event, {peak}, trouble {trouble:?}",
        size_bytes / total.max(1)
    );
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// What this thread computed: on a machine that others use too, the clock on the wall tells little.
fn cpu_time() -> nix::Result<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

fn event(n: u64) -> Event {
    let path = format!("/usr/lib/python3.12/site-packages/package_{}/module_{n}.py", n % 97);
    let call = FileCall {
        syscall: "newfstatat".into(),
        path: Known::Is(path.clone()),
        resolved: Known::Is(path),
        dirfd: Some(Fd(-100)),
        flags: 0,
        result: None,
        errno: 2,
        duration_ns: 1_000 + n % 5_000,
    };
    Event {
        at_ns: 1_000_000_000 + n * 1_000,
        pid: Pid(4_000),
        tid: Tid(4_001),
        observed_from: Origin::Ebpf,
        body: Body::Stat(call),
        bytes: Vec::new(),
    }
}

fn header(id: String) -> Header {
    Header {
        id,
        name: "bench".into(),
        // With a secret to look for in every path, as real recordings have.
        command: ["python", "-m", "dramatiq", "worker", "amqp://app:s3cr3t-w0rd@rabbit"]
            .map(String::from)
            .to_vec(),
        attached: None,
        backend: "ebpf".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        started_ns: 1_000_000_000,
        observer_version: env!("CARGO_PKG_VERSION").into(),
        host: "bench".into(),
        kernel: "bench".into(),
        snaplen: 4096,
        sources: Vec::new(),
        capabilities: Vec::new(),
    }
}
