//! What the disk says of modules that could not be imported, and of those that declare actors: looked for when a process of a Python
//! command ends or the observation does. Wraps the source that sees the processes. Knows file names; draws no conclusions.
//!
//! Python's own look-ups say where a module was not. Where it is instead, only the disk can tell, and it has to be asked now: `explain`
//! knows nothing but the session. What is asked is bounded and asked in a thread of its own, so that a file system that does not answer
//! holds up nothing.

mod look;
mod search;
mod shadows;
mod text;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Flow, Source, SourceError, proc};
use crate::{
    capability::Description,
    event::{Address, Body, Event, Exec, Origin, Pid, Tid},
    python::{self, Owner, command::Command},
};

/// Processes followed.
const MAX_PROCESSES: usize = 2_000;
/// Own modules of one process, and directories of installed ones, that are remembered.
const MAX_OWN: usize = 200;
const MAX_SITES: usize = 8;
/// Top-level modules of one directory of installed ones.
const MAX_LOADED: usize = 2_000;
/// Modules searched for, and sources looked at, in one observation.
const MAX_SEARCHES: usize = 24;
const MAX_LOOKS: usize = 300;
/// Texts that were read, and are looked at, in one observation.
const MAX_TEXTS: usize = 3_000;
/// How long the end of the observation waits for the disk.
const PATIENCE: Duration = Duration::from_millis(700);
/// A worker that has lived so long without a connection may have nothing to consume.
const SETTLED_NS: u64 = 1_500_000_000;
const O_ACCMODE: u64 = 3;

/// A question to the disk.
enum Question {
    Search { pid: Pid, name: String, place: search::Place },
    Look { pid: Pid, path: String },
    Text { pid: Pid, path: String, program: Arc<Program>, own: bool },
    Shadows { pid: Pid, path: Vec<String>, found: BTreeMap<String, String> },
    Versions { site: String, loaded: BTreeSet<String>, own: BTreeSet<String> },
}

/// A source, and the disk beside it.
pub struct Nearby<S> {
    inner: S,
    processes: HashMap<Pid, Process>,
    sites: Vec<String>,
    /// Top-level modules that were loaded, by directory of packages.
    loaded: BTreeMap<String, BTreeSet<String>>,
    /// Directories of own modules.
    own: BTreeSet<String>,
    searched: BTreeSet<String>,
    looked: BTreeSet<String>,
    texts: HashSet<String>,
    asked: usize,
    answered: usize,
    questions: Option<Sender<Question>>,
    answers: Option<Receiver<Option<Event>>>,
}

/// What is remembered of a process.
#[derive(Clone, Default)]
struct Process {
    program: Option<Arc<Program>>,
    since_ns: u64,
    own: Vec<String>,
    missing: Vec<String>,
    searches: shadows::Searches,
    connected: bool,
    done: bool,
}

struct Program {
    cwd: String,
    command: Option<Command>,
    module_path: Vec<String>,
    names: text::Names,
}

impl<S: Source> Nearby<S> {
    /// Wraps a source of processes and files.
    pub fn around(inner: S) -> Self {
        Self {
            inner,
            processes: HashMap::new(),
            sites: Vec::new(),
            loaded: BTreeMap::new(),
            own: BTreeSet::new(),
            searched: BTreeSet::new(),
            looked: BTreeSet::new(),
            texts: HashSet::new(),
            asked: 0,
            answered: 0,
            questions: None,
            answers: None,
        }
    }

    fn see(&mut self, event: &Event) {
        match &event.body {
            Body::Fork { child } => {
                if self.processes.len() >= MAX_PROCESSES {
                    return;
                }
                let parent = self.processes.get(&event.pid);
                let (program, own) =
                    parent.map_or((None, Vec::new()), |p| (p.program.clone(), p.own.clone()));
                let child_of = Process { program, own, since_ns: event.at_ns, ..Process::default() };
                self.processes.insert(*child, child_of);
            }
            Body::Exec(exec) if self.processes.len() < MAX_PROCESSES => {
                let parents = self.processes.get(&exec.ppid).and_then(|parent| parent.program.clone());
                let program = program(exec, parents);
                let process = Process { program, since_ns: event.at_ns, ..Process::default() };
                self.processes.insert(event.pid, process);
            }
            Body::Open(call) if call.errno == 0 && call.flags & O_ACCMODE == 0 => {
                let path = call.resolved.get().or_else(|| call.path.get());
                if let Some(path) = path {
                    self.opened(event, path);
                }
            }
            Body::Import(_) | Body::Imported(_) | Body::Stat(_) => {
                if let Some(process) = self.processes.get_mut(&event.pid) {
                    process.searches.see(event);
                }
            }
            Body::Connect { peer, .. } => {
                // A loopback port of its own is pika's wake-up pair: it may well have a consumer then.
                if matches!(peer.get(), Some(Address::Inet { .. }))
                    && let Some(process) = self.processes.get_mut(&event.pid)
                {
                    process.connected = true;
                }
            }
            Body::Output { .. } => {
                if let Some(process) = self.processes.get_mut(&event.pid)
                    && process.program.is_some()
                {
                    search::names_in(&event.bytes, &mut process.missing);
                }
            }
            Body::Exit { code, .. } => {
                let failed = code.is_some_and(|code| code != 0);
                self.ask(event.pid, failed, event.at_ns);
                self.processes.remove(&event.pid);
            }
            _ => {}
        }
    }

