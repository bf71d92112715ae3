//! Programs are tracked by rules in the kernel, from their `execve` on: nothing of who fits is missed, nothing of who does not is told.
//! The source is used as a library here; who does what with its events is not this test's business.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail like the test"
)]

mod tracked;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use observer::event::{Body, Event, Exec, Hop, Known};
use observer::source::ebpf::ExecRule;
use tests::deadline;
use tests::privilege::lacking;
use watch::{LIMIT, Place, Watch, rule, run};

pub(crate) const PYTHON: &str = "/usr/bin/python3";
const NOBODY: u32 = 65_534;

#[test]
fn a_worker_is_recorded_from_its_exec_with_all_it_was_given() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    place.write("dramatiq/__main__.py", "import subprocess\nsubprocess.run(['/bin/true', 'child'])\n");
    let token = place.token("tasks");
    let mut watch = Watch::new(&[
        rule(6, Some("ruby*"), &["-m", "dramatiq"]),
        rule(7, Some("python3*"), &["-m", "dramatiq", &token]),
        rule(8, Some("python3*"), &["-m", "dramatiq", &token]),
    ]);
    let worker = |last: &str| {
        let mut worker = Command::new(PYTHON);
        worker.args(["-X", "utf8", "-m", "dramatiq", &token, last]).current_dir(place.path());
        worker.env_clear().env("BROKER", "a b").env("EMPTY", "");
        run(&mut worker)
    };
    // Twice, with a time between in which nothing is tracked, so that calls are not looked at.
    for last in ["", "again"] {
        let other = run(Command::new(PYTHON).args(["-c", "pass", "-m", &token]));
        let pid = worker(last);
        watch.until_gone(pid);
        let exec = watch.first(pid);
        assert_eq!(exec.rule, Some(7), "the first that fits");
        let words = [PYTHON, "-X", "utf8", "-m", "dramatiq", &token, last].map(str::to_owned);
        assert_eq!(exec.argv, Known::Is(words.to_vec()));
        let mut env = exec.env.get().unwrap().clone();
        env.sort();
        assert_eq!(env, ["BROKER=a b", "EMPTY="]);
        assert_eq!(exec.dumpable, Some(true));
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap();
        let ours = ours.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        assert_eq!(exec.cgroup, Known::Is(ours));
        let of_it = watch.of(pid);
        let main = |event: &&Event| matches!(&event.body, Body::Open(file) if file.path.get().is_some_and(|path| path.contains("__main__")));
        assert!(of_it.iter().any(main), "the calls of its first millisecond are there");
        assert!(of_it.iter().any(|event| matches!(event.body, Body::ExitCall { .. })));
        let child = of_it.iter().find_map(|event| match event.body {
            Body::Fork { child } => Some(child),
            _ => None,
        });
        let child_exec =
            watch.of(child.expect("it forked").0).into_iter().find_map(|event| match &event.body {
                Body::Exec(exec) => Some(exec),
                _ => None,
            });
        assert_eq!(child_exec.expect("its child is followed").rule, Some(0));
        assert!(watch.of(other).is_empty(), "who does not fit is not told of");
        let begun = Instant::now();
        deadline::until("a time without anything", LIMIT, || {
            watch.poll();
            (begun.elapsed() > Duration::from_millis(2_500)).then_some(())
        });
        assert_eq!(watch.ebpf.tracked(), []);
    }
}

