//! What a person did to the view: where the focus is, what is filtered, searched, paused. Knows keys and lines; nothing of terminals.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Content, Pane, Row};
use crate::{
    event::{Body, Pid},
    session::State as Recording,
};

/// What is to be done beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    None,
    /// Close the view.
    Leave,
    /// Get the events around this one: see [`State::jump`].
    Jump(u64),
}

/// What is being typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Search,
    Filter,
}

/// Only rows of these are shown; of all, when there is none.
#[derive(Clone, Debug, Default)]
struct Filter {
    pids: Vec<Pid>,
    kinds: Vec<&'static str>,
}

/// The state of a view.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) content: Content,
    /// What the model holds by now; more than is shown while paused.
    pub(super) events_now: u64,
    pub(super) focus: Pane,
    /// The selected row of each pane by its key; `None`: the end where a pane has a tail, else the beginning.
    selected: [Option<u64>; Pane::ALL.len()],
    filter: Filter,
    pub(super) filter_text: String,
    pub(super) search: String,
    pub(super) prompt: Option<(Prompt, String)>,
    pub(super) help: bool,
    /// The pane that has the focus takes all the room.
    pub(super) zoomed: bool,
    pub(super) paused: bool,
    /// The events around one that was jumped to, instead of the last ones.
    pub(super) around: Option<Vec<Row>>,
    /// Something to say, until the next key.
    pub(super) notice: Option<String>,
}

impl State {
    /// Shows this, with nothing selected.
    pub const fn new(content: Content) -> Self {
        Self {
            events_now: content.events,
            content,
            focus: Pane::Findings,
            selected: [None; Pane::ALL.len()],
            filter: Filter { pids: Vec::new(), kinds: Vec::new() },
            filter_text: String::new(),
            search: String::new(),
            prompt: None,
            help: false,
            zoomed: false,
            paused: false,
            around: None,
            notice: None,
        }
    }

    /// Shows only kinds of events and processes, as the keys would ask for them.
    #[must_use]
    pub fn only(mut self, filter: &str) -> Self {
        self.filter_by(filter);
        self
    }

    /// Shows what is new, unless it is paused: then it only counts.
    pub fn update(&mut self, content: Content) {
        self.count(content.events);
        if !self.paused {
            self.content = content;
        }
    }

    /// There are so many events by now.
    pub const fn count(&mut self, events: u64) {
        self.events_now = events;
    }

    /// Whether the view stands still.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Says something in the last line, until the next key.
    pub fn say(&mut self, notice: impl Into<String>) {
        self.notice = Some(notice.into());
    }

    /// Shows the events around one, and that one selected.
    pub fn jump(&mut self, event: u64, around: Vec<Row>) {
        if !around.iter().any(|row| row.key == event) {
            return self.say(format!("event {event} cannot be read"));
        }
        self.around = Some(around);
        self.focus = Pane::Timeline;
        self.select(Some(event));
    }

    /// The rows of a pane that the filter lets through.
    pub(super) fn rows(&self, pane: Pane) -> Vec<&Row> {
        let rows = self.content.rows(pane);
        let Filter { pids, kinds } = &self.filter;
        let of_pids = |row: &&Row| pids.is_empty() || row.pid.is_none_or(|pid| pids.contains(&pid));
        if pane != Pane::Timeline {
            return rows.iter().filter(of_pids).collect();
        }
        if let Some(around) = &self.around {
            return around.iter().collect();
        }
        let of_kinds = |row: &&Row| row.kind.is_none_or(|kind| kinds.contains(&kind));
        if kinds.is_empty() {
            return rows.iter().filter(of_pids).collect();
        }
        let mut all: Vec<&Row> =
            self.content.searches.iter().chain(rows).filter(of_pids).filter(of_kinds).collect();
        all.sort_by_key(|row| row.key);
        all
    }

    /// Which of these rows of a pane is selected, and whether somebody chose it.
    pub(super) fn position(&self, pane: Pane, rows: &[&Row]) -> (usize, bool) {
        let last = rows.len().saturating_sub(1);
        match self.selected.get(pane as usize).copied().flatten() {
            Some(key) => (rows.iter().position(|row| row.key >= key).unwrap_or(last), true),
            None if pane.has_tail() && self.around.is_none() => (last, false),
            None => (0, false),
        }
    }

    fn select(&mut self, key: Option<u64>) {
        if let Some(selected) = self.selected.get_mut(self.focus as usize) {
            *selected = key;
        }
    }

