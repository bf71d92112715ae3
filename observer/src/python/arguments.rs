//! The arguments of `python -m dramatiq`, split as its argparse would: what is an option, what it takes, what is left for modules. Knows
//! dramatiq's options (2.2 and 1.17, `cli.py`, `make_argument_parser`); nothing of processes.

/// How many words an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    None,
    One,
    /// `nargs="*"`: all up to the next option.
    Many,
}

/// Long name, short name, and what it takes.
const OPTIONS: &[(&str, &str, Takes)] = &[
    ("--processes", "-p", Takes::One),
    ("--threads", "-t", Takes::One),
    ("--path", "-P", Takes::Many),
    ("--queues", "-Q", Takes::Many),
    ("--pid-file", "", Takes::One),
    ("--log-file", "", Takes::One),
    ("--skip-logging", "", Takes::None),
    ("--use-spawn", "", Takes::None),
    ("--fork-function", "-f", Takes::One),
    ("--worker-fork-timeout", "", Takes::One),
    ("--worker-shutdown-timeout", "", Takes::One),
    ("--watch", "", Takes::One),
    ("--watch-use-polling", "", Takes::None),
    ("--watch-include", "-i", Takes::One),
    ("--watch-exclude", "-x", Takes::One),
    ("--version", "", Takes::None),
    ("--verbose", "-v", Takes::None),
    ("--help", "-h", Takes::None),
];

/// An option that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given<'a> {
    /// Its long name, of those that dramatiq knows.
    pub(crate) name: &'static str,
    /// As it was written.
    pub(crate) word: &'a str,
    pub(crate) takes: Takes,
    /// What it took.
    pub(crate) values: Vec<&'a str>,
}

/// Arguments, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments<'a> {
    /// The module with the broker, then further modules.
    pub(crate) modules: Vec<&'a str>,
    /// Options, in order.
    pub(crate) options: Vec<Given<'a>>,
    /// Options that dramatiq does not know.
    pub(crate) unknown: Vec<&'a str>,
}

/// The words after `-m dramatiq`, or after the script `dramatiq`; `None` of every other program.
pub(crate) fn own_words(argv: &[String]) -> Option<&[String]> {
    let is_module = |name: &str| matches!(name, "dramatiq" | "dramatiq.__main__");
    let is_script = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or(word);
        matches!(name, "dramatiq" | "dramatiq-gevent") || word.ends_with("/dramatiq/__main__.py")
    };
    let at = match super::module_of(argv) {
        Some(module) if is_module(module) => {
            argv.iter().position(|word| is_module(word.trim_start_matches("-m")))?
        }
        Some(_) => return None,
        // The program itself, or the first word that is no option of the interpreter.
        None if argv.first().is_some_and(is_script) => 0,
        None => argv.iter().skip(1).position(|word| !word.starts_with('-')).map(|at| at + 1)?,
    };
    let found = argv.get(at)?;
    if !is_script(found) && !is_module(found.trim_start_matches("-m")) {
        return None;
    }
    argv.get(at + 1..)
}

impl<'a> Arguments<'a> {
    /// Splits the words.
    pub(crate) fn of(words: &'a [String]) -> Self {
        let mut arguments = Self::default();
        let mut rest = words.iter().map(String::as_str).peekable();
        while let Some(word) = rest.next() {
            if word == "--" {
                arguments.modules.extend(rest.by_ref());
            } else if !is_option(word) {
                arguments.modules.push(word);
            } else if let Some((name, takes, joined)) = known(word) {
                let mut values: Vec<&str> = joined.into_iter().collect();
                let wanted = match takes {
                    Takes::None => 0,
                    Takes::One => 1,
                    Takes::Many => usize::MAX,
                };
                // `--queues=a b`: what is joined is all it takes.
                if values.is_empty() {
                    while values.len() < wanted
                        && let Some(value) = rest.next_if(|word| !is_option(word))
                    {
                        values.push(value);
                    }
                }
                arguments.options.push(Given { name, word, takes, values });
            } else {
                arguments.unknown.push(word);
            }
        }
        arguments
    }

