//! How numbers, names and command lines are written for people. Knows none of the project's types.

pub mod escape;
pub mod glob;
pub mod names;
pub mod units;

/// A command line as one would type it.
pub fn command(argv: &[String]) -> String {
    let quote = |word: &String| {
        shlex::try_quote(word).map_or_else(|_| escape::quote(word), std::borrow::Cow::into_owned)
    };
    argv.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// With a capital letter first, as at the beginning of a sentence.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
