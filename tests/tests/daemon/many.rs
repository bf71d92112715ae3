//! The service over time: many workers, limits, a full disk, and settings that change under load. Nothing is missed, and nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tests::crowd::{self, Footprint, Short};
use tests::daemon::{Daemon, rule};
use tests::deadline;
use tests::privilege::lacking;
use tests::rabbit::Broker;
use tests::scene::Scene;

use super::{LIMIT, end, minimal, module, worker};

const SHORT: u32 = 120;
const LONG: usize = 3;
/// Longer than the service takes to give back memory that it does not need.
const GIVES_BACK: Duration = Duration::from_secs(8);

/// Waits until only so many are recorded, and nothing is left to be concluded.
fn settled(daemon: &Daemon, running: usize) {
    deadline::until("all that ended is concluded", LIMIT, || {
        let status = daemon.status().ok()?;
        let plans = fs::read_dir(daemon.base().join("running")).ok()?.count();
        (status["recordings"].as_array()?.len() == running && plans == running).then_some(())
    });
}

/// The least that is taken in a while.
fn least(daemon: &Daemon) -> Footprint {
    let began = Instant::now();
    let mut least = Footprint::of(daemon.pid()).unwrap();
    deadline::until("memory is given back", LIMIT, || {
        let now = Footprint::of(daemon.pid()).unwrap();
        least = Footprint { anon_kb: least.anon_kb.min(now.anon_kb), ..now };
        (began.elapsed() > GIVES_BACK).then_some(())
    });
    least
}

#[test]
fn a_hundred_and_twenty_come_and_go_beside_three_that_stay() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let folder = scene.path("");
    crowd::install(&folder).unwrap();
    let module = format!("crowd_{}", std::process::id());
    // None of them is dramatiq: that the long ones do not consume is not to be concluded in the middle of it.
    let config = format!("flight.ready_within = \"1h\"\n{}", rule(&module, "keep = \"always\""));
    let daemon = Daemon::start(&folder, &config).unwrap();
    let run = |numbers| crowd::run(&folder, &module, numbers, 8, Duration::ZERO).unwrap();
    // What is there once for all: probes in the interpreter, the user's directory.
    let mut ended = run(0..1);
    settled(&daemon, 0);
    let before = least(&daemon);

    let long: Vec<_> = (0..LONG).map(|_| crowd::long(&folder, &module).unwrap()).collect();
    settled(&daemon, LONG);
    ended.extend(run(1..40));
    settled(&daemon, LONG);
    let at_forty = least(&daemon);
    ended.extend(run(40..SHORT));
    settled(&daemon, LONG);
    let at_last = least(&daemon);
    let is = format!("{at_forty:?} after 40, {at_last:?} after {SHORT}");
    assert!(at_last.anon_kb < at_forty.anon_kb + 3 * 1024, "memory: {is}");
    let same = |one: Footprint| (one.descriptors, one.threads);
    assert_eq!(same(at_last), same(at_forty), "{is}");

    let events = |daemon: &Daemon| -> Vec<u64> {
        let status = daemon.status().unwrap();
        status["recordings"].as_array().unwrap().iter().filter_map(|one| one["events"].as_u64()).collect()
    };
    let seen = events(&daemon);
    assert_eq!(seen.len(), LONG);
    deadline::until("the long ones are recorded on", LIMIT, || {
        events(&daemon).iter().zip(&seen).all(|(now, then)| now > then).then_some(())
    });
    let pids: Vec<u32> = long.iter().map(std::process::Child::id).collect();
    crowd::end(long).unwrap();
    settled(&daemon, 0);

    let status = daemon.status().unwrap();
    assert_eq!(status["lost"], serde_json::json!({}), "{}", daemon.log());
    assert_eq!(status["begun"].as_u64(), Some(u64::from(SHORT) + LONG as u64));
    let recorded = crowd::recorded(&daemon, &module).unwrap();
    assert_eq!(recorded.len(), SHORT as usize + LONG);
    assert_eq!(crowd::missed(&ended, &recorded, &module), [""; 0]);
    for pid in pids {
        let of: Vec<_> = recorded.iter().filter(|one| one.first.1 == pid).collect();
        let [one] = of.as_slice() else { panic!("{of:?}") };
        assert_eq!((one.first.0.as_str(), one.lost, one.state.as_str()), ("exec", 0, "done"), "{one:?}");
    }
    deadline::until("no thread and no descriptor is left", LIMIT, || {
        (same(Footprint::of(daemon.pid()).ok()?) == same(before)).then_some(())
    });
}

