//! What the service costs over time: a soak with many short workers, and a machine that has nothing to watch. It prints as it goes, and
//! judges only what was missed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::crowd::{self, Footprint};
use tests::daemon::{Daemon, rule};
use tests::rabbit::{self, Broker};
use tests::target;
use tests::venv::Venv;

const ALWAYS: usize = 5;
/// Of the soak's short workers, at one time.
const AT_A_TIME: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);
/// Programs that are executed in a second, where there is nothing to watch.
const PACE: u32 = 200;
const LIMIT: Duration = Duration::from_secs(120);

/// Reads `90s`, `10m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').map(|number| (number, 1));
    let (number, each) = seconds
        .or_else(|| text.strip_suffix('m').map(|number| (number, 60)))
        .ok_or("a number with its unit, as 90s or 10m")?;
    let number: u64 = number.parse().map_err(|_| format!("{number} is no number"))?;
    Ok(Duration::from_secs(number * each))
}

/// Soaks, then measures what idling costs.
pub(super) fn measure(observer: &Path, workers: u32, over: Duration) -> Result<()> {
    soak(observer, workers, over)?;
    idle(observer)
}

/// The workers that always run: real ones where there can be, else ones that only look alike.
struct Always {
    workers: Vec<Child>,
    _lab: Option<(Broker, Venv)>,
}

impl Always {
    fn start(folder: &Path, module: &str) -> Result<Self> {
        let lab = rabbit::install().and_then(|()| Ok((Broker::start(&[])?, Venv::ensure()?)));
        match &lab {
            Ok(_) => println!("the {ALWAYS} that always run: real workers, dramatiq and RabbitMQ"),
            Err(why) => println!("the {ALWAYS} that always run: stand-ins, as there is no broker: {why:#}"),
        }
        let lab = lab.ok();
        let real = folder.join("real");
        fs::create_dir(&real)?;
        fs::copy(target::folder().join("minimal_worker.py"), real.join(format!("{module}.py")))?;
        let one = || match &lab {
            Some((broker, venv)) => {
                let mut worker = Command::new(venv.python());
                worker.args(["-m", "dramatiq", module, "-p", "1", "-t", "1"]).current_dir(&real);
                worker.env("BROKER_URL", broker.url()).stdin(Stdio::null());
                worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start a worker")
            }
            None => crowd::long(folder, module),
        };
        let workers = (0..ALWAYS).map(|_| one()).collect::<Result<_>>()?;
        Ok(Self { workers, _lab: lab })
    }
}

impl Drop for Always {
    fn drop(&mut self) {
        // Real ones end their own processes when they are asked to, and only then.
        for worker in &self.workers {
            let _ = kill(Pid::from_raw(worker.id() as i32), Signal::SIGTERM);
        }
        for worker in &mut self.workers {
            let _ = worker.wait();
        }
    }
}

/// How it stands at one moment.
struct Moment {
    footprint: Footprint,
    status: Value,
}

impl Moment {
    fn of(daemon: &Daemon) -> Result<Self> {
        Ok(Self { footprint: Footprint::of(daemon.pid())?, status: daemon.status()? })
    }

