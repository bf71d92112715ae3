//! Makes text from the target harmless: what comes out holds no character that a terminal obeys or that hides or reorders others.
//! Knows characters only.

use std::fmt::Write as _;

/// Escapes text for one line of a terminal: control characters (also newline and tab), C1, bidirectional overrides, zero-width and
/// other invisible characters become `\n`, `\x1b`, `\u{202e}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    out
}

/// The same for bytes; those that are not UTF-8 become `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            push_hex(&mut out, u32::from(*byte));
        }
    }
    out
}

/// Escapes and puts in double quotes; quotes and backslashes inside are escaped, so that where it ends cannot be faked.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Whether a character can be shown as it is.
pub fn is_plain(c: char) -> bool {
    // The standard library's table escapes everything that is not printable, and combining characters; quotes and backslashes, which
    // it also escapes, are ASCII.
    if c.is_ascii() { !c.is_ascii_control() } else { c.escape_debug().len() == 1 }
}

fn push(out: &mut String, c: char) {
    match c {
        _ if is_plain(c) => out.push(c),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if c.is_control() => push_hex(out, u32::from(c)),
        _ => out.extend(c.escape_unicode()),
    }
}

fn push_hex(out: &mut String, value: u32) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{value:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn obeyed_or_hidden(c: char) -> bool {
        c.is_control()
            || matches!(u32::from(c), 0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
                | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
    }

    proptest! {
        #[test]
        fn no_character_that_a_terminal_obeys_comes_through(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            prop_assert!(!escape(&text).contains(obeyed_or_hidden));
            prop_assert!(!quote(&text).contains(obeyed_or_hidden));
            prop_assert!(!escape_bytes(&bytes).contains(obeyed_or_hidden));
            prop_assert!(!escape_bytes(text.as_bytes()).contains(obeyed_or_hidden));
        }

        #[test]
        fn hostile_characters_do_not_come_through(text in "[\u{0}-\u{1f}\u{7f}-\u{ad}\u{200b}-\u{202e}\u{2060}-\u{206f}\u{feff}a]{0,40}") {
            prop_assert!(!escape(&text).contains(obeyed_or_hidden));
        }
    }

    #[test]
    fn escapes_are_visible_and_plain_text_stays() {
        assert_eq!(escape("\u{1b}]0;pwned\u{7}\r\n"), r"\x1b]0;pwned\x07\r\n");
        assert_eq!(escape("file\u{202e}gpj.exe"), r"file\u{202e}gpj.exe");
        assert_eq!(escape("\u{9b}31m"), r"\x9b31m");
        assert_eq!(escape("Grüße, 世界 — 12 µs"), "Grüße, 世界 — 12 µs");
        assert_eq!(escape_bytes(b"ok\xff\xce"), r"ok\xff\xce");
        assert_eq!(quote("a\" = 3"), r#""a\" = 3""#);
    }
}