#[test]
fn settings_that_are_read_anew_all_the_time_miss_none() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let folder = scene.path("");
    crowd::install(&folder).unwrap();
    let module = format!("reloads_{}", std::process::id());
    let theirs = rule(&module, "keep = \"always\"\nsession = \"theirs\"");
    let another = rule("nobodys", "keep = \"always\"\nsession = \"nobodys\"");
    let configs = [format!("{theirs}{another}"), format!("{another}{theirs}")];
    let mut daemon = Daemon::start(&folder, &configs[0]).unwrap();
    let before = Footprint::of(daemon.pid()).unwrap();
    let mut reloads = 0;
    let ended = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd::run(&folder, &module, 0..60, 4, Duration::ZERO));
        // One right after the other: more often than anybody would.
        while !crowd.is_finished() {
            reloads += 1;
            daemon.reload(&configs[reloads % 2]).unwrap();
        }
        crowd.join().unwrap().unwrap()
    });
    assert!(reloads > 20, "{reloads}");
    settled(&daemon, 0);
    let recorded = crowd::recorded(&daemon, &module).unwrap();
    assert_eq!(crowd::missed(&ended, &recorded, &module), [""; 0]);
    let others: Vec<_> = recorded.iter().filter(|one| one.name != "theirs").collect();
    assert!(others.is_empty(), "recorded by another rule than the one that fitted: {others:?}");
    assert_eq!(daemon.status().unwrap()["lost"], serde_json::json!({}));
    deadline::until("no thread of the hooks before is left", LIMIT, || {
        (Footprint::of(daemon.pid()).ok()?.threads == before.threads).then_some(())
    });
}

#[test]
fn the_oldest_healthy_ones_make_room_and_what_is_pinned_stays() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let folder = scene.path("");
    let broker = Broker::start(&[]).unwrap();
    let healthy = module(&folder, "room", &minimal());
    let broken = module(&folder, "broken", "import not_to_be_found\n");
    let rules = [&healthy, &broken].map(|module| rule(module, "keep = \"always\"")).concat();
    let mut daemon = Daemon::start(&folder, &rules).unwrap();
    let newest = |daemon: &Daemon| {
        settled(daemon, 0);
        daemon.sessions().unwrap()[0]["id"].as_str().unwrap().to_owned()
    };
    let works = |daemon: &Daemon| {
        let worker =
            worker(&folder, &[&healthy, "-p", "1", "-t", "1"]).env("BROKER_URL", broker.url()).spawn();
        deadline::until("the worker consumes", LIMIT, || {
            let status = daemon.status().ok()?;
            (status["recordings"].as_array()?.first()?["consumes"] == true).then_some(())
        });
        end(worker.unwrap());
        newest(daemon)
    };
    let breaks = |daemon: &Daemon| {
        assert!(!worker(&folder, &[&broken]).status().unwrap().success());
        newest(daemon)
    };
    // The oldest of all is one that failed.
    let failed = breaks(&daemon);
    let oldest = works(&daemon);
    let pinned = works(&daemon);
    let failed_later = breaks(&daemon);
    let latest = works(&daemon);
    let pin = daemon.observer(&["pin", &pinned, "--state-dir"]).unwrap().arg(daemon.base()).output().unwrap();
    assert!(pin.status.success(), "{}", String::from_utf8_lossy(&pin.stderr));

    let left = |daemon: &Daemon, count: usize| {
        let mut ids: Vec<String> = deadline::until("room is made", LIMIT, || {
            let sessions = daemon.sessions().ok()?;
            let ids = sessions.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned()));
            (sessions.len() == count).then(|| ids.collect())
        });
        ids.sort();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    daemon.reload(&format!("retention.max_sessions = 4\n{rules}")).unwrap();
    assert_eq!(left(&daemon, 4), sorted(&[&failed, &pinned, &failed_later, &latest]), "without {oldest}");
    daemon.reload(&format!("retention.max_sessions = 1\n{rules}")).unwrap();
    assert_eq!(left(&daemon, 1), [pinned]);
    assert_eq!(daemon.status().unwrap()["sessions"], 1);
}