#[test]
fn a_script_is_known_by_its_own_name_and_path_and_by_its_interpreter() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let name = place.token("dramatiq");
    let script = place.write(&format!("venv/bin/{name}"), "#!/bin/sh\nexit 0\n");
    let folder = place.path().file_name().unwrap().to_str().unwrap();
    let under = place.path().parent().unwrap().to_str().unwrap();
    let whole = format!("{under}/{folder}/*/bin/{name}");
    let interpreter = fs::canonicalize("/bin/sh").unwrap();
    let cases = [
        (rule(1, Some(&name), &[]), true),
        (rule(2, Some(&format!("*{}", &name[3..])), &[]), true),
        (rule(3, Some(&name[1..]), &[]), false),
        (rule(4, Some(&whole), &[]), true),
        (rule(5, Some(&format!("{under}/*/{name}")), &[]), false),
        (rule(6, Some(interpreter.file_name().unwrap().to_str().unwrap()), &[&format!("*{name}")]), true),
        (rule(7, Some(interpreter.to_str().unwrap()), &[&format!("*{name}"), "?"]), true),
        (rule(8, Some("/bin/no-such-shell"), &[&format!("*{name}")]), false),
    ];
    let mut watch = Watch::new(&[]);
    for (rule, fits) in cases {
        watch.ebpf.watch(std::slice::from_ref(&rule)).unwrap();
        let absolute = run(Command::new(&script).arg("x"));
        let relative =
            run(Command::new(format!("./bin//{name}")).arg("x").current_dir(place.path().join("venv")));
        watch.settle(&place);
        for pid in [absolute, relative] {
            if fits {
                let exec = watch.first(pid);
                assert_eq!(exec.rule, Some(rule.id));
                assert!(rule.fits(exec).unwrap(), "user space comes to the same: {rule:?} {exec:?}");
            } else {
                assert!(watch.of(pid).is_empty(), "{rule:?}: {:?}", watch.of(pid));
            }
        }
    }
}

#[test]
fn a_rule_may_ask_for_a_user_and_who_gains_rights_is_known() {
    if lacking("eBPF, another user, setuid") {
        return;
    }
    let place = Place::new();
    let token = place.token("user");
    let mut watch = Watch::new(&[ExecRule { uid: Some(NOBODY), ..rule(3, None, &[&token]) }]);
    let ours = run(Command::new("/bin/true").arg(&token));
    let theirs = run(Command::new("/bin/true").arg(&token).uid(NOBODY).gid(NOBODY));
    let setuid = place.path().join("setuid");
    fs::copy("/bin/true", &setuid).unwrap();
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    let raised = run(Command::new(&setuid).arg(&token).uid(NOBODY).gid(NOBODY));
    watch.settle(&place);
    assert!(watch.of(ours).is_empty());
    assert_eq!((watch.first(theirs).rule, watch.first(theirs).dumpable), (Some(3), Some(true)));
    let raised = watch.first(raised);
    assert_eq!(
        raised.user.get().map(|user| (user.uid, user.euid)),
        Some((NOBODY, 0)),
        "no setuid on this disk?"
    );
    assert_eq!((raised.rule, raised.dumpable), (Some(3), Some(false)));
}

/// A cgroup, gone with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_rule_may_ask_for_a_unit_or_a_cgroup() {
    if lacking("eBPF, a cgroup") {
        return;
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    let root = root.expect("cgroup2 is mounted");
    let place = Place::new();
    let slice = format!("{}.slice", place.token("top"));
    let top = Cgroup::new(root.join(&slice));
    let unit = Cgroup::new(top.0.join("worker@1.service"));
    let token = place.token("grouped");
    let start = |group: &Path| {
        let script = "echo $$ > \"$1/cgroup.procs\" && exec /bin/true \"$2\"";
        run(Command::new("/bin/sh").args(["-c", script, "sh"]).arg(group).arg(&token))
    };
    let in_unit = |unit: &str| ExecRule { unit: Some(unit.to_owned()), ..rule(1, Some("true"), &[&token]) };
    let in_cgroup =
        |path: &str| ExecRule { cgroup: Some(path.to_owned()), ..rule(2, Some("true"), &[&token]) };
    let cases = [
        (in_unit("worker*.service"), true, false),
        (in_unit(&slice), true, true),
        (in_unit("worker"), false, false),
        (in_cgroup(&format!("/{slice}/worker@1.service")), true, false),
        (in_cgroup(&format!("/{slice}")), false, true),
        (in_cgroup(&format!("/{slice}/*")), true, false),
        (in_cgroup(&format!("/{}*", place.token("top"))), true, true),
        (in_cgroup("/*.service"), false, false),
    ];
    let mut watch = Watch::new(&[]);
    for (rule, below, above) in cases {
        watch.ebpf.watch(std::slice::from_ref(&rule)).unwrap();
        let pids = [(start(&unit.0), below), (start(&top.0), above)];
        watch.settle(&place);
        for (pid, fits) in pids {
            assert_eq!(!watch.of(pid).is_empty(), fits, "{rule:?}");
            if fits {
                let exec = watch.first(pid);
                assert!(exec.cgroup.get().unwrap().starts_with(&format!("/{slice}")), "{exec:?}");
                assert!(rule.fits(exec).unwrap(), "{rule:?} {exec:?}");
            }
        }
    }
}

