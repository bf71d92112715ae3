//! `observer config`: the service's settings, each with where it was said. Knows how they are printed; where they come from is
//! `daemon::config`'s.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, ExitStatus, Format, print, printable, printable_lines};
use crate::{
    daemon::{
        config::{self, Configured, Origin, Sources},
        settings::Settings,
    },
    render::json,
    session::blank,
};

/// Where the service's settings are said, besides the files and variables that are always read.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Given {
    /// Read this file instead of /etc/observer/config.toml, and the drop-ins in config.d beside it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value, over all files and variables; can be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Given {
    /// Everything that is read, of this process.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.set.clone())
    }
}

const HELP: &str = r#"The file, by example (all settings with what is built in: /usr/share/doc/observer/config.toml):

  [[rules]]                      # which commands to record; the first that fits counts
  name = "shop"                  # shown in the journal and in `observer status`
  exe = "python*"                # glob: the program's or script's name, or with / its whole path
  args = ["-m", "dramatiq"]      # globs: words that stand one after another in the command line
  user = "shop"                  # login name or id
  unit = "shop-*.service"        # glob: the systemd unit; cgroup = "/system.slice/*" likewise
  for = "10m"                    # record no longer than this
  broker = "worker"              # ask the broker that the worker logs in to; or a URL
  keep = "always"                # or "failures": keep the session when something was wrong

  [flight]
  ring = "32MiB"                 # kept of each worker's latest past
  ready_within = "30s"           # not to consume by then is a failure

  [[hooks]]                      # what to do about a conclusion
  on = ["connection-*"]          # globs: codes (observer explain --list)
  command = ["/usr/local/bin/alert"]   # the report as JSON on stdin, and as OBSERVER_* variables; or:
  # url = "http://127.0.0.1:9093/"     # POST it
  every = "5m"                   # at most once in this time for each code

Sizes and times have units: "64MiB", "30s", "14d".