    /// The last time an option was given: that is the one that counts.
    pub(crate) fn option(&self, name: &str) -> Option<&Given<'a>> {
        self.options.iter().rev().find(|given| given.name == name)
    }

    /// The option that took what looks like a module's name, where no module is left: one that takes many before one that takes one.
    pub(crate) fn swallower(&self) -> Option<(&Given<'a>, &'a str)> {
        if !self.modules.is_empty() {
            return None;
        }
        let took = |takes: Takes| {
            let given = self.options.iter().rev().filter(move |given| given.takes == takes);
            given.filter(|given| !given.word.contains('=')).find_map(|given| {
                let is_own = |value: &str| {
                    given.name.ends_with("-file") && [".pid", ".log"].iter().any(|end| value.ends_with(end))
                };
                let value =
                    given.values.iter().rev().copied().find(|value| is_module(value) && !is_own(value))?;
                Some((given, value))
            })
        };
        took(Takes::Many).or_else(|| took(Takes::One))
    }
}

/// Whether argparse takes a word for an option: it begins with a dash and is no negative number (CPython 3.12, `argparse.py`,
/// `_parse_optional`).
fn is_option(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else { return false };
    !rest.is_empty() && !rest.chars().all(|c| c.is_ascii_digit() || c == '.') && !word.contains(' ')
}

/// The option a word names, perhaps shortened, and a value that is joined to it.
fn known(word: &str) -> Option<(&'static str, Takes, Option<&str>)> {
    if word.starts_with("--") {
        let (name, joined) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let exact = OPTIONS.iter().find(|(long, ..)| *long == name);
        let mut shortened = OPTIONS.iter().filter(|(long, ..)| long.starts_with(name));
        let found = exact.or_else(|| shortened.next().filter(|_| shortened.next().is_none()))?;
        return Some((found.0, found.2, joined));
    }
    let (_, short) = word.char_indices().nth(2).map_or((word, None), |(at, _)| {
        let (name, joined) = word.split_at(at);
        (name, Some(joined))
    });
    let name = word.get(..2)?;
    let found = OPTIONS.iter().find(|(_, known, _)| *known == name)?;
    Some((found.0, found.2, short.filter(|_| found.2 != Takes::None)))
}

/// Whether a word can name a module, or a module and an attribute: `app.worker:broker`.
fn is_module(word: &str) -> bool {
    let name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    };
    word.split(':').flat_map(|part| part.split('.')).all(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        shlex::split(text).unwrap()
    }

    #[test]
    fn arguments_are_split_as_argparse_would() {
        let argv =
            words("/v/bin/python -u -m dramatiq -p2 --threads=4 -vv app.worker:broker more -Q a b --pid x");
        let arguments = Arguments::of(own_words(&argv).unwrap());
        assert_eq!(arguments.modules, ["app.worker:broker", "more"]);
        let value = |name: &str| arguments.option(name).unwrap().values.clone();
        assert_eq!(value("--processes"), ["2"]);
        assert_eq!(value("--threads"), ["4"]);
        assert_eq!(value("--queues"), ["a", "b"]);
        assert_eq!(value("--pid-file"), ["x"]);
        assert_eq!(arguments.swallower(), None);
    }

    #[test]
    fn negative_numbers_are_values() {
        let argv = words("python -m dramatiq tasks -p -1");
        let arguments = Arguments::of(own_words(&argv).unwrap());
        assert_eq!(arguments.option("--processes").unwrap().values, ["-1"]);
    }

    #[test]
    fn what_swallowed_the_module_is_named() {
        for (line, option, value) in [
            ("python -m dramatiq -Q default tasks", "--queues", "tasks"),
            ("python -m dramatiq -p 1 --path . tasks", "--path", "tasks"),
            ("/v/bin/python /v/bin/dramatiq --watch tasks", "--watch", "tasks"),
            ("python -m dramatiq -t 2 --queues mail app.tasks:broker", "--queues", "app.tasks:broker"),
        ] {
            let argv = words(line);
            let arguments = Arguments::of(own_words(&argv).unwrap());
            let (given, took) = arguments.swallower().unwrap();
            assert_eq!((given.name, took), (option, value), "{line}");
        }
        for line in [
            "python -m dramatiq",
            "python -m dramatiq -p 1",
            "python -m dramatiq --path=. -Q q-1",
            "python -m dramatiq tasks -Q a",
        ] {
            let argv = words(line);
            assert_eq!(Arguments::of(own_words(&argv).unwrap()).swallower(), None, "{line}");
        }
    }
}
