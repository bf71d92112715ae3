//! One session as a run that can be compared: what it was given, and what it did in which order. Knows the model and events.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{normal::Normal, touched::Touched};
use crate::{
    event::{Address, Body, Event, Exec, Pid},
    model::{
        Model,
        dramatiq::{self, Role},
        files,
        process::{Execution, Process},
    },
    python::{self, Owner},
    session::{Ending, Header},
};

/// Happenings kept of one role; what comes after is not compared.
const MAX_STEPS: usize = 20_000;
/// Steps and module files kept while a session is read.
const MAX_KEPT: usize = 200_000;

/// One thing a process did, in words that compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) event: u64,
    pub(super) at_ns: u64,
    pub(super) what: String,
}

/// A session, being read.
#[derive(Debug)]
pub struct Reader {
    model: Model,
    raw: Vec<(u64, u64, Pid, Raw)>,
    opened: HashSet<(Pid, String)>,
    touched: Touched,
}

#[derive(Debug)]
enum Raw {
    Exec(Option<Vec<String>>),
    Module(String),
    Refused(String, i32),
    Connect(Address, i32),
    Said(String),
    Exit(Option<i32>, Option<i32>),
}

impl Reader {
    /// Nothing read yet of a session that began then.
    pub fn new(started_ns: u64) -> Self {
        Self {
            model: Model::new(started_ns),
            raw: Vec::new(),
            opened: HashSet::new(),
            touched: Touched::default(),
        }
    }

    /// Takes in the next event, in order of time.
    pub fn add(&mut self, id: u64, event: &Event) {
        self.touched.add(event);
        let raw = &mut self.raw;
        self.model.add_and_tell(id, event, &mut |said| {
            if !said.link.accepted && raw.len() < MAX_KEPT {
                raw.push((said.mark.event, said.mark.at_ns, said.mark.pid, Raw::Said(said.name())));
            }
        });
        let what = match &event.body {
            Body::Exec(exec) => Some(Raw::Exec(exec.argv.get().cloned())),
            Body::Open(call) if call.errno != 0 && !files::is_missing(call.errno) => {
                files::path_of(call).map(|path| Raw::Refused(path.to_owned(), call.errno))
            }
            Body::Open(_) => files::imported(&event.body).and_then(|module| {
                let first =
                    self.opened.len() < MAX_KEPT && self.opened.insert((event.pid, module.path.clone()));
                first.then_some(Raw::Module(module.path))
            }),
            Body::Connect { peer, errno, .. } if *errno != 115 => {
                peer.get().map(|peer| Raw::Connect(peer.clone(), *errno))
            }
            Body::Connected { peer, errno, .. } => peer.get().map(|peer| Raw::Connect(peer.clone(), *errno)),
            Body::Exit { code, signal, .. } => Some(Raw::Exit(*code, *signal)),
            _ => None,
        };
        if let Some(what) = what
            && self.raw.len() < MAX_KEPT
        {
            self.raw.push((id, event.at_ns, event.pid, what));
        }
    }

    /// Ends the reading.
    pub fn finish(mut self, header: &Header, ending: Option<Ending>) -> Run {
        self.model.finish();
        Run::new(header.clone(), ending, self.model, self.raw, self.touched)
    }
}

/// A run, ready to be compared.
#[derive(Debug)]
pub struct Run {
    /// What is known of the session.
    pub header: Header,
    /// How it ended.
    pub ending: Option<Ending>,
    /// What happened.
    pub model: Model,
    /// The program whose start is compared: dramatiq's master, else the last interpreter that was started, else the first program.
    pub(super) program: Option<Exec>,
    pub(super) program_pid: Option<Pid>,
    /// What each role did, in order.
    pub(super) steps: BTreeMap<&'static str, Vec<Step>>,
    /// Module files by their name in the run's own words, with the real path: of the interpreter's process and its workers.
    pub(super) modules: BTreeMap<String, String>,
    /// Directories that hold installed packages and modules, in the order they were first used.
    pub(super) folders: Vec<String>,
    /// The virtual environment's or installation's folder.
    pub(super) prefix: Option<String>,
    /// What it found, and what not.
    pub(super) touched: Touched,
    /// How its paths compare.
    pub(super) normal: Normal,
}

impl Run {
    fn new(
        header: Header,
        ending: Option<Ending>,
        model: Model,
        raw: Vec<(u64, u64, Pid, Raw)>,
        touched: Touched,
    ) -> Self {
        let (program_pid, program) = match chosen(&model) {
            Some((pid, program)) => (Some(pid), program.details.clone().map(|exec| *exec)),
            None => (None, None),
        };
        let of_tree =
            |pid: Pid| Some(pid) == program_pid || dramatiq::role(&model.processes, pid) == Role::Worker;
        let (mut prefix, mut stdlib, mut site) = (None, None, None);
        for (_, _, pid, what) in &raw {
            let Raw::Module(path) = what else { continue };
            if !of_tree(*pid) {
                continue;
            }
            if let Some((folder, _)) = split_at_packages(path) {
                prefix.get_or_insert_with(|| prefix_of(&folder).to_owned());
                site.get_or_insert(folder);
            } else if python::module_file(path).is_some_and(|module| module.owner == Owner::Stdlib) {
                stdlib.get_or_insert_with(|| stdlib_folder(path));
            }
        }
        let cwd = program.as_ref().and_then(|exec| exec.cwd.get().cloned());
        let normal = Normal::new([
            (site.clone(), "{site-packages}"),
            (stdlib.clone().flatten(), "{stdlib}"),
            (prefix.clone(), "{prefix}"),
            (cwd, "{cwd}"),
        ]);
        let mut steps: BTreeMap<&'static str, Vec<Step>> = BTreeMap::new();
        let mut modules = BTreeMap::new();
        let mut folders = Vec::new();
        let mut seen_folders = BTreeSet::new();
        for (event, at_ns, pid, what) in raw {
            let role = dramatiq::role(&model.processes, pid);
            if let Raw::Module(path) = &what
                && of_tree(pid)
            {
                let folder = folder_of(path);
                if seen_folders.insert(folder.clone()) {
                    folders.push(folder);
                }
                modules.entry(module_name(path, &normal)).or_insert_with(|| path.clone());
            }
            let Some(what) = words(&what, &normal, &model, pid) else { continue };
            let lane = steps.entry(role.name()).or_default();
            if lane.len() < MAX_STEPS {
                lane.push(Step { event, at_ns, what });
            }
        }
        Self { header, ending, model, program, program_pid, steps, modules, folders, prefix, touched, normal }
    }
}

