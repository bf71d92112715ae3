//! Follows a session, recorded or being recorded: drawn on a terminal, or as lines. Knows sessions, the terminal and what others make of
//! both; decides nothing about what was recorded.

mod attached;
mod follower;
mod lines;
mod terminal;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::AsFd as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
pub(super) use attached::{Attached, Seat};
use follower::{Follower, Got, Listener};
use nix::sys::signal::Signal;
use terminal::{Came, Signals, Taken};

use super::{Context, ExitStatus, Format, show};
use crate::{
    diagnose::{self, Explanation},
    event::Event,
    model::{Model, amqp::Said},
    render::{
        explain,
        live::{self, Act, Content, Facts, Rates, Row, State, Tail},
    },
    session::State as Recording,
    source::proc,
};

/// How often a session is asked for more.
const BEAT: Duration = Duration::from_millis(100);
/// Keys are looked for after no more reading than this.
const PATIENCE: Duration = Duration::from_millis(60);
/// The screen is made anew no more often than this, and what it all means is asked no more often than that.
const REDRAW: Duration = Duration::from_millis(250);
const RETHINK: Duration = Duration::from_millis(700);
/// Of our time no more than one part in so many goes into either.
const SHARE: u32 = 8;
/// Events shown before and after one that is jumped to.
const AROUND: u64 = 400;

/// Why a view was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// By a key, or because it was told to.
    Closed,
    /// By a signal that ends programs.
    Ended(Signal),
    /// Nobody sits there any more.
    HungUp,
}

/// Follows a session as `show` shows it.
///
/// # Errors
/// When the session cannot be read, or standard output cannot be written.
pub(super) fn show(args: &show::Args, context: &Context, path: &Path) -> anyhow::Result<ExitStatus> {
    let drawn = context.format == Format::Text
        && !args.asks_for_lines()
        && terminal::is_terminal(io::stdout().as_fd());
    let Some(terminal) = drawn.then(terminal::controlling).flatten() else {
        return lines::show(args, context, path);
    };
    let mut follower = Follower::open(path)?;
    let signals = Signals::all().context("cannot take signals")?;
    let mut taken = Taken::take(terminal, &signals).context("cannot draw on the terminal")?;
    let left = view(&mut follower, &mut taken, &args.view_filter(), context.color, None);
    drop(taken);
    match left? {
        Left::Ended(signal) => terminal::end_by(signal),
        Left::Closed if follower.is_finished() => {
            let mut out = anstream::AutoStream::new(io::stdout().lock(), context.choice);
            verdict(&follower, context, &mut out)?;
        }
        Left::Closed | Left::HungUp => {}
    }
    Ok(ExitStatus::SUCCESS)
}

/// Writes what is concluded of a recording that is over.
fn verdict(follower: &Follower, context: &Context, out: &mut impl io::Write) -> io::Result<()> {
    let case = follower.case();
    explain::write(out, &case, &diagnose::explain(&case), show::columns(), context.verbose > 0)?;
    out.flush()
}

/// What the view remembers of what was read.
struct Eyes {
    started_ns: u64,
    tail: Tail,
}

impl Listener for Eyes {
    fn said(&mut self, said: &Said<'_>) {
        self.tail.said(said, self.started_ns);
    }

    fn event(&mut self, id: u64, event: &Event, _model: &mut Model) -> anyhow::Result<()> {
        self.tail.event(id, event, self.started_ns, show::is_search(&event.body));
        Ok(())
    }
}

/// Something that is done anew no more often than its time allows.
struct Due {
    at: Instant,
    least: Duration,
}

impl Due {
    fn every(least: Duration) -> Self {
        Self { at: Instant::now(), least }
    }

    fn is_now(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Does it, and puts it off for as long as that was dear.
    fn done<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.at = Instant::now() + self.least.max(began.elapsed() * SHARE);
        result
    }
}

/// Draws a session, as it grows, until somebody leaves or `over` is set.
fn view(
    follower: &mut Follower,
    taken: &mut Taken<'_>,
    filter: &str,
    color: bool,
    over: Option<&AtomicBool>,
) -> anyhow::Result<Left> {
    let mut eyes = Eyes { started_ns: follower.header.started_ns, tail: Tail::default() };
    let mut rates = Rates::default();
    let mut explanation: Option<Explanation> = None;
    let mut explained = None;
    let mut state = State::new(content(follower, None, &eyes.tail, &rates)).only(filter);
    let (mut redraw, mut rethink) = (Due::every(REDRAW), Due::every(RETHINK));
    let (mut is_new, mut got) = (true, Got::More);
    loop {
        let began = Instant::now();
        while got != Got::End && began.elapsed() < PATIENCE {
            got = follower.read(&mut eyes)?;
            if got == Got::All {
                break;
            }
        }
        let stands = (follower.model.events(), got == Got::End);
        if explained != Some(stands) && (rethink.is_now() || got == Got::End) {
            explanation = Some(rethink.done(|| follower.explanation()));
            explained = Some(stands);
            redraw.at = Instant::now();
        }
        if redraw.is_now() {
            let now_ns = now_ns(follower);
            rates.sample(&follower.model, now_ns);
            if state.is_paused() {
                state.count(follower.model.events());
            } else {
                redraw.done(|| state.update(content(follower, explanation.as_ref(), &eyes.tail, &rates)));
            }
            is_new = true;
        }
        if std::mem::take(&mut is_new) {
            taken.draw(|frame| live::draw(frame, &state, color)).context("cannot draw on the terminal")?;
        }
        let limit = if got == Got::More { Duration::ZERO } else { BEAT };
        for came in taken.wait(limit).context("cannot read the terminal")? {
            is_new = true;
            match came {
                Came::Ended(signal) => return Ok(Left::Ended(signal)),
                Came::HungUp => return Ok(Left::HungUp),
                Came::Redraw => {}
                Came::Key(key) => match state.press(key) {
                    Act::None => {}
                    Act::Leave => return Ok(Left::Closed),
                    Act::Jump(event) => jump(follower, &mut state, event),
                },
            }
        }
        if over.is_some_and(|over| over.load(Ordering::Acquire)) {
            return Ok(Left::Closed);
        }
        if got == Got::All {
            got = Got::More;
        }
    }
}

fn jump(follower: &Follower, state: &mut State, event: u64) {
    let mut rows = Vec::new();
    let read = follower.around(event, AROUND, &mut |id, one| {
        if id == event || !show::is_search(&one.body) {
            rows.push(Row::of_event(id, one, follower.header.started_ns));
        }
    });
    match read {
        Ok(()) => state.jump(event, rows),
        Err(error) => state.say(error.to_string()),
    }
}

fn now_ns(follower: &Follower) -> u64 {
    let last_ns = follower.model.last_ns;
    match (&follower.ending, follower.state) {
        (Some(ending), _) => ending.ended_ns,
        (None, Recording::Recording) => last_ns.max(proc::monotonic_ns()),
        (None, _) => last_ns,
    }
}

fn content(follower: &Follower, explanation: Option<&Explanation>, tail: &Tail, rates: &Rates) -> Content {
    Content::of(&Facts {
        header: &follower.header,
        state: follower.state,
        model: &follower.model,
        explanation,
        tail,
        rates,
        now_ns: now_ns(follower),
        not_understood: follower.not_understood,
        behind: follower.behind(),
    })
}
