//! Follows what `attach` records, from its session file, while it does: where that does not touch the terminal of what is observed as a
//! view, else as lines on standard error. Knows the terminal; the recording does not wait for it.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sys::signal::Signal;

use super::{
    BEAT, Follower, Left,
    lines::{Documents, Everything, News, Printer, read_out},
    terminal::{self, STOPPING, Signals, Taken, is_terminal},
    view,
};
use crate::{
    cli::{Context, Format},
    source,
};

/// How what is recorded is shown meanwhile.
pub(in crate::cli) enum Seat {
    /// On the terminal, which nobody else uses.
    View(File),
    /// A command that was started has the terminal: only what is new is said.
    Shared,
    /// As lines.
    Lines,
    /// As lines of JSON.
    Json,
}

impl Seat {
    /// Where there is a seat. A command that is started has our own three streams: a view would draw over what it writes, take what it is
    /// to read, and change how its terminal behaves.
    pub(in crate::cli) fn find(starts_command: bool, format: Format) -> Self {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let ours = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        if format == Format::Json {
            return Self::Json;
        }
        let is_free = if starts_command {
            // What goes through a pipe somebody reads: they want lines.
            ours.into_iter().all(|fd| !is_terminal(fd) && !terminal::is_read_by_others(fd))
        } else {
            ours.into_iter().skip(1).all(is_terminal)
        };
        match is_free.then(terminal::controlling).flatten() {
            Some(terminal) => Self::View(terminal),
            None if starts_command && is_terminal(stderr.as_fd()) => Self::Shared,
            None => Self::Lines,
        }
    }

    /// Signals to block, before threads are started.
    pub(in crate::cli) const fn signals(&self) -> &'static [Signal] {
        if matches!(self, Self::View(_)) { &STOPPING } else { &[] }
    }
}

/// Somebody follows.
pub(in crate::cli) struct Attached {
    over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Attached {
    /// Begins to follow this session.
    pub(in crate::cli) fn start(seat: Seat, path: &Path, context: &Context) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (path, context, is_over) = (path.to_owned(), context.clone(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            source::step_back();
            follow(seat, &path, &context, &is_over)
        });
        Self { over, thread }
    }

    /// The observation is over: a view is closed. Lines go on until the session is read to its end.
    pub(in crate::cli) fn close(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Waits until all is told.
    ///
    /// # Errors
    /// Why it could not be.
    pub(in crate::cli) fn join(self) -> anyhow::Result<()> {
        self.thread.join().unwrap_or_else(|_| anyhow::bail!("the thread that follows ended unexpectedly"))
    }
}

/// Standard error, which the command may share: a line is written at once, so that nothing comes into its middle.
struct Whole {
    has_colors: bool,
}

impl Whole {
    /// The longest line that is written at once.
    const LONGEST: usize = 16 << 10;

    fn lines(context: &Context) -> io::LineWriter<Self> {
        let choice = match context.choice {
            anstream::ColorChoice::Auto => anstream::AutoStream::choice(&io::stderr()),
            choice => choice,
        };
        let has_colors = choice != anstream::ColorChoice::Never;
        io::LineWriter::with_capacity(Self::LONGEST, Self { has_colors })
    }
}

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_colors {
            io::stderr().write_all(bytes)?;
        } else {
            let mut plain = anstream::StripStream::new(Vec::with_capacity(bytes.len()));
            plain.write_all(bytes)?;
            io::stderr().write_all(&plain.into_inner())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn follow(seat: Seat, path: &Path, context: &Context, over: &AtomicBool) -> anyhow::Result<()> {
    let mut follower = Follower::open(path)?;
    let stderr = || Whole::lines(context);
    let mut lines = |printer: &mut dyn Printer| {
        read_out(&mut follower, printer, &mut |limit| {
            thread::sleep(limit);
            true
        })
    };
    match seat {
        Seat::Shared => lines(&mut News::new(stderr())),
        Seat::Lines => lines(&mut Everything(stderr())),
        Seat::Json => {
            let mut out = stderr();
            lines(&mut Documents::of(path, &mut out)?)?;
            Ok(out.flush()?)
        }
        Seat::View(terminal) => {
            let color = anstream::AutoStream::choice(&terminal) != anstream::ColorChoice::Never;
            let color = match context.choice {
                anstream::ColorChoice::Auto => color,
                choice => choice != anstream::ColorChoice::Never,
            };
            let signals = Signals::stopping()?;
            let seen = Taken::take(terminal, &signals)
                .map_err(anyhow::Error::from)
                .and_then(|mut taken| view(&mut follower, &mut taken, "", color, Some(over)));
            if matches!(seen, Ok(Left::Closed)) && !over.load(Ordering::Acquire) {
                let _ = writeln!(stderr(), "observer: the view is closed, the recording goes on");
            }
            // Whoever left the view can still stop us, as without one.
            while !over.load(Ordering::Acquire) {
                signals.obey(BEAT);
            }
            seen.map(drop)
        }
    }
}
