//! What is another's: a process, a recording, a session. It cannot be had, and it cannot be told whether it is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tests::deadline;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::Scene;

use super::super::LIMIT;
use super::{
    PYTHON, Running, ask, ask_one, attach, becomes, place, recorded, service, session, sessions, text, verb,
};

/// A process to be recorded, as a client asks for it.
fn record(pid: u32, held: bool) -> Value {
    json!({"op": "record", "pid": pid, "held": held, "command": ["x"]})
}

/// The one thing said of all that is not theirs, with this instead of a number.
fn refusal(answer: &Value, pid: u32) -> String {
    assert_eq!(answer["reply"], "error", "{answer}");
    answer["message"].as_str().unwrap().replacen(&pid.to_string(), "N", 1)
}

#[test]
fn what_is_no_process_of_theirs_is_refused_in_the_words_for_none() {
    if lacking("two users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obse").unwrap(), Person::new(&scene, "obsf").unwrap());
    let daemon = service(&scene);
    let theirs = Running::start(one.command("sleep").arg("600"));
    let roots = Running::start(std::process::Command::new("sleep").arg("600"));
    // It asks for a password, and is root's as long as it does.
    let mut setuid = other.command("su");
    setuid.args(["-c", "true", "root"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut setuid = setuid.spawn().unwrap();
    let mut own = other.command(PYTHON);
    own.args(["-c", "import threading, time; threading.Thread(target=time.sleep, args=[600]).start()"]);
    let own = Running::start(&mut own);
    becomes(theirs.pid(), "sleep");
    becomes(setuid.id(), "su");
    let thread = deadline::until("it has a thread", LIMIT, || {
        let tasks = fs::read_dir(format!("/proc/{}/task", own.pid())).ok()?;
        let mut tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
        tids.find(|tid| *tid != own.pid())
    });
    // Nobody waits for it.
    let zombie = other.command("true").spawn().unwrap();
    deadline::until("it has ended", LIMIT, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", zombie.id())).ok()?;
        stat.contains(") Z ").then_some(())
    });
    let mut ended = other.command("true").spawn().unwrap();
    ended.wait().unwrap();
    let pids = [
        ("another's", theirs.pid()),
        ("root's", roots.pid()),
        ("the service", daemon.pid()),
        ("a setuid program's", setuid.id()),
        ("a thread's", thread),
        ("a zombie's", zombie.id()),
        ("one that has ended", ended.id()),
        ("none", 0),
        ("init's", 1),
        ("no number of any", u32::MAX),
        ("free", 4_194_303),
    ];
    let words = "there is no process N of yours; `ps -u \"$USER\" -f` lists them";
    for held in [false, true] {
        let requests: Vec<Value> = pids.iter().map(|(_, pid)| record(*pid, held)).collect();
        for ((what, pid), answer) in pids.iter().zip(ask(&daemon, &other, &requests)) {
            assert_eq!(refusal(&answer, *pid), words, "{what}, held: {held}");
        }
    }
    assert_eq!(daemon.status().unwrap()["begun"], 0);
    assert!(!place(&daemon, &other).exists());
    // One that is theirs is not.
    assert_eq!(ask_one(&daemon, &other, record(own.pid(), false))["reply"], "begun");
    setuid.kill().unwrap();
    setuid.wait().unwrap();
    let mut zombie = zombie;
    zombie.wait().unwrap();
}