What is said later holds:
  1. what is built in
  2. /etc/observer/config.toml
  3. /etc/observer/config.d/*.toml, in the order of their names
  4. variables: OBSERVER_DAEMON_FLIGHT__RING=64MiB sets flight.ring
  5. --set flight.ring=64MiB

Rules and hooks of the main file replace those built in. Rules of drop-ins are put before those there are, hooks after them; to drop
what came before, `rules = []` or `hooks = []` stands in a file of its own. As root, a file that others can write is refused.

Examples:
  observer config
  observer config --check                          # as the unit does before it starts or reloads
  observer config --set flight.ring=64MiB --format json | jq -r '.settings[] | "\(.key) \(.origin)"'

Exit status: 0; 1 when something is wrong with the configuration."#;

/// Print the settings of the service (`observer daemon`) that hold here, and where each was said.
///
/// What is printed could be a configuration file, but for passwords, which are left out.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = HELP, after_help = "The file's grammar, and where else settings come from: observer config --help")]
pub struct Args {
    /// Where settings are said
    #[command(flatten)]
    pub given: Given,
    /// Print nothing; say what is wrong, if anything is
    #[arg(long)]
    pub check: bool,
}

/// Prints the settings.
///
/// # Errors
/// When something is wrong with them.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let configured = config::load(&args.given.sources())?;
    if !args.check {
        print(&match context.format {
            Format::Json => json_of(&configured)?,
            Format::Text => toml_of(&configured)?,
        })?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// A configuration file that says the same. Every value of a section has its own origin, a rule or hook has one as a whole.
fn toml_of(configured: &Configured) -> anyhow::Result<String> {
    let Settings { rules, flight, retention, hooks, metrics } = &configured.settings;
    let mut text = String::new();
    // Nothing said is what is built in; so that there are none has to be said.
    for (name, none) in [("rules", rules.is_empty()), ("hooks", hooks.is_empty())] {
        if none {
            text.push_str(&format!("{name} = []\n"));
        }
    }
    let mut item = |name: &str, index: usize, fields: String| {
        text.push_str(&format!(
            "[[{name}]]{}\n{}\n",
            comment(configured, &format!("{name}[{index}]")),
            safe(&fields)
        ));
    };
    for (index, rule) in rules.iter().enumerate() {
        item("rules", index, toml::to_string(rule)?);
    }
    for (index, hook) in hooks.iter().enumerate() {
        item("hooks", index, toml::to_string(hook)?);
    }
    let sections = [
        ("flight", toml::to_string(flight)?),
        ("retention", toml::to_string(retention)?),
        ("metrics", toml::to_string(metrics)?),
    ];
    for (name, fields) in sections {
        text.push_str(&format!("[{name}]\n"));
        // None of them can hold an end of line.
        for line in fields.lines() {
            let key = line.split_once(" = ").map_or(line, |(key, _)| key);
            text.push_str(&format!("{}{}\n", safe(line), comment(configured, &format!("{name}.{key}"))));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn comment(configured: &Configured, key: &str) -> String {
    configured.origins.get(key).map_or_else(String::new, |origin| format!("  # {}", shown(origin)))
}

/// Without passwords, and without what a terminal obeys: TOML has escaped that already, but for the ends of lines.
fn safe(toml: &str) -> String {
    printable_lines(&blank(toml))
}

fn shown(origin: &Origin) -> String {
    printable(&blank(&origin.to_string()))
}

fn json_of(configured: &Configured) -> serde_json::Result<String> {
    let all = serde_json::to_value(&configured.settings)?;
    let setting = |(key, origin): (&String, &Origin)| {
        // `flight.ring` and `rules[0]`, as a path into the document.
        let pointer = format!("/{}", key.replace(['.', '['], "/").replace(']', ""));
        let mut value = all.pointer(&pointer).cloned().unwrap_or_default();
        redact(&mut value);
        json!({ "key": key, "value": value, "origin": shown(origin) })
    };
    let settings: Vec<Value> = configured.origins.iter().map(setting).collect();
    json::pretty(&json!({ "schema": "observer.config/1", "settings": settings }))
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = blank(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(fields) => {
            // What is not said is not shown, as in a file.
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(redact);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(flags: &[&str]) -> Configured {
        config::load(&Sources {
            file: "/nonexistent/config.toml".into(),
            required: false,
            guarded: false,
            variables: vec![("OBSERVER_DAEMON_METRICS__LISTEN".into(), "127.0.0.1:9464".into())],
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        })
        .unwrap()
    }

    const SECRET: &str = r#"rules=[{name="a",exe="x",broker="amqp://shop:geheim1@127.0.0.1"}]"#;

    #[test]
    fn what_is_printed_could_be_a_file() {
        let flags = ["flight.ring=64MiB", r#"hooks=[{on=["*"],command=["a","it's\n\u001b"]}]"#];
        let configured = configured(&flags);
        let text = toml_of(&configured).unwrap();
        insta::assert_snapshot!(text, @r#"
        [[rules]]  # built in
        name = "python-m-dramatiq"
        exe = "python*"
        args = ["-m", "dramatiq"]
        keep = "failures"

        [[rules]]  # built in
        name = "dramatiq"
        exe = "dramatiq"
        keep = "failures"

        [[rules]]  # built in
        name = "dramatiq-gevent"
        exe = "dramatiq-gevent"
        keep = "failures"

        [[hooks]]  # --set hooks
        on = ["*"]
        command = ["a", """
        it's
        \u001B"""]
        every = "1m"

        [flight]
        head = "16MiB"  # built in
        ring = "64MiB"  # --set flight.ring
        ready_within = "30s"  # built in
        stalled_after = "5m"  # built in

        [retention]
        max_age = "14d"  # built in
        max_sessions = 1000  # built in
        max_bytes = "2GiB"  # built in
        min_free = "512MiB"  # built in

        [metrics]
        listen = "127.0.0.1:9464"  # OBSERVER_DAEMON_METRICS__LISTEN
        "#);
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), configured.settings);
    }

    #[test]
    fn passwords_are_not_printed() {
        let configured =
            configured(&[SECRET, r#"hooks=[{on=["*"],url="http://u:geheim1@127.0.0.1/?token=geheim1"}]"#]);
        for text in [toml_of(&configured).unwrap(), json_of(&configured).unwrap()] {
            assert!(!text.contains("geheim1") && text.contains("amqp://shop:«redacted»@127.0.0.1"), "{text}");
        }
        toml::from_str::<Settings>(&toml_of(&configured).unwrap()).unwrap();
    }

    #[test]
    fn json_has_every_setting_with_its_origin() {
        let text = json_of(&configured(&["rules=[]", "retention.max_age=3d"])).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema"], "observer.config/1");
        let of = |key: &str| {
            let all = document["settings"].as_array().unwrap();
            all.iter().find(|setting| setting["key"] == key).cloned().unwrap()
        };
        assert_eq!(
            of("retention.max_age"),
            json!({"key": "retention.max_age", "value": "3d", "origin": "--set retention.max_age"})
        );
        assert_eq!(of("metrics.listen")["origin"], "OBSERVER_DAEMON_METRICS__LISTEN");
        assert_eq!(of("flight.ring"), json!({"key": "flight.ring", "value": "32MiB", "origin": "built in"}));
        let first = json_of(&configured(&[])).unwrap();
        let document: Value = serde_json::from_str(&first).unwrap();
        let rule = document["settings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|setting| setting["key"] == "rules[0]")
            .cloned();
        let expected = json!({"name": "python-m-dramatiq", "exe": "python*", "args": ["-m", "dramatiq"], "keep": "failures"});
        assert_eq!(rule.unwrap()["value"], expected);
    }
}
