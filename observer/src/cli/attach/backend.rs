//! By what a process tree is observed: decided once, and said why. Knows the sources that can; nothing of what they see.

use std::sync::{Arc, OnceLock};

use anyhow::bail;
use clap::ValueEnum;

use crate::{
    capability::{Capability, Description, State},
    event::Pid,
    python::installed::Start,
    source::{
        Source, SourceError,
        ebpf::{Ebpf, ProgramFacts},
        launch::Filter,
        nearby::Nearby,
        probe,
        ptrace::{Ptrace, RootEnd},
    },
};

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The best there is on this machine: eBPF, else ptrace
    Auto,
    /// eBPF, or an error that says why not
    Ebpf,
    /// ptrace: needs no privilege for what is your own; slower, and sees less
    Ptrace,
    /// The eBPF of a running `observer daemon`: needs no privilege for what is your own
    Service,
}

/// A source of processes.
pub(super) enum Tracing {
    /// Told by the kernel.
    Ebpf(Box<Ebpf>),
    /// Told by stops.
    Ptrace(Box<Ptrace>),
}

impl Tracing {
    /// Takes the best that was asked for, and says what has to be said of it.
    pub(super) fn choose(
        backend: Backend,
        capabilities: &[Capability],
        snaplen: u64,
        ports: &[u16],
        seccomp: bool,
    ) -> anyhow::Result<(Self, Option<String>)> {
        let ebpf = || {
            probe::require_ebpf(capabilities)?;
            Ebpf::load(snaplen, ports)
        };
        let idle = seccomp.then(|| "--seccomp is for ptrace: with eBPF it has no effect".to_owned());
        let why = match backend {
            Backend::Ptrace | Backend::Service => None,
            Backend::Ebpf => return Ok((Self::Ebpf(Box::new(ebpf()?)), idle)),
            Backend::Auto => match ebpf() {
                Ok(ebpf) => return Ok((Self::Ebpf(Box::new(ebpf)), idle)),
                Err(error) => Some(error),
            },
        };
        let able = probe::ptrace();
        if able.state == State::Missing {
            let ebpf = why.map(|error| format!("{error}; ")).unwrap_or_default();
            bail!("{ebpf}cannot record with ptrace: {}; {}", able.found, able.remedy);
        }
        let reason = why.map(|error| probe::why_ptrace(&error.answer));
        let filtered = seccomp.then_some(
            "--seccomp: what the command leaves running is ended with it; if observer is killed, the command cannot go on".to_owned(),
        );
        let setuid = (able.state == State::Limited).then_some(able.lost);
        let said = [reason, setuid, filtered].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Ok((Self::Ptrace(Box::new(Ptrace::new(snaplen, ports, seccomp))), (!said.is_empty()).then_some(said)))
    }

    /// `ebpf` or `ptrace`, and what it cannot see.
    pub(super) fn describe(&self) -> Description {
        match self {
            Self::Ebpf(source) => source.describe(),
            Self::Ptrace(source) => source.describe(),
        }
    }

    /// Its name for people.
    pub(super) const fn title(&self) -> &'static str {
        match self {
            Self::Ebpf(_) => "eBPF",
            Self::Ptrace(_) => "ptrace",
        }
    }

    /// Prepares for a command that is to be started.
    pub(super) fn expect(&mut self, start: &Start) {
        if let Self::Ebpf(source) = self {
            source.expect(start);
        }
    }

    /// What a command is to be started with.
    pub(super) fn filter(&self) -> Option<Filter> {
        match self {
            Self::Ebpf(_) => None,
            Self::Ptrace(source) => source.filter(),
        }
    }

    /// Follows a process that is about to `execve`.
    pub(super) fn follow(&mut self, pid: Pid) -> Result<(), SourceError> {
        match self {
            Self::Ebpf(source) => source.follow(pid, 0),
            Self::Ptrace(source) => source.follow(pid),
        }
    }

    /// Takes a running process and its descendants.
    pub(super) fn attach(&mut self, pid: Pid) -> Result<(), SourceError> {
        match self {
            Self::Ebpf(source) => source.attach(pid).map(drop),
            Self::Ptrace(source) => source.attach(pid),
        }
    }

    /// Where the facts of the programs will be left, if there are any.
    pub(super) fn last_facts(&self) -> Arc<OnceLock<Vec<ProgramFacts>>> {
        match self {
            Self::Ebpf(source) => source.last_facts(),
            Self::Ptrace(_) => Arc::default(),
        }
    }

    /// How the end of the command is learnt, where it is not by waiting for it.
    pub(super) fn root_end(&self) -> Option<RootEnd> {
        match self {
            Self::Ebpf(_) => None,
            Self::Ptrace(source) => Some(source.root_end()),
        }
    }

    /// The source, with the disk beside it.
    pub(super) fn into_source(self) -> Box<dyn Source> {
        match self {
            Self::Ebpf(source) => Box::new(Nearby::around(*source)),
            Self::Ptrace(source) => Box::new(Nearby::around(*source)),
        }
    }
}