#[test]
fn a_number_that_passed_to_another_users_process_is_not_followed() {
    if lacking("two users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsg").unwrap(), Person::new(&scene, "obsh").unwrap());
    let daemon = service(&scene);
    // Numbers are given out in turn, to whoever comes: it may take more than one attempt to get the same again.
    let (id, pid, mut heir) = deadline::until("a number is used again", LIMIT, || {
        let mut first = Running::start(other.command("sleep").arg("600"));
        becomes(first.pid(), "sleep");
        let begun = ask_one(&daemon, &other, record(first.pid(), false));
        assert_eq!(begun["reply"], "begun", "{begun}");
        first.end();
        fs::write("/proc/sys/kernel/ns_last_pid", (first.pid() - 1).to_string()).unwrap();
        let mut heirs = one.command("sh");
        heirs.args(["-c", "cat /etc/hostname; read line"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut heir = heirs.spawn().unwrap();
        if heir.id() != first.pid() {
            heir.kill().unwrap();
            heir.wait().unwrap();
            return None;
        }
        Some((begun["id"].as_str().unwrap().to_owned(), first.pid(), heir))
    });
    drop(heir.stdin.take());
    heir.wait().unwrap();
    daemon.idle().unwrap();
    let shown = session(&daemon, &other, &id);
    let strange: Vec<&Value> = shown
        .events
        .iter()
        .filter(|event| event["user"]["uid"] == json!(one.uid) || event["kind"] == "open")
        .collect();
    assert!(strange.is_empty(), "process {pid}: {strange:?}");
}

#[test]
fn recordings_and_sessions_of_others_are_as_good_as_none() {
    if lacking("two users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsi").unwrap(), Person::new(&scene, "obsj").unwrap());
    let daemon = service(&scene);
    let mut observed = attach(&daemon, &one, "private");
    let mut observed =
        observed.args(["--quiet", "--", "sh", "-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
    let known = recorded(&daemon, &one);
    let id = known["id"].as_str().unwrap();
    let asked = |id: &str| {
        let pins = [true, false].map(|on| json!({"op": "pin", "id": id, "on": on}));
        [json!({"op": "let-go", "id": id}), json!({"op": "wait", "id": id}), pins[0].clone(), pins[1].clone()]
    };
    let compare = || {
        let real = ask(&daemon, &other, &asked(id));
        let none = ask(&daemon, &other, &asked("20200101-000000-01234567"));
        for (real, none) in real.iter().zip(none) {
            assert_eq!(real["reply"], "error");
            let said = real["message"].as_str().unwrap().replace(id, "ID");
            assert_eq!(said, none["message"].as_str().unwrap().replace("20200101-000000-01234567", "ID"));
        }
    };
    compare();
    let shown = |person: &Person| {
        let status = ask_one(&daemon, person, json!({"op": "status"}));
        status["recordings"].as_array().unwrap().len()
    };
    assert_eq!((shown(&one), shown(&other)), (1, 0));
    drop(observed.stdin.take());
    observed.wait().unwrap();
    daemon.idle().unwrap();
    compare();
    assert!(sessions(&daemon, &other).is_empty());
    assert_eq!(sessions(&daemon, &one).len(), 1);
    let pinned = ask_one(&daemon, &one, json!({"op": "pin", "id": id, "on": true}));
    assert_eq!(pinned["reply"], "done", "{pinned}");
    // Who waits too late is not kept waiting.
    assert_eq!(ask_one(&daemon, &one, json!({"op": "wait", "id": id}))["reply"], "done");
}

#[test]
fn a_session_of_another_can_be_neither_read_nor_linked_to() {
    if lacking("two users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsk").unwrap(), Person::new(&scene, "obsl").unwrap());
    let mut daemon = service(&scene);
    for (person, name) in [(&one, "private"), (&other, "own")] {
        let mut observed = attach(&daemon, person, name);
        assert!(observed.args(["--quiet", "--", "true"]).status().unwrap().success());
    }
    daemon.idle().unwrap();
    let of = |person: &Person| sessions(&daemon, person)[0].clone();
    let (private, own) = (of(&one), of(&other));
    let path = private["path"].as_str().unwrap();
    let before = fs::read(path).unwrap();
    assert_eq!(
        ask_one(&daemon, &one, json!({"op": "pin", "id": private["id"], "on": true}))["reply"],
        "done"
    );

    let cannot = |words: &[&str]| {
        let output = other.command(words[0]).args(&words[1..]).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {}", text(&output.stdout));
    };
    let theirs = place(&daemon, &one);
    let mine = place(&daemon, &other);
    let folder = theirs.to_str().unwrap();
    cannot(&["ls", folder]);
    cannot(&["cat", path]);
    cannot(&["stat", path]);
    cannot(&["ls", daemon.base().join("users").to_str().unwrap()]);
    cannot(&["ls", daemon.base().join("running").to_str().unwrap()]);
    cannot(&["cat", daemon.base().join("index.sqlite").to_str().unwrap()]);
    cannot(&["ln", path, mine.join("20990101-000000-aaaaaaaa.sqlite").to_str().unwrap()]);
    cannot(&["touch", theirs.join("x").to_str().unwrap()]);
    cannot(&["touch", daemon.base().join("users/x").to_str().unwrap()]);
    cannot(&["mv", mine.to_str().unwrap(), scene.path("elsewhere").to_str().unwrap()]);
    assert!(!verb(&daemon, &other, &["show", path]).status.success());

    // Links in their own directory: for a new session, in the place of one, and of the key.
    symlink(path, mine.join("20990101-000000-bbbbbbbb.sqlite")).unwrap();
    let owned = Path::new(own["path"].as_str().unwrap());
    fs::remove_file(owned).unwrap();
    symlink(path, owned).unwrap();
    let precious = scene.path("precious");
    fs::write(&precious, "root's").unwrap();
    fs::remove_file(mine.join("key")).unwrap();
    symlink(&precious, mine.join("key")).unwrap();
    assert!(!verb(&daemon, &other, &["show", "20990101-000000-bbbbbbbb"]).status.success());
    let mut refused = attach(&daemon, &other, "linked");
    assert_eq!(refused.args(["--", "true"]).output().unwrap().status.code(), Some(125));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "root's");

    // Retention takes the link, and not what it leads to.
    daemon.end().unwrap();
    let config = scene.path("config.toml");
    fs::write(&config, "metrics.listen = \"\"\nrules = []\nretention.max_sessions = 1\n").unwrap();
    daemon.restart().unwrap();
    daemon.idle().unwrap();
    deadline::until("there is but one session", LIMIT, || {
        (daemon.status().ok()?["sessions"] == 1).then_some(())
    });
    assert_eq!(fs::read(path).unwrap(), before);
    assert_eq!(sessions(&daemon, &one).len(), 1);
}

