//! Text that may stand on the page: no control or invisible character is left in it, and it is not too long. Knows characters only; what
//! HTML would obey in it, the template escapes.

use std::fmt;

use crate::{event::Known, render::style::Line, render::timeline::why_absent, words::escape::escape};

/// Characters shown of one text.
const MOST: usize = 2_000;

/// Harmless text. There is no other way to put a text of the target on the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(String);

impl Text {
    /// Any text.
    pub(super) fn of(text: impl AsRef<str>) -> Self {
        Self(cut(escape(text.as_ref())))
    }

    /// A line, which is escaped already.
    pub(super) fn line(line: &Line) -> Self {
        Self(cut(line.text()))
    }

    /// A value, or why there is none.
    pub(super) fn known(known: &Known<String>) -> Self {
        match known {
            Known::Is(text) => Self::of(text),
            Known::Partial { partial, .. } => Self::of(format!("{partial}… (cut)")),
            Known::Absent { .. } => Self::of(format!("({})", why_absent(known))),
        }
    }

    /// Whether there is nothing in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MOST) {
        Some((at, _)) => {
            let more = text.get(at..).unwrap_or_default().chars().count();
            format!("{}… ({more} more characters)", text.get(..at).unwrap_or_default())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::fixture::HOSTILE, words::escape::is_plain};

    #[test]
    fn it_is_harmless_and_of_bounded_length() {
        let text = Text::of(HOSTILE.repeat(10_000)).to_string();
        assert!(text.chars().all(is_plain) && text.chars().count() < MOST + 50, "{text}");
        assert!(text.ends_with(" more characters)"));
        assert_eq!(Text::known(&Known::not_collected()).to_string(), "(not collected)");
    }
}
