//! A running tree is taken as it is, what it was before is read from /proc and marked so, and it is let go unharmed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::scene::{Scene, Session, written};
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";

/// AMQP's frame of type 8, on channel 0, of no length.
const HEARTBEAT: &[u8] = b"\x08\0\0\0\0\0\0\xce";

/// A target that ends with its test.
struct Target(Child);

impl Target {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'T', 't'])
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An observer that is attached: it says so once everything that was there is followed.
struct Attached {
    observer: Child,
    said: BufReader<ChildStderr>,
}

impl Attached {
    fn new(scene: &Scene, name: &str, words: &[&str]) -> Self {
        let mut command = scene.attach(name).unwrap();
        let mut observer = command.args(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(observer.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        assert!(first.starts_with("observer: recording"), "{first}");
        Self { observer, said }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.observer.id() as i32), signal).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (self.observer.wait().unwrap().code(), rest)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.observer.kill();
        let _ = self.observer.wait();
    }
}

/// `tree.py`, connected to a listener that accepts and answers.
struct Tree {
    target: Target,
    facts: Value,
    port: u16,
    connections: Vec<TcpStream>,
    orders: usize,
}

impl Tree {
    fn start(scene: &Scene) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let child = Command::new(PYTHON)
            .arg(target::folder().join("tree.py"))
            .arg(scene.path(""))
            .arg(port.to_string())
            .env("OBSERVER_TEST_MARK", "ä b=c")
            .current_dir("/usr/share")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let target = Target(child);
        let connections = (0..3).map(|_| listener.accept().unwrap().0).collect();
        let file = scene.path("tree.json");
        let facts = deadline::until("the tree stands", LIMIT, || written(&file).ok());
        Self { target, facts, port, connections, orders: 0 }
    }

    fn order(&mut self, scene: &Scene, order: &str) {
        writeln!(self.target.0.stdin.as_mut().unwrap(), "{order}").unwrap();
        self.orders += 1;
        let done = scene.path(&format!("done-{}", self.orders));
        deadline::until(&format!("`{order}` is done"), LIMIT, || done.exists().then_some(()));
    }

    /// What the workers' peers have received so far is taken out of the way; then the next piece is answered.
    fn answer_next(&mut self) -> std::thread::JoinHandle<()> {
        let wanted = self.facts["workers"][0]["local_port"].as_u64().unwrap();
        let mut stream = self
            .connections
            .iter()
            .find(|stream| u64::from(stream.peer_addr().unwrap().port()) == wanted)
            .unwrap()
            .try_clone()
            .unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut before = [0; 8];
        stream.read_exact(&mut before).unwrap();
        assert_eq!(&before, b"before 0");
        std::thread::spawn(move || {
            let mut after = [0; 21];
            stream.read_exact(&mut after).unwrap();
            stream.write_all(HEARTBEAT).unwrap();
        })
    }

    fn workers(&self) -> &[Value] {
        self.facts["workers"].as_array().unwrap()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The `exec` of a process as it was found in /proc.
fn found(session: &Session, pid: u64) -> &Value {
    let execs: Vec<&Value> = session.of_process(pid, "exec").collect();
    assert_eq!(execs.len(), 1, "{pid}");
    assert_eq!(execs[0]["observed_from"], "proc");
    execs[0]
}

#[test]
fn what_a_tree_was_before_is_read_from_proc_and_marked_so() {
    let scene = Scene::new().unwrap();
    let mut tree = Tree::start(&scene);
    let attached = Attached::new(&scene, "past", &["--pid", &tree.target.pid().to_string()]);
    tree.order(&scene, "fork");
    attached.signal(Signal::SIGINT);
    assert_eq!(attached.end().0, Some(0));

    let session = scene.session("past").unwrap();
    let master = u64::from(tree.target.pid());
    assert_eq!(session.header["attached"], master);
    let forks: HashSet<u64> = session
        .of_process(master, "fork")
        .filter(|fork| fork["observed_from"] == "proc")
        .map(|fork| number(&fork["child"]))
        .collect();
    assert_eq!(forks, tree.workers().iter().map(|worker| number(&worker["pid"])).collect());
    let read = |pid: u64, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap();
    let strings = |bytes: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(bytes).unwrap();
        text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
    };
    for pid in tree.workers().iter().map(|worker| number(&worker["pid"])).chain([master]) {
        let exec = found(&session, pid);
        assert_eq!(exec["argv"], serde_json::json!(strings(read(pid, "cmdline"))));
        let names = |env: &[String]| {
            env.iter().map(|line| line.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let env: Vec<String> =
            exec["env"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect();
        assert_eq!(names(&env), names(&strings(read(pid, "environ"))));
        assert!(env.contains(&"OBSERVER_TEST_MARK=ä b=c".to_owned()));
        assert_eq!(exec["cwd"], "/usr/share");
        assert_eq!(exec["exe"]["path"], fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_str().unwrap());
        assert_eq!(exec["stdio"][1]["path"], "/dev/null");
    }
    for worker in tree.workers() {
        let pid = number(&worker["pid"]);
        assert_eq!(number(&found(&session, pid)["ppid"]), master);
        let threads: HashSet<u64> = session
            .of_process(pid, "thread")
            .inspect(|thread| assert_eq!(thread["observed_from"], "proc"))
            .map(|thread| number(&thread["child"]))
            .collect();
        let own = worker["threads"].as_array().unwrap().iter().map(number).filter(|tid| *tid != pid);
        assert_eq!(threads, own.collect());
        let connect =
            session.of_process(pid, "connect").find(|connect| connect["socket"] == worker["socket"]).unwrap();
        assert_eq!(connect["observed_from"], "proc");
        assert_eq!(
            connect["peer"],
            serde_json::json!({"family": "inet", "ip": "127.0.0.1", "port": tree.port})
        );
        assert_eq!(
            connect["local"],
            serde_json::json!({"family": "inet", "ip": "127.0.0.1", "port": worker["local_port"]})
        );
    }
}

#[test]
fn what_happens_afterwards_is_seen_as_it_happens() {
    let scene = Scene::new().unwrap();
    let mut tree = Tree::start(&scene);
    let attached = Attached::new(&scene, "live", &["--pid", &tree.target.pid().to_string()]);
    tree.order(&scene, "fork");
    writeln!(tree.target.0.stdin.as_mut().unwrap(), "exit").unwrap();
    let (status, rest) = attached.end();
    // Its status is not ours to know: it is somebody else's child.
    assert_eq!(status, Some(0), "{rest}");
    let session = scene.session("live").unwrap();
    assert_eq!(session.header["ending"]["reason"], "exited");
    let worker = number(&tree.workers()[0]["pid"]);
    let fork = session.of_process(worker, "fork").next().unwrap();
    assert_eq!(fork["observed_from"], *target::backend());
    let child = number(&fork["child"]);
    let opened = scene.path("opened");
    assert!(
        session
            .of_process(child, "open")
            .any(|open| open["resolved"] == opened.to_str().unwrap() && open["errno"] == 0)
    );
    assert_eq!(session.output_of(child), "hello\n");
    assert_eq!(session.of_process(child, "exit").next().unwrap()["code"], 5);
    for worker in tree.workers() {
        assert_eq!(session.of_process(number(&worker["pid"]), "exit").next().unwrap()["code"], 0);
    }
    assert_eq!(session.of_process(u64::from(tree.target.pid()), "exit").next().unwrap()["code"], 0);
}

#[test]
fn data_on_a_connection_that_was_open_is_marked_and_kept_when_the_broker_was_named() {
    let scene = Scene::new().unwrap();
    for (named, expected) in [
        (true, vec![("sent", 21, "AQABAAAADQA8AFAAAAAAAAAABwDO"), ("received", 8, "CAAAAAAAAM4=")]),
        (false, vec![]),
    ] {
        let name = format!("named-{named}");
        let scene_of_tree = Scene::new().unwrap();
        let mut tree = Tree::start(&scene_of_tree);
        let (pid, broker) =
            (tree.target.pid().to_string(), format!("amqp://me:secret@127.0.0.1:{}/", tree.port));
        let mut words = vec!["--pid", &pid];
        words.extend(named.then_some(["--broker", &broker]).into_iter().flatten());
        let attached = Attached::new(&scene, &name, &words);
        let peer = tree.answer_next();
        tree.order(&scene_of_tree, "send");
        peer.join().unwrap();
        attached.signal(Signal::SIGINT);
        attached.end();
        let session = scene.session(&name).unwrap();
        let data: Vec<(&str, u64, &str)> = session
            .kind("data")
            .inspect(|data| {
                assert_eq!(data["since_attach"], true, "{data}");
                assert_eq!(data["offset"], 0, "{data}");
                assert_eq!(data["socket"], tree.workers()[0]["socket"], "{data}");
                assert_eq!(data["pid"], tree.workers()[0]["pid"], "{data}");
            })
            .map(|data| {
                let kept = data["bytes"]["base64"].as_str().unwrap_or_else(|| panic!("{data}"));
                (data["direction"].as_str().unwrap(), number(&data["len"]), kept)
            })
            .collect();
        assert_eq!(data, expected, "--broker given: {named}");
    }
}

#[test]
fn forks_during_attach_lose_no_child() {
    let scene = Scene::new().unwrap();
    let file = scene.path("bred");
    let target =
        Target(Command::new(PYTHON).arg(target::folder().join("breeder.py")).arg(&file).spawn().unwrap());
    let bred = || -> Vec<(u64, u64)> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let pair = |line: &str| {
            line.split_once(' ').map(|(pid, parent)| (pid.parse().unwrap(), parent.parse().unwrap()))
        };
        text.split_inclusive('\n').filter_map(|line| pair(line.strip_suffix('\n')?)).collect()
    };
    deadline::until("it breeds", LIMIT, || (bred().len() > 20).then_some(()));
    for round in 0..3 {
        let name = format!("breeding-{round}");
        let attached = Attached::new(&scene, &name, &["--pid", &target.pid().to_string()]);
        let (at, after) = (bred().len(), bred().len() + 200);
        deadline::until("it breeds on", LIMIT, || (bred().len() > after).then_some(()));
        attached.signal(Signal::SIGINT);
        attached.end();
        let session = scene.session(&name).unwrap();
        let forked: HashMap<u64, u64> =
            session.kind("fork").map(|fork| (number(&fork["child"]), number(&fork["pid"]))).collect();
        // From one that is known to have begun after we were there, to one that had ended before we left.
        for (pid, parent) in &bred()[at + 2..after - 4] {
            assert_eq!(forked.get(pid), Some(parent), "round {round}: {pid}, child of {parent}");
        }
        // The one that stood when we came is found, with all it went on to do.
        assert_eq!(found(&session, u64::from(target.pid()))["observed_from"], "proc");
        for exec in session.kind("exec") {
            let pid = number(&exec["pid"]);
            assert!(
                pid == u64::from(target.pid()) || forked.contains_key(&pid),
                "round {round}: {pid} is nobody's child"
            );
        }
    }
    fs::write(scene.path("bred.stop"), "").unwrap();
}

#[test]
fn letting_go_leaves_the_target_running() {
    let scene = Scene::new().unwrap();
    let mut tree = Tree::start(&scene);
    let pid = tree.target.pid().to_string();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let name = format!("until-{signal}");
        let attached = Attached::new(&scene, &name, &["--pid", &pid]);
        attached.signal(signal);
        assert_eq!(attached.end().0, Some(0), "{signal}");
        assert_eq!(scene.session(&name).unwrap().header["ending"]["reason"], "interrupted");
    }
    let attached = Attached::new(&scene, "limited", &["--pid", &pid, "--for", "300ms"]);
    assert_eq!(attached.end().0, Some(0));
    assert_eq!(scene.session("limited").unwrap().header["ending"]["reason"], "time-limit");
    let mut attached = Attached::new(&scene, "killed", &["--pid", &pid]);
    attached.observer.kill().unwrap();
    attached.observer.wait().unwrap();
    assert!(tree.target.runs());
    // It not only stands there: it does what it is told.
    tree.order(&scene, "fork");
    let session = scene.session("until-SIGINT").unwrap();
    assert_eq!(session.of_process(u64::from(tree.target.pid()), "signal").count(), 0);
}

#[test]
fn several_matches_are_listed_and_one_is_taken() {
    let scene = Scene::new().unwrap();
    let mark = format!("observer-test-mark-{}", std::process::id());
    let sleeper = |extra: &str| {
        let script = "import signal, sys; print('ready', flush=True); signal.pause()";
        let mut child =
            Command::new(PYTHON).args(["-c", script, &mark, extra]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        Target(child)
    };
    let (first, second) = (sleeper("first"), sleeper("second\u{1b}[31m"));
    let output = scene.attach("several").unwrap().args(["--pid", &mark]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("2 processes"), "{said}");
    for target in [&first, &second] {
        assert!(
            said.lines().any(|line| line.split_whitespace().next() == Some(&target.pid().to_string())),
            "{said}"
        );
    }
    assert!(
        said.contains("first") && said.contains("second\\x1b[31m") && said.contains("--pid PID"),
        "{said}"
    );
    let one = format!("{mark} first");
    let attached = Attached::new(&scene, "one", &["--pid", &one]);
    attached.signal(Signal::SIGINT);
    attached.end();
    assert_eq!(scene.session("one").unwrap().header["attached"], first.pid());
}

#[test]
fn what_cannot_be_attached_to_is_said_clearly() {
    let scene = Scene::new().unwrap();
    let refused = |pid: &str, wanted: &[&str]| {
        let output = scene.attach("none").unwrap().args(["--pid", pid]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{pid}: {said}");
        for part in wanted {
            assert!(said.contains(part), "{pid}: {part:?} is not said: {said}");
        }
    };
    let mut gone = Command::new("true").spawn().unwrap();
    let pid = gone.id().to_string();
    gone.wait().unwrap();
    refused(&pid, &[&pid, "no such process"]);
    refused("4294967295", &["no such process"]);
    refused("99999999999", &["99999999999"]);
    refused("no process has these words", &["no process has"]);
    refused("", &["--pid"]);
    let tree_scene = Scene::new().unwrap();
    let tree = Tree::start(&tree_scene);
    let worker = &tree.workers()[0];
    let thread = worker["threads"].as_array().unwrap().iter().find(|tid| **tid != worker["pid"]).unwrap();
    refused(&thread.to_string(), &["thread of process", &worker["pid"].to_string()]);
    assert_eq!(
        fs::read_to_string("/proc/2/comm").unwrap(),
        "kthreadd\n",
        "live tests run in the first PID namespace"
    );
    refused("2", &["kernel thread"]);
    let zombie = Target(Command::new("true").spawn().unwrap());
    deadline::until("it is a zombie", LIMIT, || (!zombie.runs()).then_some(()));
    refused(&zombie.pid().to_string(), &["it has ended"]);
    assert_eq!(fs::read_dir(scene.state_dir()).into_iter().flatten().count(), 0, "nothing was recorded");
}
