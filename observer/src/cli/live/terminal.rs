//! The terminal while a view is drawn on it, and as it was before. Knows the terminal and signals; nothing of what is drawn.
//!
//! Not crossterm's raw mode: the keys that send signals go on sending them, so Ctrl-C and Ctrl-Z mean what they mean without a view, for
//! us and for whoever shares the terminal.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::getpid,
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, MoveTo, Show},
        event::{self, Event, KeyEvent, KeyEventKind},
        execute,
        style::ResetColor,
        terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
    },
};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal that has a view on it, and how it was. One a process has.
static TAKEN: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Something that came while the view waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A key.
    Key(KeyEvent),
    /// The size changed, or it was stopped and goes on: all is to be drawn anew.
    Redraw,
    /// A signal that ends programs.
    Ended(Signal),
    /// Whoever sat there is gone.
    HungUp,
}

/// Signals that a view takes.
pub(super) struct Signals(SignalFd);

/// What stops us and lets us go on: to be blocked in every thread while there is a view, and in no child.
pub(in crate::cli) const STOPPING: [Signal; 2] = [Signal::SIGTSTP, Signal::SIGCONT];
/// What ends us.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

impl Signals {
    /// Takes over what stops us, which is blocked already; what ends us somebody else takes.
    pub(super) fn stopping() -> io::Result<Self> {
        Self::read(SigSet::from_iter(STOPPING))
    }

    /// Takes over what stops and what ends us. There are no other threads yet.
    pub(super) fn all() -> io::Result<Self> {
        let wanted = SigSet::from_iter(STOPPING.into_iter().chain(ENDING));
        wanted.thread_block()?;
        Self::read(wanted)
    }

    fn read(wanted: SigSet) -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Without a view: stops when asked to. Waits for no longer than this.
    pub(super) fn obey(&self, limit: Duration) {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], limit);
        while let Ok(Some(info)) = self.0.read_signal() {
            if info.ssi_signo.cast_signed() == Signal::SIGTSTP as i32 {
                stop();
            }
        }
    }
}

/// Stops us. Not by the default action of the signal that asked for it: that is blocked.
fn stop() {
    let _ = kill(getpid(), Signal::SIGSTOP);
}

/// The terminal we can draw on: the one that controls us, when we are in its foreground and it can do more than print.
pub(super) fn controlling() -> Option<File> {
    let can = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok().filter(|_| can)?;
    let foreground = tcgetpgrp(&terminal).ok()?;
    (foreground.as_raw_nonzero().get() == nix::unistd::getpgrp().as_raw()).then_some(terminal)
}

/// A terminal taken for a view. As it was when dropped.
pub(super) struct Taken<'a> {
    terminal: File,
    drawn: Terminal<CrosstermBackend<File>>,
    signals: &'a Signals,
}

impl<'a> Taken<'a> {
    /// Takes it.
    ///
    /// # Errors
    /// When it is no terminal, or does not answer.
    pub(super) fn take(terminal: File, signals: &'a Signals) -> io::Result<Self> {
        restore_on_panic();
        enter(&terminal)?;
        let drawn = Terminal::new(CrosstermBackend::new(terminal.try_clone()?)).inspect_err(|_| leave())?;
        Ok(Self { terminal, drawn, signals })
    }

    /// Draws.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.drawn.draw(draw).map(drop)
    }

    /// Waits for no longer than this for something to come.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<Vec<Came>> {
        let mut came = Vec::new();
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut ready = [
            PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.0.as_fd(), PollFlags::POLLIN),
        ];
        // A signal that breaks it off is the change of the size.
        let _ = poll(&mut ready, limit);
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        let hung_up = ready.first().and_then(PollFd::revents).is_some_and(|events| events.intersects(gone));
        while let Ok(Some(info)) = self.signals.0.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGTSTP) => {
                    leave();
                    stop();
                }
                Ok(Signal::SIGCONT) => {
                    self.enter_again()?;
                    came.push(Came::Redraw);
                }
                Ok(signal) => came.push(Came::Ended(signal)),
                Err(_) => {}
            }
        }
        if hung_up {
            came.push(Came::HungUp);
            return Ok(came);
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => came.push(Came::Key(key)),
                Event::Resize(..) => came.push(Came::Redraw),
                _ => {}
            }
        }
        Ok(came)
    }

    /// Whoever stopped us may have used the terminal meanwhile, and left it otherwise.
    fn enter_again(&mut self) -> io::Result<()> {
        leave();
        enter(&self.terminal)?;
        self.drawn = Terminal::new(CrosstermBackend::new(self.terminal.try_clone()?))?;
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        leave();
    }
}

fn enter(terminal: &File) -> io::Result<()> {
    let before = tcgetattr(terminal)?;
    let mut mode = before.clone();
    mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    *taken = Some((terminal.try_clone()?, before));
    tcsetattr(terminal, OptionalActions::Now, &mode)?;
    execute!(&*terminal, EnterAlternateScreen, Hide, Clear(ClearType::All), MoveTo(0, 0))
}

/// Puts the terminal back as it was, when there is one that is not.
fn leave() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((mut terminal, before)) = taken else { return };
    // What is typed ahead is for the shell.
    let _ = execute!(terminal, ResetColor, LeaveAlternateScreen, Show);
    let _ = terminal.flush();
    let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            before(info);
        }));
    });
}

/// Ends us by a signal that was taken, as it would have ended us.
pub(super) fn end_by(signal: Signal) {
    let _ = SigSet::from_iter([signal]).thread_unblock();
    let _ = nix::sys::signal::raise(signal);
}

/// Whether a descriptor is a terminal.
pub(super) fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Whether what is written there goes to another program.
pub(super) fn is_read_by_others(fd: BorrowedFd<'_>) -> bool {
    use rustix::fs::FileType;
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    !matches!(kind, Ok(FileType::RegularFile | FileType::CharacterDevice))
}
