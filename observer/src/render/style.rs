//! Lines of styled text. Every piece is escaped on its way in, so nothing from the target reaches a terminal raw. Whether colours are
//! shown is decided by whoever owns the stream (`anstream`), not here.

use std::io::{self, Write};

use crate::words::escape;
use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Text as it is.
pub const PLAIN: Style = Style::new();
/// What a screen is about.
pub const STRONG: Style = Style::new().bold();
/// What is there for completeness.
pub const DIM: Style = Style::new().dimmed();
/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What failed.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What wants a look.
pub const ODD: Style = AnsiColor::Yellow.on_default();
/// Names of things: processes, kinds of events.
pub const NAME: Style = AnsiColor::Cyan.on_default();

/// One line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    spans: Vec<(Style, String)>,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self { spans: Vec::new() }
    }

    /// Appends text, escaped.
    pub fn push(&mut self, style: Style, text: impl AsRef<str>) -> &mut Self {
        self.spans.push((style, escape::escape(text.as_ref())));
        self
    }

    /// Appends bytes, escaped.
    pub fn push_bytes(&mut self, style: Style, bytes: &[u8]) -> &mut Self {
        self.spans.push((style, escape::escape_bytes(bytes)));
        self
    }

    /// The same, for building in one expression.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl AsRef<str>) -> Self {
        self.push(style, text);
        self
    }

    /// The same with bytes.
    #[must_use]
    pub fn with_bytes(mut self, style: Style, bytes: &[u8]) -> Self {
        self.push_bytes(style, bytes);
        self
    }

    /// Appends text so that the line becomes at most `columns` wide, cutting it where it must.
    pub fn push_fit(&mut self, style: Style, text: impl AsRef<str>, columns: usize) -> &mut Self {
        let room = columns.saturating_sub(self.width());
        self.spans.push((style, cut(&escape::escape(text.as_ref()), room)));
        self
    }

    /// Appends another line.
    pub fn append(&mut self, mut other: Self) -> &mut Self {
        self.spans.append(&mut other.spans);
        self
    }

    /// Its pieces, escaped.
    pub fn spans(&self) -> impl Iterator<Item = (Style, &str)> {
        self.spans.iter().map(|(style, text)| (*style, text.as_str()))
    }

    /// Its text, without styles.
    pub fn text(&self) -> String {
        self.spans.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// How many columns it takes.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(_, text)| text.width()).sum()
    }

    /// Writes it with a newline, cut to so many columns when a width is given.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn write(&self, out: &mut impl Write, columns: Option<usize>) -> io::Result<()> {
        let mut room = columns.unwrap_or(usize::MAX);
        let fits = self.width() <= room;
        for (style, text) in &self.spans {
            let text = if fits { text.clone() } else { cut(text, room.max(1)) };
            let whole = text.width();
            if *style == PLAIN {
                write!(out, "{text}")?;
            } else {
                write!(out, "{style}{text}{style:#}")?;
            }
            room = room.saturating_sub(whole);
            if room == 0 {
                break;
            }
        }
        writeln!(out)
    }
}

/// The beginning of a text that takes at most so many columns, ending in `…` when something was cut.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            let width = c.width().unwrap_or(0);
            let fits = width <= room;
            room = room.saturating_sub(width);
            fits
        })
        .collect();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &Line, columns: usize) -> String {
        let mut out = Vec::new();
        line.write(&mut anstream::StripStream::new(&mut out), Some(columns)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_cut_to_its_columns() {
        let line = Line::new().with(STRONG, "session ").with(PLAIN, "世界 and more");
        assert_eq!(written(&line, 100), "session 世界 and more\n");
        assert_eq!(written(&line, 12), "session 世…\n");
        assert_eq!(written(&line, 8), "session \n", "the cut falls between two pieces");
        assert_eq!(written(&line, 4), "ses…\n");
    }

    #[test]
    fn text_cannot_bring_its_own_control_sequences() {
        let mut out = Vec::new();
        Line::new().with(BAD, "a\u{1b}[2Jb\nc").write(&mut out, None).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\u{1b}[31ma\\x1b[2Jb\\nc\u{1b}[0m\n");
    }
}
