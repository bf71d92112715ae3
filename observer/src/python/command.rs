//! dramatiq's command line: what its words mean. Knows the words only; runs nothing.

/// What dramatiq was told (dramatiq 1.17 and 2.2, `cli.py`, `make_argument_parser`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The module, or `module:attribute`, from which the broker comes.
    pub broker: Option<String>,
    /// Further modules to import.
    pub modules: Vec<String>,
    /// Workers; `None` when not given, as many as there are processors then.
    pub processes: Option<u32>,
    /// Threads of a worker; eight when not given.
    pub threads: Option<i64>,
    /// What is put before `sys.path`; `.` when not given.
    pub path: Vec<String>,
    /// The queues to consume; `None` for all.
    pub queues: Option<Vec<String>>,
}

impl Command {
    /// Reads the arguments of a process; `None` when it is not dramatiq.
    pub fn read(argv: &[String]) -> Option<Self> {
        let module = match super::module_of(argv) {
            Some("dramatiq" | "dramatiq.__main__") => {
                argv.iter().position(|word| word.ends_with("dramatiq") || word.ends_with("dramatiq.__main__"))
            }
            _ => None,
        };
        let script = || {
            argv.iter().take(2).position(|word| {
                let name = word.rsplit('/').next().unwrap_or(word);
                matches!(name, "dramatiq" | "dramatiq-gevent") || word.ends_with("/dramatiq/__main__.py")
            })
        };
        let first = module.map(|at| at + 1).or_else(|| script().map(|at| at + 1))?;
        Some(Self::of_words(argv.get(first..).unwrap_or_default()))
    }

    fn of_words(words: &[String]) -> Self {
        let mut command = Self::default();
        let mut words = words.iter().map(String::as_str).peekable();
        let mut plain = Vec::new();
        let mut only_plain = false;
        while let Some(word) = words.next() {
            if only_plain || !word.starts_with('-') || word == "-" {
                plain.push(word.to_owned());
                continue;
            }
            if word == "--" {
                only_plain = true;
                continue;
            }
            let (name, attached) = split(word);
            let Some((option, takes)) = option(name) else { continue };
            let mut values: Vec<String> = attached.map(str::to_owned).into_iter().collect();
            let wanted = match takes {
                Takes::Nothing => 0,
                Takes::One => 1,
                Takes::Many => usize::MAX,
            };
            while values.len() < wanted
                && attached.is_none()
                && let Some(value) =
                    words.next_if(|next| !next.starts_with('-') || *next == "-" || is_number(next))
            {
                values.push(value.to_owned());
            }
            let number = || values.first().and_then(|value| value.parse::<i64>().ok());
            match option {
                "--processes" => command.processes = number().and_then(|number| number.try_into().ok()),
                "--threads" => command.threads = number(),
                "--path" => command.path = values,
                "--queues" => command.queues = Some(values),
                _ => {}
            }
        }
        let mut plain = plain.into_iter();
        command.broker = plain.next();
        command.modules = plain.collect();
        command
    }

    /// The modules it imports, in order, without attributes.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        let of_broker = self.broker.as_deref().map(|broker| broker.split(':').next().unwrap_or(broker));
        of_broker.into_iter().chain(self.modules.iter().map(String::as_str))
    }

    /// The attribute after the colon.
    pub fn attribute(&self) -> Option<&str> {
        self.broker.as_deref()?.split_once(':').map(|(_, attribute)| attribute)
    }
}

#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    One,
    Many,
}

fn is_number(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}

/// `--queues=a`, `-Qa`: the option and what is attached to it.
fn split(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    }
    match word.char_indices().nth(2) {
        Some((at, _)) => {
            let (name, value) = word.split_at(at);
            (name, Some(value.strip_prefix('=').unwrap_or(value)))
        }
        None => (word, None),
    }
}

/// argparse takes any beginning of a long option that only one has.
fn option(name: &str) -> Option<(&'static str, Takes)> {
    const ALL: [(&str, &str, Takes); 17] = [
        ("--processes", "-p", Takes::One),
        ("--threads", "-t", Takes::One),
        ("--path", "-P", Takes::Many),
        ("--queues", "-Q", Takes::Many),
        ("--pid-file", "", Takes::One),
        ("--log-file", "", Takes::One),
        ("--skip-logging", "", Takes::Nothing),
        ("--use-spawn", "", Takes::Nothing),
        ("--fork-function", "-f", Takes::One),
        ("--worker-fork-timeout", "", Takes::One),
        ("--worker-shutdown-timeout", "", Takes::One),
        ("--watch", "", Takes::One),
        ("--watch-use-polling", "", Takes::Nothing),
        ("--watch-include", "-i", Takes::One),
        ("--watch-exclude", "-x", Takes::One),
        ("--version", "", Takes::Nothing),
        ("--verbose", "-v", Takes::Nothing),
    ];
    let exact = ALL.iter().find(|(long, short, _)| *long == name || (!short.is_empty() && *short == name));
    let begun = || ALL.iter().find(|(long, ..)| name.len() > 2 && long.starts_with(name));
    exact.or_else(begun).map(|(long, _, takes)| (*long, *takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Command {
        Command::read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_are_read_as_argparse_reads_them() {
        let command = read("python -m dramatiq app.main:broker app.a app.b -p 2 -t0 -Q one two --path=/x");
        assert_eq!(command.imports().collect::<Vec<_>>(), ["app.main", "app.a", "app.b"]);
        assert_eq!(command.attribute(), Some("broker"));
        assert_eq!((command.processes, command.threads), (Some(2), Some(0)));
        assert_eq!(command.queues.as_deref(), Some(&["one".to_owned(), "two".to_owned()][..]));
        assert_eq!(command.path, ["/x"]);
        assert_eq!(read("/venv/bin/python /venv/bin/dramatiq --thr -1 w").threads, Some(-1));
        assert_eq!(read("dramatiq -vv w").broker.as_deref(), Some("w"));
        assert_eq!(Command::read(&["python".into(), "worker.py".into()]), None);
    }
}
