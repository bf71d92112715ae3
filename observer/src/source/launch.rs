//! Starting the command to observe, so that it cannot tell: the same standing, descriptors, signals, limits and terminal as if it had
//! been started in our place. Knows nothing of what is recorded of it.
#![expect(unsafe_code, reason = "fork(2), signal(2) and environ(7) have no safe wrapper")]

use std::{
    ffi::{CStr, CString, OsStr, OsString, c_char},
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        prctl::set_no_new_privs,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigHandler, Signal, signal},
        stat::{Mode, umask},
    },
    unistd::{ForkResult, Gid, Uid, execve, fork, pipe2, setgid, setgroups, setuid},
};

use crate::{event::Pid, python::installed::Start};

/// Whom a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The environment as it was before sudo put its own in place: the command gets that, a virtual environment's PATH with it. `None`
    /// where there is no sudo to ask.
    pub before_sudo: Option<Vec<CString>>,
    /// Variables that say who and where home is (`HOME`, `USER`, `LOGNAME`), where the environment is not that user's own.
    pub identity: Vec<(String, String)>,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Whom to run it as; `None` leaves everything as it is.
    pub standing: Option<Standing>,
    /// Its environment; `None`: as we were given it, or as `standing` says.
    pub environment: Option<Vec<CString>>,
    /// Its file mode creation mask; `None`: ours.
    pub umask: Option<u32>,
    /// Its soft resource limits, where they are not to be ours.
    pub limits: Vec<(Resource, u64)>,
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It was not found.
    #[error("cannot run {name}: no such command; looked in {looked}")]
    NotFound {
        /// The command as given.
        name: String,
        /// Where it was looked for.
        looked: String,
    },
    /// It was found and cannot be executed.
    #[error("cannot run {}: {answer}", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        answer: Errno,
    },
    /// We could not get as far as to try.
    #[error("cannot start the command: {attempted}: {answer}")]
    Failed {
        /// What was attempted.
        attempted: &'static str,
        /// What the system answered.
        answer: Errno,
    },
}

impl LaunchError {
    /// The exit status `env(1)` and `timeout(1)` use for it.
    pub const fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Failed { .. } => 125,
        }
    }
}

/// A seccomp program that a command is started with. It stays for good, in all that the command starts: once whoever it sends calls to is
/// gone, those calls fail with `ENOSYS`.
#[derive(Clone)]
pub struct Filter(pub Vec<nix::libc::sock_filter>);

impl Filter {
    /// Puts it in place. Without privilege the kernel wants it that no program gives rights any more (seccomp(2)).
    fn install(&mut self) -> Result<(), Errno> {
        use nix::libc::{SECCOMP_SET_MODE_FILTER, SYS_seccomp, sock_fprog, syscall};
        let program = sock_fprog { len: self.0.len() as u16, filter: self.0.as_mut_ptr() };
        // SAFETY: the program and its statements live until the call returns, and the kernel copies them.
        let put =
            || Errno::result(unsafe { syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) });
        match put() {
            Err(Errno::EACCES) => set_no_new_privs().and_then(|()| put()).map(drop),
            answer => answer.map(drop),
        }
    }
}

/// A command that is forked and waits for [`Held::release`]. Dropped without it, the command never runs.
pub struct Held {
    /// The process that will become the command.
    pub pid: Pid,
    go: File,
    answer: File,
    candidates: Vec<PathBuf>,
    /// The PATH they come from.
    looked: OsString,
    name: OsString,
}

/// The files `execvp` would try, in order (`execvp(3)`).
fn candidates(name: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(name)];
    }
    let directories = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|byte| *byte == b':');
    let or_here =
        |dir: &[u8]| if dir.is_empty() { PathBuf::from(".") } else { OsStr::from_bytes(dir).into() };
    directories.map(|dir| or_here(dir).join(name)).collect()
}

/// Where a command is looked for when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The environment as we were given it, with what is not `NAME=value`, and what stands there twice: `std::env` tells only the rest.
fn given_environment() -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut strings = Vec::new();
    // SAFETY: the C library keeps it as a list that ends in a null pointer, or null; nobody changes it in this program, which sets no
    // variable.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            strings.push(CStr::from_ptr(*next).to_owned());
            next = next.add(1);
        }
    }
    strings
}

