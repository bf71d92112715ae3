//! Follows one message in a session that is being recorded, step by step, to its end. Knows sessions and the model; nothing of how the
//! message came to its queue.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde::Serialize;

use crate::{
    fold::without_files,
    model::{
        Model,
        amqp::Mark,
        message::{Life, Passage, Settled},
    },
    render::{
        queues::who,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN},
    },
    session::{Filter, Session, State, StateDir},
    words::units,
};

/// How often the session is asked for more.
const BEAT: Duration = Duration::from_millis(300);

/// Why the following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Until {
    /// Nothing more is to come of it.
    Settled,
    /// It took too long.
    Timeout,
    /// The recording ended.
    RecordingEnded,
}

/// By life and passage: whether its publish, its delivery and its settlement were told.
type Told = BTreeMap<(u64, u64), [bool; 3]>;

/// Reads on in a session, and tells each step of one message once.
pub(super) struct Follower {
    session: Session,
    message_id: String,
    model: Model,
    /// The last event that was read.
    last: u64,
    /// The message as it stood when it was last looked at.
    life: Option<Life>,
    /// Which steps were told, by life and passage.
    told: Told,
}

impl Follower {
    /// Of the session that `wanted` means, which must be under way; else of the newest that is. `None` when there is none. What was
    /// recorded so far is read.
    pub(super) fn find(
        dir: &StateDir,
        wanted: Option<&str>,
        message_id: &str,
    ) -> anyhow::Result<Option<Self>> {
        let path = match wanted {
            Some(wanted) => Some(dir.find(wanted)?),
            None => dir
                .list()?
                .into_iter()
                .find(|listed| listed.summary.as_ref().is_ok_and(|summary| summary.state == State::Recording))
                .map(|listed| listed.path),
        };
        let Some(path) = path else { return Ok(None) };
        let session = Session::open(&path)?;
        if wanted.is_some() && session.state() != State::Recording {
            bail!(
                "cannot follow the message in session {}: it is {}, not being recorded; look for one that is with: observer ls",
                session.header().name,
                session.state()
            );
        }
        let mut follower = Self {
            model: Model::new(session.header().started_ns),
            session,
            message_id: message_id.to_owned(),
            last: 0,
            life: None,
            told: Told::new(),
        };
        follower.read_on(&mut |_| Ok(()))?;
        Ok(Some(follower))
    }

    /// The session's name.
    pub(super) fn session(&self) -> &str {
        &self.session.header().name
    }

    /// When the session began, in nanoseconds on `CLOCK_MONOTONIC`.
    pub(super) fn started_ns(&self) -> u64 {
        self.session.header().started_ns
    }

    /// The message, when anything of it was seen.
    pub(super) const fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    /// Whether it ended well: its last delivery was acknowledged.
    pub(super) fn is_acked(&self) -> bool {
        self.life().and_then(|life| life.passages.back()?.settled).map(|settled| settled.how)
            == Some(Settled::Acked)
    }

    /// Follows until nothing more is to come, or `limit` has passed; each step goes to `tell` as soon as it is recorded.
    pub(super) fn follow(
        &mut self,
        limit: Duration,
        tell: &mut dyn FnMut(&Line) -> anyhow::Result<()>,
    ) -> anyhow::Result<Until> {
        let began = Instant::now();
        let mut was_over = false;
        loop {
            // Before it is read: what is recorded until its end is read then.
            let state = self.session.state();
            self.read_on(tell)?;
            let is_over = self.life().is_some_and(|life| !life.is_open());
            // Not at once: the publish of a retry, on another thread's connection, may be told just after the acknowledgement of what it
            // replaces.
            if is_over && was_over {
                return Ok(Until::Settled);
            }
            if state != State::Recording {
                return Ok(if is_over { Until::Settled } else { Until::RecordingEnded });
            }
            was_over = is_over;
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() && !is_over {
                return Ok(Until::Timeout);
            }
            thread::sleep(if is_over { BEAT } else { BEAT.min(left) });
        }
    }

    /// How far it came, for one that was not settled.
    pub(super) fn standing(&self) -> String {
        let open = |life: &'_ Life| life.passages.iter().rposition(Passage::is_open);
        let waiting = self.life().and_then(|life| life.passages.get(open(life)?));
        let Some(passage) = waiting else {
            return "no process that is recorded was given it".to_owned();
        };
        let queue = passage.queue.as_deref().unwrap_or("a queue that was not seen");
        match (&passage.settled, passage.delivered) {
            (Some(settlement), _) => format!("{} in {queue}, and it is to come again", settlement.how.name()),
            (None, Some(mark)) => {
                format!("delivered to {} from {queue}, which has not settled it", who(mark))
            }
            (None, None) => format!("published to {queue}, and delivered to no process that is recorded"),
        }
    }

