//! The live view: what happens in a session, drawn on a terminal that others own. Knows the model and what is drawn; does no input or
//! output, and decides nothing.

mod content;
mod draw;
mod state;
mod tail;
#[cfg(test)]
mod tests;

pub use content::{Content, Facts};
pub use draw::draw;
pub use state::{Act, State};
pub use tail::{Rates, Tail};

use crate::{
    event::{Event, Pid},
    render::{style, timeline},
};

/// A part of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// The tree of processes.
    Processes,
    /// How far each came.
    Ladder,
    /// Queues, and how fast messages go.
    Queues,
    /// What was found so far.
    Findings,
    /// What was said in AMQP.
    Conversation,
    /// What happened.
    Timeline,
}

impl Pane {
    /// All, in the order in which Tab walks.
    pub const ALL: [Self; 6] =
        [Self::Processes, Self::Ladder, Self::Queues, Self::Findings, Self::Conversation, Self::Timeline];

    /// What stands over it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Ladder => "ladder",
            Self::Queues => "queues",
            Self::Findings => "findings",
            Self::Conversation => "amqp",
            Self::Timeline => "timeline",
        }
    }

    /// Whether it grows at its end, and shows that.
    const fn has_tail(self) -> bool {
        matches!(self, Self::Conversation | Self::Timeline)
    }
}

/// One line of a pane.
#[derive(Clone, Debug)]
pub struct Row {
    /// Tells it from the others of its pane, and grows.
    key: u64,
    line: style::Line,
    /// Says more, for where there is room for so many columns.
    wide: Option<(usize, style::Line)>,
    pid: Option<Pid>,
    kind: Option<&'static str>,
    /// The event that proves it.
    event: Option<u64>,
}

impl Row {
    const fn new(key: u64, line: style::Line) -> Self {
        Self { key, line, wide: None, pid: None, kind: None, event: None }
    }

    /// A line whose columns stand below each other; where that takes too much room, without.
    fn aligned(key: u64, line: style::Line) -> Self {
        const ROOM: usize = 70;
        let mut close = style::Line::new();
        for (style, text) in line.spans() {
            let space = |at: &str| if at.starts_with(' ') && close.width() > 0 { " " } else { "" };
            let (before, words) = (space(text), text.split(' ').filter(|word| !word.is_empty()));
            let words = words.collect::<Vec<_>>().join(" ");
            let after = if text.ends_with(' ') && !words.is_empty() { " " } else { "" };
            close.push(style, format!("{before}{words}{after}"));
        }
        Self { wide: Some((ROOM, line)), ..Self::new(key, close) }
    }

    /// The line of an event.
    pub fn of_event(id: u64, event: &Event, started_ns: u64) -> Self {
        Self {
            pid: Some(event.pid),
            kind: Some(event.body.kind()),
            event: Some(id),
            ..Self::aligned(id, timeline::line(event, started_ns))
        }
    }

    /// What it says where there is room for so many columns.
    fn fitting(&self, room: usize) -> &style::Line {
        self.wide.as_ref().filter(|(least, _)| room >= *least).map_or(&self.line, |(_, wide)| wide)
    }

    fn text(&self) -> String {
        self.fitting(usize::MAX).spans().map(|(_, text)| text).collect()
    }
}
