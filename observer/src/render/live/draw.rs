//! Draws the view: a pure function of its state and of the room there is. Knows ratatui's frames; does no input or output.

use anstyle::{AnsiColor, Color as Ansi, Effects};
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line as Text, Span},
};

use super::{Pane, State, state::Prompt};
use crate::render::style::{self, DIM, Line, ODD, PLAIN, STRONG};

/// Below this nothing useful can be shown.
const MIN_COLUMNS: u16 = 40;
const MIN_ROWS: u16 = 10;
/// Below this, one pane at a time.
const MANY_COLUMNS: u16 = 72;
const MANY_ROWS: u16 = 18;

const KEYS: [(&str, &str); 11] = [
    ("Tab h l ← →", "the next or the last pane"),
    ("j k ↑ ↓ PgUp PgDn", "up and down in a pane"),
    ("g G", "to the beginning; to the end, and along with it"),
    ("Enter", "to the event that proves the line, in the timeline"),
    ("Esc", "back from there to the last events"),
    ("/ n N", "search in the pane; the next, the one before"),
    ("f", "show only kinds of events or processes: connect,exit 4711"),
    ("Space", "the view stands still, the recording goes on; again: goes on"),
    ("z", "the pane takes all the room; again: all panes"),
    ("?", "this"),
    ("q", "leave"),
];

/// Draws a view. Without `color` nothing but brightness tells things apart; nothing is told by colour alone.
pub fn draw(frame: &mut Frame<'_>, state: &State, color: bool) {
    let area = frame.area();
    let mut paper = Paper { buffer: frame.buffer_mut(), color };
    if area.width < MIN_COLUMNS || area.height < MIN_ROWS {
        let line =
            Line::new().with(PLAIN, format!("too small: {MIN_COLUMNS}×{MIN_ROWS} are needed; q leaves"));
        return paper.line(area.x, area.y, area.width, &line);
    }
    paper.line(area.x, area.y, area.width, &head(state));
    paper.line(area.x, area.y + 1, area.width, &state.content.verdict);
    let body = Rect { y: area.y + 2, height: area.height - 3, ..area };
    if state.help {
        paper.help(body, state);
    } else if state.zoomed || area.width < MANY_COLUMNS || area.height < MANY_ROWS {
        paper.tabs(body, state);
        paper.whole(Rect { y: body.y + 1, height: body.height - 1, ..body }, state, state.focus);
    } else {
        let left = Rect { width: body.width * 9 / 20, ..body };
        let right = Rect { x: left.right() + 1, width: body.width - left.width - 1, ..body };
        paper.column(left, state, &[(Pane::Processes, 3), (Pane::Ladder, 3), (Pane::Queues, 3)]);
        paper.column(right, state, &[(Pane::Findings, 3), (Pane::Conversation, 3), (Pane::Timeline, 4)]);
        for y in body.top()..body.bottom() {
            paper.line(left.right(), y, 1, &Line::new().with(DIM, "│"));
        }
    }
    paper.line(area.x, area.bottom() - 1, area.width, &foot(state));
}

fn head(state: &State) -> Line {
    let mut line = Line::new();
    if state.paused {
        let more = state.events_now.saturating_sub(state.content.events);
        line.push(STRONG, format!("PAUSED (+{more}) "));
    }
    line.append(state.content.head.clone());
    line.push(DIM, "  ? help");
    line
}

fn foot(state: &State) -> Line {
    if let Some((prompt, text)) = &state.prompt {
        let word = if *prompt == Prompt::Search { "search: " } else { "only kinds or processes: " };
        return Line::new().with(STRONG, word).with(PLAIN, text).with(STRONG, "▏");
    }
    if let Some(notice) = &state.notice {
        return Line::new().with(ODD, notice);
    }
    let mut line = Line::new();
    if !state.filter_text.is_empty() {
        line.push(ODD, format!("only {}  ", state.filter_text));
    }
    if state.is_over() {
        line.push(STRONG, "the recording is over, q leaves");
    } else {
        line.push(DIM, if state.paused { "q leave  Space goes on" } else { "q leave  Space pauses" });
    }
    line.push(DIM, "  Tab pane  z zoom  / search  f filter  Enter evidence");
    line
}

