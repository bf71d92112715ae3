//! dramatiq's command line: what its words mean. Knows the words only; runs nothing.

use super::arguments::{Arguments, own_words};

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
        let arguments = Arguments::of(own_words(argv)?);
        let values = |name: &str| -> Option<Vec<String>> {
            Some(arguments.option(name)?.values.iter().map(|value| (*value).to_owned()).collect())
        };
        let number = |name: &str| arguments.option(name)?.values.first()?.parse::<i64>().ok();
        let mut modules = arguments.modules.iter().map(|module| (*module).to_owned());
        Some(Self {
            broker: modules.next(),
            modules: modules.collect(),
            processes: number("--processes").and_then(|number| number.try_into().ok()),
            threads: number("--threads"),
            path: values("--path").unwrap_or_default(),
            queues: values("--queues"),
        })
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
