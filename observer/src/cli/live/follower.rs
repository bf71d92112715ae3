//! Reads on in a session, also while it is being recorded, and folds what is new. Knows sessions and the model; nothing of who looks.
//!
//! The session is open only while it is read, and never for longer than a window of it takes: an open reader keeps SQLite's log from
//! being put into the session, and the recorder from closing it.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::{
    diagnose::{self, Explanation, case::Case},
    event::Event,
    model::{Model, amqp::Said},
    session::{Ending, Filter, Header, Session, SessionError, State},
};

/// So many events are read at once.
const WINDOW: u64 = 2_048;

/// What came of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// There is more right now.
    More,
    /// That is all for now.
    All,
    /// That is all: the recording is over.
    End,
}

/// Takes what is read.
pub(crate) trait Listener {
    /// Something said in AMQP, which the event that comes next completes.
    fn said(&mut self, said: &Said<'_>);
    /// The next event, which the model has taken in.
    ///
    /// # Errors
    /// When it cannot go on.
    fn event(&mut self, id: u64, event: &Event, model: &mut Model) -> anyhow::Result<()>;
}

/// A session that is read on in.
pub(crate) struct Follower {
    path: PathBuf,
    /// What is known of the session.
    pub(crate) header: Header,
    /// What happened, as far as it was read.
    pub(crate) model: Model,
    /// How far the session had come when it was last looked at.
    pub(crate) state: State,
    /// How it ended.
    pub(crate) ending: Option<Ending>,
    /// Events that this program does not understand.
    pub(crate) not_understood: u64,
    /// The highest id that was read, and that there was.
    last: u64,
    newest: u64,
    /// All is read.
    is_finished: bool,
    window: u64,
}

impl Follower {
    /// Nothing of it is read yet.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, SessionError> {
        let session = Session::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            header: session.header().clone(),
            model: Model::new(session.header().started_ns),
            state: session.state(),
            ending: session.ending(),
            not_understood: 0,
            last: 0,
            newest: session.newest_id(),
            is_finished: false,
            window: WINDOW,
        })
    }

    /// Reads so many events at once.
    #[cfg(test)]
    pub(super) fn in_windows_of(mut self, events: u64) -> Self {
        self.window = events;
        self
    }

    /// Whether the recording is over and all of it is read.
    pub(crate) const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// How many events are there that were not read yet, about.
    pub(crate) const fn behind(&self) -> u64 {
        self.newest.saturating_sub(self.last)
    }

    /// Reads a window of what is new. After [`Got::End`] the model is finished, and nothing more is to be read.
    ///
    /// # Errors
    /// When it cannot be read on, or the listener cannot go on.
    pub(crate) fn read(&mut self, listener: &mut dyn Listener) -> anyhow::Result<Got> {
        match self.read_window(listener) {
            Err(error) if error.downcast_ref::<SessionError>().is_some_and(SessionError::is_busy) => {
                Ok(Got::All)
            }
            result => result,
        }
    }

    fn read_window(&mut self, listener: &mut dyn Listener) -> anyhow::Result<Got> {
        let session = Session::open(&self.path)?;
        if session.is_being_closed() {
            return Ok(Got::All);
        }
        // Before it is read: what is recorded until its end is read then.
        let (state, ending) = (session.state(), session.ending());
        let newest = session.newest_id();
        let up_to = newest.min(self.last + self.window);
        if up_to > self.last {
            let filter = Filter { after_id: Some(self.last), up_to_id: Some(up_to), ..Filter::default() };
            let model = &mut self.model;
            let mut result = Ok(());
            self.not_understood += session.events(&filter, |id, event| {
                model.add_and_tell(id, &event, &mut |said| listener.said(said));
                result = listener.event(id, &event, model);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            result?;
        }
        (self.last, self.newest) = (up_to, newest);
        (self.state, self.ending) = (state, ending);
        if up_to < newest {
            return Ok(Got::More);
        }
        if state == State::Recording {
            return Ok(Got::All);
        }
        self.model.finish_and_tell(&mut |said| listener.said(said));
        self.is_finished = true;
        Ok(Got::End)
    }

    /// What it means so far.
    pub(crate) fn explanation(&self) -> Explanation {
        if self.is_finished {
            return diagnose::explain(&self.case());
        }
        // Whoever is asked looks at a whole: what has begun is ended in a copy.
        let mut model = self.model.clone();
        model.finish();
        diagnose::explain(&Case::new(&self.header, None, &model))
    }

    /// The whole, once the recording is over.
    pub(crate) fn case(&self) -> Case<'_> {
        Case::new(&self.header, self.ending.as_ref(), &self.model)
    }

    /// The events from `before` before an event to as many after it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn around(
        &self,
        event: u64,
        before: u64,
        each: &mut dyn FnMut(u64, &Event),
    ) -> Result<(), SessionError> {
        let filter = Filter {
            after_id: Some(event.saturating_sub(before + 1)),
            up_to_id: Some(event.saturating_add(before)),
            ..Filter::default()
        };
        let session = Session::open(&self.path)?;
        session.events(&filter, |id, event| {
            each(id, &event);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}