struct Paper<'a> {
    buffer: &'a mut Buffer,
    color: bool,
}

impl Paper<'_> {
    fn line(&mut self, x: u16, y: u16, width: u16, line: &Line) {
        let mut room = usize::from(width);
        let fits = line.width() <= room;
        let mut spans = Vec::new();
        for (style, text) in line.spans() {
            let text = if fits { text.to_owned() } else { style::cut(text, room) };
            room = room.saturating_sub(unicode_width::UnicodeWidthStr::width(text.as_str()));
            spans.push(Span::styled(text, self.style(style)));
            if room == 0 {
                break;
            }
        }
        self.buffer.set_line(x, y, &Text::from(spans), width);
    }

    fn style(&self, style: anstyle::Style) -> Style {
        let mut drawn = Style::new();
        let effects = style.get_effects();
        if effects.contains(Effects::BOLD) {
            drawn = drawn.add_modifier(Modifier::BOLD);
        }
        if effects.contains(Effects::DIMMED) {
            drawn = drawn.add_modifier(Modifier::DIM);
        }
        match style.get_fg_color() {
            Some(Ansi::Ansi(color)) if self.color => drawn.fg(match color {
                AnsiColor::Green => Color::Green,
                AnsiColor::Red => Color::Red,
                AnsiColor::Yellow => Color::Yellow,
                _ => Color::Cyan,
            }),
            _ => drawn,
        }
    }

    /// Panes one above the other, each with its share of the height; what one does not need, the others have.
    fn column(&mut self, area: Rect, state: &State, panes: &[(Pane, u16)]) {
        let needs: Vec<u16> = panes
            .iter()
            .map(|(pane, _)| {
                u16::try_from(state.rows(*pane).len().max(1)).unwrap_or(u16::MAX).saturating_add(1)
            })
            .collect();
        let mut y = area.y;
        for (index, height) in share(area.height, &needs, panes).into_iter().enumerate() {
            let Some((pane, _)) = panes.get(index) else { break };
            if height == 0 {
                continue;
            }
            self.title(Rect { y, height: 1, ..area }, state, *pane);
            self.rows(Rect { y: y + 1, height: height - 1, ..area }, state, *pane);
            y += height;
        }
    }

    fn title(&mut self, area: Rect, state: &State, pane: Pane) {
        let has_focus = state.focus == pane;
        let (style, sign) = if has_focus { (STRONG, "▶ ") } else { (DIM, "─ ") };
        let mut line = Line::new().with(style, sign).with(style, pane.title()).with(style, note(state, pane));
        let rest = usize::from(area.width).saturating_sub(line.width() + 1);
        line.push(DIM, format!(" {}", "─".repeat(rest)));
        self.line(area.x, area.y, area.width, &line);
    }

    fn tabs(&mut self, area: Rect, state: &State) {
        let mut line = Line::new();
        for pane in Pane::ALL {
            if pane == state.focus {
                line.push(STRONG, format!("▶ {}{} ", pane.title(), note(state, pane)));
            } else {
                line.push(DIM, format!("{} ", pane.title()));
            }
        }
        // What has the focus is named, however little room there is.
        if line.width() > usize::from(area.width) {
            line =
                Line::new().with(STRONG, format!("▶ {}{} ", state.focus.title(), note(state, state.focus)));
            line.push(DIM, format!("{}/{}, Tab: the next", state.focus as usize + 1, Pane::ALL.len()));
        }
        self.line(area.x, area.y, area.width, &line);
    }

    /// A pane that has all the room: what of the selected row does not fit stands below.
    fn whole(&mut self, area: Rect, state: &State, pane: Pane) {
        let rows = state.rows(pane);
        let (position, _) = state.position(pane, &rows);
        let room = usize::from(area.width.saturating_sub(2));
        let cut = rows.get(position).filter(|row| row.fitting(room).width() > room).map(|row| row.text());
        let lines = cut.map(|text| textwrap::wrap(text.trim(), room).into_iter().map(String::from).collect());
        let lines: Vec<String> = lines.unwrap_or_default();
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height / 3);
        self.rows(Rect { height: area.height - height, ..area }, state, pane);
        for (y, line) in (area.bottom() - height..area.bottom()).zip(&lines) {
            self.line(area.x + 2, y, area.width - 2, &Line::new().with(STRONG, line));
        }
    }

    fn rows(&mut self, area: Rect, state: &State, pane: Pane) {
        let rows = state.rows(pane);
        let height = usize::from(area.height);
        if height == 0 {
            return;
        }
        if rows.is_empty() {
            return self.line(
                area.x + 2,
                area.y,
                area.width.saturating_sub(2),
                &Line::new().with(DIM, nothing(pane)),
            );
        }
        let (position, chosen) = state.position(pane, &rows);
        let most = rows.len().saturating_sub(height);
        let first =
            if chosen { position.saturating_sub(height / 2) } else { position.saturating_sub(height - 1) };
        let first = first.min(most);
        let has_focus = state.focus == pane;
        for (index, row) in rows.iter().enumerate().skip(first).take(height) {
            let y = area.y + u16::try_from(index - first).unwrap_or(0);
            let room = area.width.saturating_sub(2);
            if index == position && (has_focus || chosen) {
                self.line(area.x, y, 1, &Line::new().with(STRONG, "›"));
            }
            self.line(area.x + 2, y, room, row.fitting(room.into()));
            if index == position && has_focus {
                let selected = Rect { x: area.x, y, width: area.width, height: 1 };
                self.buffer.set_style(selected, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }

    fn help(&mut self, area: Rect, state: &State) {
        let mut lines = vec![Line::new().with(STRONG, "keys (any key closes this)")];
        let key =
            |(keys, what): (&str, &str)| Line::new().with(STRONG, format!("  {keys:<18} ")).with(PLAIN, what);
        lines.extend(KEYS.into_iter().map(key));
        lines.push(Line::new().with(STRONG, "lost, and not to be seen"));
        lines.extend(state.content.missing.iter().cloned().map(|line| {
            let mut indented = Line::new().with(PLAIN, "  ");
            indented.append(line);
            indented
        }));
        for (y, line) in (area.top()..area.bottom()).zip(&lines) {
            self.line(area.x, y, area.width, line);
        }
    }
}

/// What is said beside a pane's title.
fn note(state: &State, pane: Pane) -> String {
    if pane == Pane::Timeline && state.around.is_some() {
        return " (around an event; G: the last ones)".to_owned();
    }
    String::new()
}

const fn nothing(pane: Pane) -> &'static str {
    match pane {
        Pane::Findings => "nothing was found so far",
        Pane::Conversation => "nothing was said in AMQP",
        Pane::Ladder => "no worker, and nobody who speaks AMQP",
        Pane::Processes | Pane::Queues | Pane::Timeline => "nothing",
    }
}

/// Heights in proportion to weights, none more than it needs while another one needs more.
fn share(height: u16, needs: &[u16], panes: &[(Pane, u16)]) -> Vec<u16> {
    let weights: u16 = panes.iter().map(|(_, weight)| weight).sum::<u16>().max(1);
    let fair = panes.iter().map(|(_, weight)| height * weight / weights);
    let mut heights: Vec<u16> = fair.zip(needs).map(|(fair, need)| fair.max(2).min(*need)).collect();
    let used = |heights: &[u16]| heights.iter().sum::<u16>();
    while used(&heights) < height {
        // To whoever lacks most; when nobody lacks any, to the last.
        let lack = |index: &usize| needs[*index].saturating_sub(heights[*index]);
        let neediest = (0..heights.len()).max_by_key(lack).filter(|index| lack(index) > 0);
        let Some(grown) = heights.get_mut(neediest.unwrap_or(panes.len().saturating_sub(1))) else { break };
        *grown += 1;
    }
    heights
}