#[test]
fn who_fits_before_and_after_a_reload_is_not_missed_in_it() {
    const STARTS: usize = 600;
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let (ours, other) = (place.token("ours"), place.token("other"));
    let old = [rule(1, Some("true"), &[&ours])];
    let mut new: Vec<ExecRule> = (10..40).map(|id| rule(id, Some("python*"), &["-m", "dramatiq"])).collect();
    new.push(rule(2, None, &[&ours, "*"]));
    let mut watch = Watch::new(&old);
    let storm = thread::spawn(move || {
        let begun = Instant::now();
        let mut pids = (Vec::new(), Vec::new());
        for nr in 0..STARTS {
            pids.0.push(run(Command::new("/bin/true").args([ours.clone(), nr.to_string()])));
            pids.1.push(run(Command::new("/bin/true").args([other.clone(), nr.to_string()])));
        }
        (pids, (2 * STARTS) as f64 / begun.elapsed().as_secs_f64())
    });
    let mut reloads = 0;
    while !storm.is_finished() {
        watch.ebpf.watch(if reloads % 2 == 0 { &new } else { &old }).unwrap();
        reloads += 1;
        watch.poll();
    }
    let ((ours, others), rate) = storm.join().unwrap();
    watch.settle(&place);
    println!("{reloads} reloads under {rate:.0} execs a second");
    assert!(reloads > 20, "{reloads}");
    let mut by: HashMap<u32, usize> = HashMap::new();
    // A number may have been given twice.
    let execs: Vec<&Exec> = watch
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Exec(exec) => Some(&**exec),
            _ => None,
        })
        .collect();
    for (nr, pid) in ours.iter().enumerate() {
        let words = Known::Is(vec!["/bin/true".to_owned(), place.token("ours"), nr.to_string()]);
        let found: Vec<_> = execs.iter().filter(|exec| exec.argv == words).collect();
        assert_eq!(found.len(), 1, "start {nr} of {STARTS}, process {pid}");
        *by.entry(found[0].rule.unwrap()).or_default() += 1;
    }
    assert!(by.keys().all(|id| [1, 2].contains(id)) && by.len() == 2, "both rules had their time: {by:?}");
    let ours: HashSet<u32> = ours.into_iter().collect();
    for pid in others.into_iter().filter(|pid| !ours.contains(pid)) {
        assert!(watch.of(pid).is_empty(), "{:?}", watch.of(pid));
    }
    assert!(!watch.events.iter().any(|event| matches!(event.body, Body::Lost { .. })));
}

#[test]
fn what_would_take_too_long_does_not_fit_and_is_counted() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let name = place.token("many");
    let script = place.write(&name, "#!/bin/sh\nexit 0\n");
    let mut words = vec!["*"; 60];
    words.push("never");
    let mut watch = Watch::new(&[rule(1, Some(&name), &words)]);
    let few = run(Command::new(&script).args(vec!["a"; 100]));
    watch.settle(&place);
    let lost = |watch: &Watch| {
        let lost = watch.events.iter().filter_map(|event| match &event.body {
            Body::Lost { hop: Hop::Rules, count, .. } => Some(*count),
            _ => None,
        });
        lost.sum::<u64>()
    };
    assert_eq!((watch.of(few).len(), lost(&watch)), (0, 0));
    watch.ebpf.watch(&[rule(1, Some(&name), &words)]).unwrap();
    let many = run(Command::new(&script).args(vec!["a"; 4_000]));
    watch.settle(&place);
    assert_eq!((watch.of(many).len(), lost(&watch)), (0, 1));
}