fn name_of(string: &CStr) -> &[u8] {
    string.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Variables sudo sets by itself (`sudo(8)`, ENVIRONMENT; `env_reset` and `secure_path` in `sudoers(5)`).
const SUDO_SETS: [&[u8]; 7] = [b"PATH", b"HOME", b"USER", b"LOGNAME", b"SHELL", b"MAIL", b"TERM"];

/// The caller's own environment, with what was given to sudo on its command line (`sudo NAME=value observer …`).
fn as_before_sudo(before: &[CString], given: &[CString]) -> Vec<CString> {
    let by_sudo = |name: &[u8]| SUDO_SETS.contains(&name) || name.starts_with(b"SUDO_");
    let mut strings = before.to_vec();
    for string in given.iter().filter(|string| !by_sudo(name_of(string))) {
        match strings.iter_mut().find(|own| name_of(own) == name_of(string)) {
            Some(own) => own.clone_from(string),
            None => strings.push(string.clone()),
        }
    }
    strings
}

/// A variable's value in an environment.
fn value_of<'a>(environment: &'a [CString], name: &str) -> Option<&'a OsStr> {
    let found = environment.iter().find(|string| name_of(string) == name.as_bytes())?;
    found.to_bytes().get(name.len() + 1..).map(OsStr::from_bytes)
}

fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString, LaunchError> {
    CString::new(bytes)
        .map_err(|_| LaunchError::Failed { attempted: "an argument contains NUL", answer: Errno::EINVAL })
}