#[test]
fn what_a_session_says_of_itself_touches_nobody_elses() {
    if lacking("two users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsm").unwrap(), Person::new(&scene, "obsn").unwrap());
    let daemon = service(&scene);
    assert!(attach(&daemon, &one, "first").args(["--quiet", "--", "true"]).status().unwrap().success());
    daemon.idle().unwrap();
    let id = sessions(&daemon, &one)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ask_one(&daemon, &one, json!({"op": "pin", "id": id, "on": true}))["reply"], "done");
    // The file is its owner's to write to while it is recorded: it claims to be the other's.
    let mut observed = attach(&daemon, &other, "forged");
    let mut observed =
        observed.args(["--quiet", "--", "sh", "-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
    let begun = recorded(&daemon, &other);
    let file = place(&daemon, &other).join(format!("{}.sqlite", begun["id"].as_str().unwrap()));
    // It is told of before its session is whole.
    let database = deadline::until("its session is there", LIMIT, || {
        let database =
            rusqlite::Connection::open_with_flags(&file, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
        database.busy_timeout(LIMIT).ok()?;
        let made = database.query_row("SELECT count(*) FROM meta WHERE key = 'header'", [], |row| row.get(0));
        (made == Ok(1)).then_some(database)
    });
    let forged =
        database.execute("UPDATE meta SET value = json_set(value, '$.id', ?1) WHERE key = 'header'", [&id]);
    assert_eq!(forged.unwrap(), 1);
    drop(database);
    drop(observed.stdin.take());
    observed.wait().unwrap();
    daemon.idle().unwrap();
    let unpinned = json!({"op": "pin", "id": id, "on": false});
    assert_eq!(ask_one(&daemon, &other, unpinned.clone())["reply"], "error", "it is not theirs");
    assert_eq!(ask_one(&daemon, &one, unpinned)["reply"], "done", "it is still its owner's");
    assert_eq!(daemon.status().unwrap()["sessions"], 2);
}