    fn opened(&mut self, event: &Event, path: &str) {
        let Some(process) = self.processes.get_mut(&event.pid).filter(|process| process.program.is_some())
        else {
            return;
        };
        if path.ends_with(".pth") {
            // What is installed to be edited may be all that is used of this directory.
            if let Some((site, _)) = path.rsplit_once('/').filter(|_| self.loaded.len() < MAX_SITES) {
                self.loaded.entry(site.to_owned()).or_default();
            }
        }
        let Some(module) = python::module_file(path) else {
            if is_text(path) {
                self.read(event.pid, path.to_owned(), true);
            }
            return;
        };
        process.searches.opened(event.tid);
        let is_source = !module.path.ends_with(".so");
        match module.owner {
            Owner::Own => {
                if let Some((directory, _)) =
                    module.path.rsplit_once('/').filter(|_| self.own.len() < MAX_OWN)
                {
                    self.own.insert(directory.to_owned());
                }
                if is_source {
                    if process.own.len() < MAX_OWN && !process.own.contains(&module.path) {
                        process.own.push(module.path.clone());
                    }
                    self.read(event.pid, module.path, true);
                }
            }
            Owner::Package(top) => {
                let at = module.path.find("-packages/").map(|at| at + "-packages".len());
                let Some(site) = at.and_then(|at| module.path.get(..at)) else { return };
                if self.sites.len() < MAX_SITES && !self.sites.iter().any(|known| known == site) {
                    self.sites.push(site.to_owned());
                }
                if self.loaded.len() < MAX_SITES || self.loaded.contains_key(site) {
                    let loaded = self.loaded.entry(site.to_owned()).or_default();
                    if loaded.len() < MAX_LOADED {
                        loaded.insert(top);
                    }
                }
                if is_source {
                    self.read(event.pid, module.path, false);
                }
            }
            Owner::Stdlib => {}
        }
    }

    /// A text was read: what is it, and which variables does it name?
    fn read(&mut self, pid: Pid, path: String, own: bool) {
        let program = self.processes.get(&pid).and_then(|process| process.program.clone());
        if let Some(program) = program
            && self.texts.len() < MAX_TEXTS
            && self.texts.insert(path.clone())
        {
            self.put(Question::Text { pid, path, program, own });
        }
    }