impl Command {
    /// Forks. The child stands still until released, before it has done anything that could be observed.
    ///
    /// To be called while we have one thread: the child goes on with what that thread holds.
    ///
    /// # Errors
    /// When there is no pipe or no process to be had, or an argument cannot be passed on.
    pub fn hold(&self, filter: Option<Filter>) -> Result<Held, LaunchError> {
        let failed = |attempted| move |answer| LaunchError::Failed { attempted, answer };
        let name = self.words.first().cloned().unwrap_or_default();
        let argv = self.words.iter().map(|word| c_string(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let environment = self.environment()?;
        let files = candidates(&name, value_of(&environment, "PATH"));
        let programs = files
            .iter()
            .map(|file| c_string(file.as_os_str().as_encoded_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let (go_reader, go) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"))?;
        let (answer, answer_writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"))?;
        // SAFETY: no handler is installed. Were it ignored, as a caller may leave it, the kernel would neither tell us of the command's
        // end nor keep its status; the command itself finds it as we did.
        let children = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(failed("signal"))?;
        // SAFETY: there is one thread, so no lock is held by another that the child would wait for.
        match unsafe { fork() }.map_err(failed("fork"))? {
            ForkResult::Parent { child } => Ok(Held {
                pid: Pid(child.as_raw() as u32),
                go: File::from(go),
                answer: File::from(answer),
                looked: value_of(&environment, "PATH").unwrap_or(DEFAULT_PATH.as_ref()).to_os_string(),
                candidates: files,
                name,
            }),
            ForkResult::Child => {
                drop((go, answer));
                // SAFETY: what is put back is a disposition, not a handler: this program has none.
                let _ = unsafe { signal(Signal::SIGCHLD, children) };
                self.become_it(&programs, &argv, &environment, go_reader, answer_writer, filter)
            }
        }
    }

    /// The child's part.
    fn become_it(
        &self,
        programs: &[CString],
        argv: &[CString],
        environment: &[CString],
        go: OwnedFd,
        answer: OwnedFd,
        filter: Option<Filter>,
    ) -> ! {
        let mut word = [0];
        // No word means that the observer has given up: then nothing was started.
        if File::from(go).read_exact(&mut word).is_err() {
            quit(0);
        }
        let mut answer = File::from(answer);
        // The filter first: as another user it would take away the rights of setuid programs.
        let filtered = filter.map_or(Ok(()), |mut filter| filter.install());
        let errno = match filtered.and_then(|()| self.take_standing()) {
            Ok(()) => exec_first(programs, argv, environment),
            Err(errno) => errno,
        };
        let _ = answer.write_all(&(errno as i32).to_ne_bytes());
        quit(127)
    }

    /// What it may start is told by this.
    pub fn start(&self) -> Start {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let environment = self.environment().unwrap_or_default();
        Start {
            words: self.words.iter().map(text).collect(),
            environment: environment.iter().map(|pair| pair.to_string_lossy().into_owned()).collect(),
            cwd: std::env::current_dir().unwrap_or_default(),
        }
    }

    fn take_standing(&self) -> Result<(), Errno> {
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        for (resource, soft) in &self.limits {
            let (_, hard) = getrlimit(*resource)?;
            setrlimit(*resource, (*soft).min(hard), hard)?;
        }
        let Some(standing) = &self.standing else { return Ok(()) };
        let groups: Vec<Gid> = standing.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(standing.gid))?;
        setuid(Uid::from_raw(standing.uid))
    }

    /// The environment as we were given it; under sudo, as it was before; for another user, with that user's identity.
    fn environment(&self) -> Result<Vec<CString>, LaunchError> {
        if let Some(environment) = &self.environment {
            return Ok(environment.clone());
        }
        let given = given_environment();
        let Some(standing) = &self.standing else { return Ok(given) };
        if let Some(before) = &standing.before_sudo {
            return Ok(as_before_sudo(before, &given));
        }
        let mut strings = given;
        let identity = &standing.identity;
        strings.retain(|string| !identity.iter().any(|(own, _)| name_of(string) == own.as_bytes()));
        for (name, value) in identity {
            strings.push(c_string(format!("{name}={value}"))?);
        }
        Ok(strings)
    }
}

/// Tries the files in order as `execvp` does: what is missing is passed over, a refusal is remembered, anything else ends it.
fn exec_first(programs: &[CString], argv: &[CString], environment: &[CString]) -> Errno {
    let mut refused = None;
    for program in programs {
        match execve(program, argv, environment) {
            Ok(never) => match never {},
            Err(Errno::EACCES) => refused = Some(Errno::EACCES),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return errno,
        }
    }
    refused.unwrap_or(Errno::ENOENT)
}

/// Ends the forked child without running what the parent registered for its own end.
fn quit(status: i32) -> ! {
    // SAFETY: always sound; the child is not to flush or unwind what belongs to the parent.
    unsafe { nix::libc::_exit(status) }
}

impl Held {
    /// Lets the command run and waits until it does.
    ///
    /// # Errors
    /// When none of the files could be executed; the child has ended by then and is to be waited for.
    pub fn release(mut self) -> Result<(), LaunchError> {
        let broken = |_| LaunchError::Failed { attempted: "the forked child is gone", answer: Errno::EPIPE };
        self.go.write_all(&[1]).map_err(broken)?;
        let mut answer = [0; 4];
        // The pipe closes unwritten when `execve` succeeds.
        if self.answer.read_exact(&mut answer).is_err() {
            return Ok(());
        }
        match Errno::from_raw(i32::from_ne_bytes(answer)) {
            Errno::ENOENT => Err(LaunchError::NotFound {
                looked: if self.name.as_bytes().contains(&b'/') {
                    "that path".into()
                } else {
                    self.looked.to_string_lossy().into_owned()
                },
                name: self.name.to_string_lossy().into_owned(),
            }),
            answer => {
                let exists = self.candidates.iter().find(|file| file.exists()).cloned();
                Err(LaunchError::NotExecutable { path: exists.unwrap_or_else(|| self.name.into()), answer })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_sudo_the_command_gets_the_callers_environment() {
        let strings =
            |list: &[&str]| list.iter().map(|text| CString::new(*text).unwrap()).collect::<Vec<_>>();
        let before = strings(&["PATH=/venv/bin:/bin", "VIRTUAL_ENV=/venv", "LEVEL=1", "HOME=/home/me"]);
        let given = strings(&["PATH=/sbin", "HOME=/root", "SUDO_UID=1000", "LEVEL=2", "EXTRA=x", "MAIL=/m"]);
        let expected =
            strings(&["PATH=/venv/bin:/bin", "VIRTUAL_ENV=/venv", "LEVEL=2", "HOME=/home/me", "EXTRA=x"]);
        assert_eq!(as_before_sudo(&before, &given), expected);
        assert_eq!(value_of(&before, "PATH"), Some("/venv/bin:/bin".as_ref()));
    }

    #[test]
    fn a_name_is_looked_for_along_the_path() {
        let files = candidates("python".as_ref(), Some("/a:/b::/c".as_ref()));
        assert_eq!(files, ["/a/python", "/b/python", "./python", "/c/python"].map(PathBuf::from));
        assert_eq!(candidates("./x".as_ref(), Some("/a".as_ref())), [PathBuf::from("./x")]);
    }
}