/// The process and program whose start is compared.
fn chosen(model: &Model) -> Option<(Pid, &Execution)> {
    let is_python = |process: &&Process| {
        let name = process.program().and_then(|program| program.exe.get());
        name.is_some_and(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("python")))
    };
    let speaks = |process: &&Process| model.amqp.links().any(|link| link.opened.pid == process.pid);
    let all = || model.processes.iter().filter(|process| process.program().is_some());
    let python = all()
        .find(|process| dramatiq::role(&model.processes, process.pid) == Role::Master)
        .or_else(|| all().filter(is_python).find(speaks))
        .or_else(|| all().filter(is_python).last());
    // Without an interpreter it is all that was started, not what a shell came to at last.
    let (process, program) = match python {
        Some(process) => (process, process.program()),
        None => all().next().map(|process| (process, process.execs.first()))?,
    };
    Some((process.pid, program?))
}

/// What a step is called; `None` for what is not compared step by step.
fn words(what: &Raw, normal: &Normal, model: &Model, pid: Pid) -> Option<String> {
    Some(match what {
        Raw::Exec(argv) => {
            let argv = argv.as_deref().unwrap_or_default();
            let name = argv.first().and_then(|word| word.rsplit('/').next()).unwrap_or("?");
            format!("runs {name}")
        }
        Raw::Module(path) => format!("loads {}", normal.path(path)),
        Raw::Refused(path, errno) => {
            format!("cannot open {}: {}", normal.path(path), crate::words::names::errno(*errno))
        }
        Raw::Connect(Address::Inet { ip, port }, errno) => {
            let own = model.connections.iter().any(|connection| {
                connection.pid == pid
                    && connection.peer.get() == Some(&Address::Inet { ip: *ip, port: *port })
                    && (connection.is_datagram || model.connections.is_own_loop(connection))
            });
            if own {
                return None;
            }
            match errno {
                0 => "connects".to_owned(),
                errno => format!("connects: {}", crate::words::names::errno(*errno)),
            }
        }
        Raw::Connect(..) => return None,
        Raw::Said(name) if name == "heartbeat" => return None,
        Raw::Said(name) => format!("AMQP {name}"),
        Raw::Exit(code, signal) => match (code, signal) {
            (_, Some(signal)) => format!("is killed by {}", crate::words::names::signal(*signal)),
            (code, None) => format!("exits with {}", code.unwrap_or_default()),
        },
    })
}

/// The folder of installed packages a path lies in, and the rest.
fn split_at_packages(path: &str) -> Option<(String, &str)> {
    ["/site-packages/", "/dist-packages/"].iter().find_map(|name| {
        let at = path.find(name)? + name.len();
        Some((path.get(..at - 1)?.to_owned(), path.get(at..)?))
    })
}

/// `/venv` of `/venv/lib/python3.12/site-packages`.
fn prefix_of(packages: &str) -> &str {
    packages.rsplitn(4, '/').nth(3).unwrap_or(packages)
}

fn stdlib_folder(path: &str) -> Option<String> {
    let mut end = 0;
    for part in path.split_inclusive('/') {
        end += part.len();
        if part
            .strip_prefix("python")
            .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        {
            return path.get(..end - 1).map(str::to_owned);
        }
    }
    None
}

/// The directory of `sys.path` a module file was found through, as far as its path tells.
fn folder_of(path: &str) -> String {
    if let Some((folder, _)) = split_at_packages(path) {
        return folder;
    }
    if python::module_file(path).is_some_and(|module| module.owner == Owner::Stdlib)
        && let Some(folder) = stdlib_folder(path)
    {
        return folder;
    }
    path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
}

/// What a module file stands for: `dramatiq.worker` for an installed or standard library's, the normal path for an own one.
fn module_name(path: &str, normal: &Normal) -> String {
    let dotted = |rest: &str| {
        let rest = rest.strip_suffix("/__init__.py").or_else(|| rest.strip_suffix(".py")).unwrap_or(rest);
        rest.strip_prefix("lib-dynload/")
            .unwrap_or(rest)
            .split(".cpython-")
            .next()
            .unwrap_or(rest)
            .replace('/', ".")
    };
    if let Some((_, rest)) = split_at_packages(path) {
        return dotted(rest);
    }
    if python::module_file(path).is_some_and(|module| module.owner == Owner::Stdlib)
        && let Some(folder) = stdlib_folder(path)
        && let Some(rest) = path.strip_prefix(&folder)
    {
        return dotted(rest.trim_start_matches('/'));
    }
    let normal = normal.path(path);
    match normal.strip_prefix("{cwd}/") {
        Some(rest) => dotted(rest),
        // Which part of it is the directory of sys.path does not show: its own name, and that of its package where it is one.
        None => dotted(normal.trim_end_matches("/__init__.py").rsplit('/').next().unwrap_or(&normal)),
    }
}