    /// A process is over, or the observation is: what is worth asking of it?
    fn ask(&mut self, pid: Pid, failed: bool, now_ns: u64) {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.done) else { return };
        process.done = true;
        let question = std::mem::take(&mut process.searches).question();
        let process = process.clone();
        if let Some((path, found)) = question {
            self.put(Question::Shadows { pid, path, found });
        }
        let Some(program) = process.program else { return };
        if failed {
            let mut names = process.missing.clone();
            if let Some(command) = &program.command {
                names.extend(command.imports().map(str::to_owned));
            }
            // A local file may stand where another module was wanted.
            names.extend(
                process
                    .own
                    .iter()
                    .filter_map(|path| search::top_level(path, &program.cwd, &program.module_path)),
            );
            for name in names {
                self.search(pid, name, &program);
            }
        }
        let settled = now_ns.saturating_sub(process.since_ns) > SETTLED_NS;
        if program.command.is_some() && !process.connected && settled {
            for path in process.own {
                self.look(pid, path);
            }
        }
    }

    fn search(&mut self, pid: Pid, name: String, program: &Program) {
        let key = format!("{}\0{name}", program.cwd);
        if self.searched.len() < MAX_SEARCHES && self.searched.insert(key) {
            let place = search::Place {
                cwd: program.cwd.clone(),
                module_path: program.module_path.clone(),
                sites: self.sites.clone(),
            };
            self.put(Question::Search { pid, name, place });
        }
    }

    fn look(&mut self, pid: Pid, path: String) {
        if self.looked.len() < MAX_LOOKS && self.looked.insert(path.clone()) {
            self.put(Question::Look { pid, path });
        }
    }

    fn put(&mut self, question: Question) {
        let questions = self.questions.get_or_insert_with(|| {
            let (questions, asked) = mpsc::channel();
            let (answer, answers) = mpsc::channel();
            self.answers = Some(answers);
            thread::spawn(move || {
                crate::source::step_back();
                answer_all(&asked, &answer);
            });
            questions
        });
        self.asked += usize::from(questions.send(question).is_ok());
    }

    fn take(&mut self, out: &mut Vec<Event>, until: Option<Instant>) {
        let Some(answers) = &self.answers else { return };
        while self.answered < self.asked {
            let wait = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            match answers.recv_timeout(wait) {
                Ok(event) => out.extend(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
            self.answered += 1;
        }
    }
}

fn answer_all(questions: &Receiver<Question>, answers: &Sender<Option<Event>>) {
    for question in questions {
        let (pid, body, bytes) = match question {
            Question::Search { pid, name, place } => {
                (pid, Some(Body::ModuleSearch(search::search(&name, &place))), Vec::new())
            }
            Question::Look { pid, path } => (pid, Some(Body::SourceLook(look::look(&path))), Vec::new()),
            Question::Text { pid, path, program, own } => {
                let (look, content) = text::look(pid, &path, &program.names, own).unzip();
                (pid, look.map(Body::FileLook), content.unwrap_or_default())
            }
            Question::Shadows { pid, path, found } => {
                (pid, Some(Body::ModuleShadows(shadows::look(&path, &found))), Vec::new())
            }
            Question::Versions { site, loaded, own } => {
                (Pid(0), Some(Body::Distributions(versions::look(&site, &loaded, &own))), Vec::new())
            }
        };
        let at_ns = proc::monotonic_ns();
        let event =
            body.map(|body| Event { at_ns, pid, tid: Tid(0), observed_from: Origin::Proc, body, bytes });
        if answers.send(event).is_err() {
            return;
        }
    }
}

/// What of a program is remembered, when it is Python's.
fn program(exec: &Exec, parents: Option<Arc<Program>>) -> Option<Arc<Program>> {
    let argv = exec.argv.get()?;
    // What `multiprocessing` starts for its parent knows the parent's arguments (CPython 3.10 to 3.14, `multiprocessing/spawn.py`).
    if argv
        .iter()
        .any(|word| word.contains("multiprocessing.spawn") || word.contains("multiprocessing.forkserver"))
    {
        return parents;
    }
    let first = argv.first()?.rsplit('/').next().unwrap_or_default();
    let command = Command::read(argv);
    if !first.starts_with("python") && command.is_none() {
        return None;
    }
    let cwd = exec.cwd.get()?.clone();
    let mut module_path = Vec::new();
    let variables = exec.env.get().map_or(&[][..], Vec::as_slice);
    let entries = variables.iter().find_map(|pair| pair.strip_prefix("PYTHONPATH=")).unwrap_or_default();
    let given = command.as_ref().map_or(&[][..], |command| &command.path);
    for entry in entries.split(':').chain(given.iter().map(String::as_str)).filter(|entry| !entry.is_empty())
    {
        module_path.push(if entry.starts_with('/') { entry.to_owned() } else { format!("{cwd}/{entry}") });
    }
    Some(Arc::new(Program { cwd, command, module_path, names: text::Names::of(variables) }))
}

/// Whether a file that is no module may be one that somebody wrote for the program: nothing of the system's own accounts, of the
/// interpreter or of an installed distribution, but for what changes the module path.
fn is_text(path: &str) -> bool {
    let system = ["/proc/", "/sys/", "/dev/"].iter().any(|folder| path.starts_with(folder));
    let library = path.ends_with(".so") || path.contains(".so.") || path.ends_with(".cache");
    !system && !library && (python::owner(path) == Owner::Own || path.ends_with(".pth"))
}

impl<S: Source> Source for Nearby<S> {
    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError> {
        let from = out.len();
        let flow = self.inner.poll(wait, room, out);
        for event in out.get(from..).unwrap_or_default() {
            self.see(event);
        }
        self.take(out, None);
        flow
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        let from = out.len();
        self.inner.finish(out);
        for event in out.get(from..).unwrap_or_default() {
            self.see(event);
        }
        let now_ns = proc::monotonic_ns();
        let mut left: Vec<Pid> = self.processes.keys().copied().collect();
        left.sort_unstable();
        for pid in left {
            self.ask(pid, false, now_ns);
        }
        for (site, loaded) in std::mem::take(&mut self.loaded) {
            self.put(Question::Versions { site, loaded, own: self.own.clone() });
        }
        self.take(out, Some(Instant::now() + PATIENCE));
    }
}