    fn read_on(&mut self, tell: &mut dyn FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let filter = Filter { after_id: Some(self.last), ..without_files() };
        let Self { session, message_id, model, last, life, told } = self;
        let started_ns = session.header().started_ns;
        let mut result = Ok(());
        session.events(&filter, |id, event| {
            model.add(id, &event);
            *last = id.max(*last);
            // A life that is over leaves the model a second later: it is looked at after every event.
            if let Some(now) = model.amqp.lives.find(message_id)
                && life.as_ref() != Some(now)
            {
                result = news(now, told, started_ns).iter().try_for_each(&mut *tell);
                *life = Some(now.clone());
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }
}

/// The steps that were not told yet.
fn news(life: &Life, told: &mut Told, started_ns: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, passage) in (life.left_out..).zip(&life.passages) {
        let told = told.entry((life.number, index)).or_default();
        for (step, told) in steps(passage, started_ns).into_iter().zip(told) {
            if let Some(line) = step.filter(|_| !*told) {
                *told = true;
                lines.push(line);
            }
        }
    }
    lines
}

/// The publish, the delivery and the settlement of one way through a queue.
fn steps(passage: &Passage, started_ns: u64) -> [Option<Line>; 3] {
    let queue = passage.queue.as_deref().unwrap_or("an exchange");
    let at = |mark: Mark| Line::new().with(DIM, format!("{:>14}  ", units::moment(mark.at_ns, started_ns)));
    let published = passage.published.map(|mark| {
        let mut line = at(mark).with(PLAIN, format!("published to {queue} by ")).with(NAME, who(mark));
        if let Some(retry) = passage.retries.filter(|retries| *retries > 0) {
            line.push(ODD, format!(", retry {retry}"));
        }
        if let Some(failure) = &passage.failure {
            line.push(BAD, format!(" after {failure}"));
        }
        line
    });
    let delivered = passage.delivered.map(|mark| {
        let again = if passage.redelivered { ", again" } else { "" };
        at(mark).with(PLAIN, format!("delivered from {queue} to ")).with(NAME, who(mark)).with(ODD, again)
    });
    let settled = passage.settled.map(|settlement| {
        let style = match settlement.how {
            Settled::Acked | Settled::Automatic => GOOD,
            Settled::Nacked | Settled::Rejected => BAD,
            Settled::Requeued | Settled::Returned => ODD,
        };
        let held = passage.delivered.map_or(String::new(), |delivered| {
            format!(" after {}", units::duration(settlement.mark.at_ns.saturating_sub(delivered.at_ns)))
        });
        at(settlement.mark).with(style, settlement.how.name()).with(PLAIN, held)
    });
    [published, delivered, settled]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        model::{
            fixture::{self, WORKER},
            wire::{Wire, ack, body, deliver, nack},
        },
        session::{Invoker, Recorder, Redactor},
    };

    struct Scene {
        _scratch: tempfile::TempDir,
        dir: StateDir,
        recorder: Recorder,
        wire: Wire,
    }

    /// A worker that consumes, being recorded.
    fn scene() -> Scene {
        let scratch = tempfile::tempdir().unwrap();
        let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
        let mut recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
        let mut events: Vec<Event> = Vec::new();
        let mut wire = Wire::connect(&mut events, 1_000, 2, WORKER, 4715);
        wire.open(&mut events, 2_000);
        wire.consume(&mut events, 3_000, "default", 4);
        recorder.append(events, None);
        recorder.commit();
        Scene { _scratch: scratch, dir, recorder, wire }
    }

    /// Follows for no longer than it takes to read what is there.
    fn follow(follower: &mut Follower, limit: Duration) -> (Until, Vec<String>) {
        let mut lines = Vec::new();
        let until = follower
            .follow(limit, &mut |line| {
                let mut out = Vec::new();
                line.write(&mut anstream::StripStream::new(&mut out), None)?;
                lines.push(String::from_utf8(out)?.trim().to_owned());
                Ok(())
            })
            .unwrap();
        (until, lines)
    }

    #[test]
    fn each_step_is_told_once_and_the_end_is_found() {
        let Scene { _scratch, dir, mut recorder, mut wire } = scene();
        let mut follower = Follower::find(&dir, None, "m-1").unwrap().unwrap();
        let mut later = |make: &mut dyn FnMut(&mut Wire, &mut Vec<Event>)| {
            let mut events = Vec::new();
            make(&mut wire, &mut events);
            recorder.append(events, None);
            recorder.commit();
        };
        assert_eq!(follow(&mut follower, Duration::ZERO), (Until::Timeout, vec![]));
        assert_eq!(follower.standing(), "no process that is recorded was given it");

        later(&mut |wire, events| {
            wire.received(events, 4_000, &deliver(1, "default", false, &body("default", "other", "")));
            wire.received(events, 5_000, &deliver(2, "default", false, &body("default", "m-1", "")));
        });
        let delivered = "+0.005000  delivered from default to 4712/4715".to_owned();
        assert_eq!(follow(&mut follower, Duration::ZERO), (Until::Timeout, vec![delivered]));
        assert_eq!(follower.standing(), "delivered to 4712/4715 from default, which has not settled it");

        later(&mut |wire, events| wire.sent(events, 6_000, &nack(2, true)));
        assert_eq!(
            follow(&mut follower, Duration::ZERO),
            (Until::Timeout, vec!["+0.006000  requeued after 1.0 ms".to_owned()])
        );
        later(&mut |wire, events| {
            wire.received(events, 7_000, &deliver(3, "default", true, &body("default", "m-1", "")));
            wire.sent(events, 9_000, &ack(3, false));
        });
        let (until, lines) = follow(&mut follower, Duration::ZERO);
        assert_eq!(until, Until::Settled);
        assert_eq!(
            lines,
            ["+0.007000  delivered from default to 4712/4715, again", "+0.009000  acked after 2.0 ms"]
        );
        assert!(follower.is_acked());
    }

    #[test]
    fn a_recording_that_ends_is_not_waited_for() {
        let Scene { _scratch, dir, recorder, .. } = scene();
        let mut follower = Follower::find(&dir, None, "m-1").unwrap().unwrap();
        assert_eq!(recorder.finish(fixture::ending()), None);
        assert_eq!(follow(&mut follower, Duration::from_secs(600)), (Until::RecordingEnded, vec![]));
        assert!(!follower.is_acked());
        assert!(Follower::find(&dir, None, "m-1").unwrap().is_none(), "nothing is being recorded");
        let error = Follower::find(&dir, Some("@"), "m-1").err().unwrap().to_string();
        assert!(error.contains("it is done, not being recorded"), "{error}");
    }
}
