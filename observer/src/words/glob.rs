//! Globs as people write them: `*` stands for any text, `?` for one character, all else for itself. Knows nothing of files.

/// Whether the whole of `text` fits. Takes no more than `pattern × text` steps, whatever the pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on from when what follows the last `*` did not fit: the `*` takes one character more.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, from)) = retry else { return false };
                (p, t) = (after, from + 1);
                retry = Some((after, from + 1));
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("*", ""),
            ("python*", "python3.12"),
            ("*-refused", "connection-refused"),
            ("a?c*e*", "abcdde"),
            ("ü", "ü"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("python", "python3"), ("?", ""), ("*a", "ab"), ("a*b*c", "abb"), ("[ab]", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)), "and it ends");
    }
}