    fn lost(&self) -> u64 {
        self.status["lost"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
    }

    fn cpu_s(&self) -> f64 {
        self.status["cpu_s"].as_f64().unwrap_or(f64::NAN)
    }

    fn resident(&self) -> String {
        let Footprint { anon_kb, file_kb, shmem_kb, .. } = self.footprint;
        let mb = |kb: u64| kb as f64 / 1024.0;
        format!(
            "{:.1} MiB resident ({:.1} anon, {:.1} file, {:.1} shmem)",
            mb(self.footprint.resident_kb()),
            mb(anon_kb),
            mb(file_kb),
            mb(shmem_kb)
        )
    }

    fn print(&self, at: &str) {
        println!(
            "{at:>8}  {}  {} threads  {} descriptors  {} sessions  {} lost  {:.2} s of processor time",
            self.resident(),
            self.footprint.threads,
            self.footprint.descriptors,
            self.status["sessions"],
            self.lost(),
            self.cpu_s()
        );
    }
}

fn soak(observer: &Path, workers: u32, over: Duration) -> Result<()> {
    println!("\nsoak: {workers} short workers (stand-ins, up to 0.2 s) over {} s", over.as_secs());
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let folder = scratch.path();
    crowd::install(folder)?;
    let module = format!("soak_{}", std::process::id());
    let limits = format!("retention.max_sessions = {}\nretention.max_bytes = \"64GiB\"\n", workers + 100);
    let config = format!("{limits}{}", rule(&module, "keep = \"always\""));
    let daemon = Daemon::start_of(observer, folder, &config)?;
    let always = Always::start(folder, &module)?;
    tests::deadline::poll("the workers that always run are recorded", LIMIT, || {
        (daemon.status().ok()?["recordings"].as_array()?.len() == ALWAYS).then_some(())
    })?;
    let began = Instant::now();
    let over_yet = AtomicBool::new(false);
    let (ended, moments) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut moments = vec![Moment::of(&daemon)?];
            moments[0].print("start");
            while !over_yet.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                if began.elapsed() >= MINUTE * moments.len() as u32 {
                    let moment = Moment::of(&daemon)?;
                    moment.print(&format!("{} min", moments.len()));
                    moments.push(moment);
                }
            }
            Ok::<_, anyhow::Error>(moments)
        });
        let pace = over / workers.max(1);
        let ended = crowd::run(folder, &module, 0..workers, AT_A_TIME, pace);
        over_yet.store(true, Ordering::Relaxed);
        let moments = watching.join().map_err(|_| anyhow::anyhow!("the thread that watches ended"))?;
        Ok::<_, anyhow::Error>((ended?, moments?))
    })?;
    tests::deadline::poll("what has ended is concluded", LIMIT, || {
        let running = fs::read_dir(daemon.base().join("running")).ok()?.count();
        (running == ALWAYS).then_some(())
    })?;
    let last = Moment::of(&daemon)?;
    last.print("end");
    drop(always);
    daemon.idle()?;
    let recorded = crowd::recorded(&daemon, &module)?;
    let missed = crowd::missed(&ended, &recorded, &module);
    for line in missed.iter().take(10) {
        println!("  {line}");
    }
    println!("missed {} of {}", missed.len(), ended.len());
    println!("lost {}, in sessions {}", last.lost(), recorded.iter().map(|one| one.lost).sum::<i64>());
    let first = moments.get(1).or_else(|| moments.first()).context("nothing was measured")?;
    println!("memory after a minute:  {}", first.resident());
    println!("memory at the end:      {}", last.resident());
    if !missed.is_empty() {
        bail!("the service missed {} of {} workers", missed.len(), ended.len());
    }
    Ok(())
}

fn idle(observer: &Path) -> Result<()> {
    println!("\nidle: nothing to watch, {PACE} programs executed in a second");
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let daemon = Daemon::start_of(observer, scratch.path(), &rule("nobodys", ""))?;
    let half = |counting: bool| -> Result<()> {
        let before = Moment::of(&daemon)?;
        let (seconds, executed) = execute(MINUTE / 2)?;
        let after = Moment::of(&daemon)?;
        println!(
            "{executed} executed in {seconds:.1} s: {:.3} % of a core in the service, {}, {} threads, {} descriptors",
            100.0 * (after.cpu_s() - before.cpu_s()) / seconds,
            after.resident(),
            after.footprint.threads,
            after.footprint.descriptors
        );
        if counting {
            programs(&before.status, &after.status, seconds);
        }
        Ok(())
    };
    super::with_program_stats("0", || half(false))?;
    super::with_program_stats("1", || half(true))
}

/// Executes programs at a steady pace; for how long it did, and how many.
fn execute(lasting: Duration) -> Result<(f64, u32)> {
    let began = Instant::now();
    let mut executed = 0;
    while began.elapsed() < lasting {
        Command::new("/bin/true").stdin(Stdio::null()).status().context("cannot run /bin/true")?;
        executed += 1;
        thread::sleep((Duration::from_secs(1) / PACE * executed).saturating_sub(began.elapsed()));
    }
    Ok((began.elapsed().as_secs_f64(), executed))
}

/// What the programs in the kernel took between two moments.
fn programs(before: &Value, after: &Value, seconds: f64) {
    let of = |status: &Value, name: &Value| -> (u64, u64) {
        let programs = status["programs"].as_array().into_iter().flatten();
        let found = programs.into_iter().find(|program| program["name"] == *name);
        let number = |field: &str| found.and_then(|program| program[field].as_u64()).unwrap_or(0);
        (number("run_count"), number("run_time_ns"))
    };
    let mut sum_ns = 0;
    for program in after["programs"].as_array().into_iter().flatten() {
        let (now, then) = (of(after, &program["name"]), of(before, &program["name"]));
        let (runs, ns) = (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
        sum_ns += ns;
        if runs > 0 {
            let name = program["name"].as_str().unwrap_or_default();
            println!("  {name:<22}{runs:>10} hits{:>8.0} ns each", ns as f64 / runs as f64);
        }
    }
    println!("  together {:.3} % of a core, on all processors", sum_ns as f64 / seconds / 1e7);
}
