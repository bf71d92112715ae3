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

/// A time in which nobody watched, in words.
pub fn gap(since_ns: u64, until_ns: u64, gone: &[impl std::fmt::Display], why: &str) -> String {
    let mut text =
        format!("nobody watched for {}: {why}", units::duration(until_ns.saturating_sub(since_ns)));
    if !gone.is_empty() {
        let pids: Vec<String> = gone.iter().take(8).map(ToString::to_string).collect();
        let more = if gone.len() > pids.len() { ", …" } else { "" };
        let which = if gone.len() == 1 { "process" } else { "processes" };
        text.push_str(&format!("; gone meanwhile: {which} {}{more}", pids.join(", ")));
    }
    text
}