    /// Takes a key.
    pub fn press(&mut self, key: KeyEvent) -> Act {
        self.notice = None;
        if self.prompt.is_some() {
            self.type_in(key);
            return Act::None;
        }
        if std::mem::take(&mut self.help) {
            return Act::None;
        }
        match key.code {
            KeyCode::Char('q') => return Act::Leave,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char('/') => self.prompt = Some((Prompt::Search, String::new())),
            KeyCode::Char('f') => self.prompt = Some((Prompt::Filter, self.filter_text.clone())),
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('z') => self.zoomed = !self.zoomed,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.walk(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.walk(Pane::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(10),
            KeyCode::PageUp => self.step(-10),
            KeyCode::Home | KeyCode::Char('g') => self.go_to_edge(true),
            KeyCode::End | KeyCode::Char('G') => self.go_to_edge(false),
            KeyCode::Char('n') => self.find(true, false),
            KeyCode::Char('N') => self.find(false, false),
            KeyCode::Esc => self.back(),
            KeyCode::Enter => return self.enter(),
            _ => {}
        }
        Act::None
    }

    fn walk(&mut self, steps: usize) {
        let next = (self.focus as usize + steps) % Pane::ALL.len();
        self.focus = Pane::ALL.get(next).copied().unwrap_or(self.focus);
    }

    fn step(&mut self, by: isize) {
        let rows = self.rows(self.focus);
        let (position, chosen) = self.position(self.focus, &rows);
        let next = position.saturating_add_signed(by);
        // Down from the last of what grows: with it again.
        let key = match rows.get(next) {
            Some(row) => Some(row.key),
            None if self.focus.has_tail() && self.around.is_none() => None,
            None => rows.last().map(|row| row.key),
        };
        let key = if !chosen && by < 0 && position == 0 { None } else { key };
        self.select(key);
    }

    fn go_to_edge(&mut self, first: bool) {
        if !first && self.focus == Pane::Timeline {
            self.around = None;
        }
        let rows = self.rows(self.focus);
        let key = if first { rows.first() } else { rows.last() }.map(|row| row.key);
        let follows = !first && self.focus.has_tail();
        self.select(if follows { None } else { key });
    }

    fn back(&mut self) {
        if self.around.take().is_some() {
            self.focus = Pane::Timeline;
            self.select(None);
        } else {
            self.zoomed = false;
        }
    }

    fn enter(&mut self) -> Act {
        let rows = self.rows(self.focus);
        let (position, _) = self.position(self.focus, &rows);
        match rows.get(position).and_then(|row| row.event) {
            Some(event) => Act::Jump(event),
            None => {
                self.say("nothing to jump to: no event is known of this line");
                Act::None
            }
        }
    }

    fn type_in(&mut self, key: KeyEvent) {
        let Some((prompt, text)) = &mut self.prompt else { return };
        match key.code {
            KeyCode::Esc => self.prompt = None,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
            KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => text.push(c),
            KeyCode::Enter => {
                let (prompt, text) = (*prompt, std::mem::take(text));
                self.prompt = None;
                match prompt {
                    Prompt::Search => {
                        self.search = text;
                        self.find(true, true);
                    }
                    Prompt::Filter => self.filter_by(&text),
                }
            }
            _ => {}
        }
    }

    fn filter_by(&mut self, text: &str) {
        let mut filter = Filter::default();
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            let kind = Body::KINDS.iter().find(|kind| **kind == word);
            match (word.parse(), kind) {
                (Ok(pid), _) => filter.pids.push(Pid(pid)),
                (_, Some(kind)) => filter.kinds.push(*kind),
                _ => {
                    return self.say(format!(
                        "no such kind: {word}; write kinds of events (connect,exit) or process ids"
                    ));
                }
            }
        }
        self.filter = filter;
        self.filter_text = text.trim().to_owned();
        self.selected = [None; Pane::ALL.len()];
    }

    /// Selects the next row, or the one before, that holds what is searched for; `here` may be it.
    fn find(&mut self, forward: bool, here: bool) {
        let wanted = self.search.to_lowercase();
        if wanted.is_empty() {
            return;
        }
        let rows = self.rows(self.focus);
        let (position, _) = self.position(self.focus, &rows);
        let count = rows.len();
        let steps = usize::from(!here)..count + usize::from(!here);
        let indexes = steps.map(|step| {
            if forward {
                (position + step) % count.max(1)
            } else {
                (position + count.saturating_sub(step)) % count.max(1)
            }
        });
        let found = indexes
            .filter_map(|index| rows.get(index))
            .find(|row| row.text().to_lowercase().contains(&wanted))
            .map(|row| row.key);
        match found {
            Some(key) => self.select(Some(key)),
            None => {
                let pane = self.focus.title();
                self.say(format!("`{}` is not in {pane}", self.search));
            }
        }
    }

    /// What is said of the recording when it is over.
    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.content.state, Recording::Recording)
    }
}