/// A small file system in a folder of the test, gone with it.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={mib}m,mode=0711");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "observer-test"]).arg(at);
        assert!(mount.status().unwrap().success(), "{mount:?}");
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the service may still be there when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_recording_and_nothing_else() {
    if lacking("the service loads eBPF programs, and a disk has to be filled") {
        return;
    }
    let scene = Scene::new().unwrap();
    let folder = scene.path("");
    crowd::install(&folder).unwrap();
    let module = format!("full_{}", std::process::id());
    let base = Small::mount(&scene.path("service/base"), 32);
    let config = format!("retention.min_free = \"2MiB\"\n{}", rule(&module, "keep = \"always\""));
    let daemon = Daemon::start(&folder, &config).unwrap();
    let run = |number: u32| Short(number).run(&folder, &module).unwrap();

    let first = run(0);
    settled(&daemon, 0);
    let pin = daemon.observer(&["pin", "@", "--state-dir"]).unwrap().arg(daemon.base()).output().unwrap();
    assert!(pin.status.success(), "{}", String::from_utf8_lossy(&pin.stderr));
    let mut long = crowd::long(&folder, &module).unwrap();
    deadline::until("the long one is in its session", LIMIT, || {
        let recorded = crowd::recorded(&daemon, &module).ok()?;
        recorded.iter().any(|one| one.first.1 == long.id()).then_some(())
    });
    let stopped = |daemon: &Daemon| daemon.status().ok().map(|status| status["stopped"].clone());

    let ballast = base.0.join("ballast");
    let mut source = fs::File::open("/dev/zero").unwrap();
    let filled = std::io::copy(&mut source, &mut fs::File::create(&ballast).unwrap());
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let why = deadline::until("it says that the disk is full", LIMIT, || {
        stopped(&daemon)?.as_str().map(str::to_owned)
    });
    assert!(why.contains("is free in") && why.contains("base"), "{why}");
    let log = daemon.log();
    assert!(log.contains("nothing new is recorded"), "{log}");
    // Not recorded, and not disturbed: it ends with the status it was told.
    run(1);
    deadline::until("it says that it let one pass", LIMIT, || {
        (daemon.status().ok()?["lost"]["refused/recording"] == 1).then_some(())
    });
    assert_eq!(long.try_wait().unwrap(), None);
    let readable = crowd::recorded(&daemon, &module).unwrap();
    assert_eq!(crowd::missed(&[first], &readable, &module), [""; 0], "what there was can be read");
    assert_eq!(readable.len(), 2, "{readable:?}");
    assert!(readable.iter().any(|one| one.first.1 == long.id() && one.state == "recording"), "{readable:?}");

    fs::remove_file(&ballast).unwrap();
    deadline::until("it records again", LIMIT, || stopped(&daemon)?.is_null().then_some(()));
    assert!(daemon.log().contains("there is room again"), "{}", daemon.log());
    let last = run(2);
    settled(&daemon, 1);
    crowd::end(vec![long]).unwrap();
    settled(&daemon, 0);
    let recorded = crowd::recorded(&daemon, &module).unwrap();
    assert_eq!(crowd::missed(&[first, last], &recorded, &module), [""; 0]);
    assert_eq!(recorded.len(), 3, "{recorded:?}");
    for one in &recorded {
        let database = Connection::open_with_flags(&one.path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!((check.as_str(), one.state.as_str()), ("ok", "done"), "{one:?}");
        let shown = daemon.json(&["show", one.path.to_str().unwrap()]).unwrap();
        assert!(!shown["events"].as_array().unwrap().is_empty());
    }
}
