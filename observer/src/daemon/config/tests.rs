use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;
use crate::daemon::settings::{Bytes, Span};

/// A folder like /etc/observer, with what a process would be given.
struct Etc {
    folder: TempDir,
    sources: Sources,
}

impl Etc {
    fn new(main: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::create_dir(folder.path().join("config.d")).unwrap();
        std::fs::write(&file, main).unwrap();
        let sources =
            Sources { file, required: true, guarded: false, variables: Vec::new(), flags: Vec::new() };
        Self { folder, sources }
    }

    fn drop_in(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("config.d").join(name)
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, flag: &str) -> Self {
        self.sources.flags.push(flag.into());
        self
    }

    fn load(&self) -> Configured {
        load(&self.sources).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error, with the folder's name as `ETC`.
    fn error(&self) -> String {
        let error = load(&self.sources).expect_err("something is wrong here").to_string();
        error.replace(&self.folder.path().display().to_string(), "ETC")
    }
}

fn names(configured: &Configured) -> Vec<&str> {
    configured.settings.rules.iter().map(|rule| rule.name.as_str()).collect()
}

#[test]
fn nothing_said_is_what_is_built_in() {
    let configured = Etc::new("").load();
    assert_eq!(configured.settings, Settings::default());
    assert!(configured.origins.values().all(|origin| *origin == Origin::BuiltIn), "{:?}", configured.origins);
    assert!(
        configured.origins.contains_key("retention.max_sessions")
            && configured.origins.contains_key("rules[2]")
    );
}

#[test]
fn the_default_file_says_what_is_built_in() {
    let text = include_str!("../../../dist/config.toml");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "all of it is commented out");
    assert_eq!(Etc::new(text).load().settings, Settings::default());
    // Prose begins with a blank after its `#`.
    let setting = |line: &str| {
        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(|rest| format!("{rest}\n"))
    };
    let uncommented: String = text.lines().filter_map(setting).collect();
    let configured = Etc::new(&uncommented).load();
    assert_eq!(configured.settings, Settings::default());
    let said = |(key, origin): (&String, &Origin)| (*origin == Origin::BuiltIn).then(|| key.clone());
    assert_eq!(
        configured.origins.iter().filter_map(said).collect::<Vec<_>>(),
        Vec::<String>::new(),
        "every setting is there"
    );
}

#[test]
fn later_layers_hold() {
    let etc = Etc::new(
        "[flight]\nhead = \"1MiB\"\nring = \"1MiB\"\nready_within = \"1s\"\nstalled_after = \"1s\"\n",
    )
    .drop_in(
        "20.toml",
        "flight.ring = \"2MiB\"\nflight.ready_within = \"2s\"\nflight.stalled_after = \"2s\"\n",
    )
    .drop_in("10.toml", "flight.ring = \"9MiB\"\n")
    .drop_in(".hidden.toml", "nonsense")
    .drop_in("old.toml~", "nonsense")
    .variable("OBSERVER_DAEMON_FLIGHT__READY_WITHIN", "1.5s")
    .variable("OBSERVER_DAEMON_FLIGHT__STALLED_AFTER", "3s")
    .variable("OBSERVER_VENV", "/venv")
    .flag("flight.stalled_after=4m")
    .flag("retention.max_sessions=7");
    let Configured { settings, origins } = etc.load();
    assert_eq!((settings.flight.head, settings.flight.ring), (Bytes(1 << 20), Bytes(2 << 20)));
    assert_eq!(
        (settings.flight.ready_within, settings.flight.stalled_after),
        (Span(1_500_000_000), Span(240_000_000_000))
    );
    assert_eq!(settings.retention.max_sessions, 7);
    assert_eq!(origins["flight.head"], Origin::File(etc.sources.file.clone()));
    assert_eq!(origins["flight.ring"], Origin::File(etc.path("20.toml")));
    assert_eq!(
        origins["flight.ready_within"],
        Origin::Variable("OBSERVER_DAEMON_FLIGHT__READY_WITHIN".into())
    );
    assert_eq!(origins["flight.stalled_after"].to_string(), "--set flight.stalled_after");
    assert_eq!(origins["retention.max_age"], Origin::BuiltIn);
}

#[test]
fn rules_of_drop_ins_come_before_those_there_are() {
    let rule = |name: &str| format!("[[rules]]\nname = \"{name}\"\nexe = \"x\"\n");
    let etc = Etc::new("").drop_in("10.toml", &rule("a"));
    assert_eq!(names(&etc.load()), ["a", "python-m-dramatiq", "dramatiq", "dramatiq-gevent"]);
    let etc =
        Etc::new(&rule("main")).drop_in("10.toml", &(rule("a") + &rule("b"))).drop_in("20.toml", &rule("c"));
    let configured = etc.load();
    assert_eq!(names(&configured), ["c", "a", "b", "main"], "and the main file's replace those built in");
    assert_eq!(configured.origins["rules[1]"], Origin::File(etc.path("10.toml")));
    let etc = etc.drop_in("15.toml", "rules = []").flag("rules=[{name=\"flag\",args=[\"8\"],user=0}]");
    let configured = etc.load();
    assert_eq!(names(&configured), ["flag", "c"]);
    assert_eq!(
        (configured.settings.rules[0].user.as_deref(), configured.settings.rules[0].args[0].as_str()),
        (Some("0"), "8")
    );
}

#[test]
fn hooks_add_up() {
    let hook = |code: &str| format!("[[hooks]]\non = [\"{code}\"]\ncommand = [\"x\"]\n");
    let etc = Etc::new(&hook("healthy")).drop_in("10.toml", &hook("idle"));
    let on = |configured: &Configured| {
        configured.settings.hooks.iter().map(|hook| hook.on[0].clone()).collect::<Vec<_>>()
    };
    assert_eq!(on(&etc.load()), ["healthy", "idle"]);
    assert_eq!(etc.load().settings.hooks[0].every, Span(60_000_000_000));
    assert_eq!(on(&etc.drop_in("05.toml", "hooks = []").load()), ["idle"]);
}

#[test]
fn errors_say_where_what_and_what_to_write() {
    let cases = [
        "[flight]\nhead = \"1MiB\"\nrign = \"2MiB\"\n",
        "[flihgt]\n",
        "[flight]\nring = 64\n",
        "[flight]\nring = \"64MB\"\n",
        "[flight]\nready_within = \"30\"\n",
        "[flight]\nring = \"1KiB\"\n",
        "[flight\n",
        "flight = 3\n",
        "[retention]\nmax_sessions = 0\n",
        "[[rules]]\nname = \"a\"\n",
        "[[rules]]\nexe = \"a\"\n",
        "\n[[rules]]\nname = \"a\"\nexe = \"x\"\nfro = \"1s\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\nkeep = \"failure\"\n",
        "[[rules]]\nname = \"a b\"\nexe = \"x\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\nuser = \"dev*\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\nuser = \"nobody-of-that-name\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\nsession = \"shop-*\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"bin/x\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\nbroker = \"redis://:geheim1@host\"\n",
        "[[rules]]\nname = \"a\"\nexe = \"x\"\n[[rules]]\nname = \"a\"\nexe = \"y\"\n",
        "[[hooks]]\ncommand = [\"x\"]\n",
        "[[hooks]]\non = [\"*\"]\n",
        "[[hooks]]\non = [\"conection-refused\"]\ncommand = [\"x\"]\n",
        "[[hooks]]\non = [\"*\"]\nurl = \"https://u:geheim1@example.invalid/\"\n",
        "[[hooks]]\non = [\"*\"]\nurl = \"http://example.invalid/\"\ncommand = [\"x\"]\n",
        "[metrics]\nlisten = \"0.0.0.0:9464\"\n",
        "[metrics]\nlisten = \"localhost:9464\"\n",
    ];
    let all: Vec<String> = cases.iter().map(|text| Etc::new(text).error()).collect();
    let text = all.join("\n");
    assert!(!text.contains("geheim1"), "{text}");
    insta::assert_snapshot!(text, @r#"
    ETC/config.toml, line 3: there is no setting `flight.rign`; did you mean `ring`? There are: head, ring, ready_within, stalled_after
    ETC/config.toml, line 1: there is no setting `flihgt`; did you mean `flight`? There are: rules, flight, retention, hooks, metrics
    ETC/config.toml, line 2: `flight.ring` is the number 64; write a size with its unit, as "64MiB"
    ETC/config.toml, line 2: `flight.ring`: `64MB` is no size; write it with its unit, one of 512B, 64KiB, 1.5MiB, 2GiB
    ETC/config.toml, line 2: `flight.ready_within`: `30` has no unit; write "30s" for seconds, or one of 200ms, 3m, 1h, 14d
    ETC/config.toml: `flight.ring` is too small; write at least "1MiB"
    ETC/config.toml, line 1: this is no TOML: unclosed table, expected `]`; `observer config --help` shows the grammar
    ETC/config.toml, line 1: `flight` is the number 3; write a table, with settings of its own
    ETC/config.toml: `retention.max_sessions` is too small; write at least 1
    ETC/config.toml: rule "a": it has neither exe nor args, so it would fit every command; write exe = "python*" or args = ["dramatiq"]
    ETC/config.toml: rule "": it has no name; write name = "shop-worker"
    ETC/config.toml, line 5: there is no setting `rules[0].fro`; did you mean `for`? There are: name, exe, args, user, unit, cgroup, for, broker, management, session, keep
    ETC/config.toml, line 4: `rules[0].keep` cannot be "failure"; did you mean `failures`? There are: failures, always
    ETC/config.toml: rule "a b": its name cannot be shown everywhere; write up to 64 letters, digits, `.`, `_` or `-`
    ETC/config.toml: rule "a": user "dev*" is a glob; name one user; without `user` it is everybody
    ETC/config.toml: rule "a": there is no user "nobody-of-that-name"; see getent passwd, or write a user id
    ETC/config.toml: rule "a": session: `shop-*` cannot name a session: it holds other characters; use letters, digits, `.`, `_` and `-`, and begin with a letter, a digit or `_`; write a name, without a glob
    ETC/config.toml: rule "a": exe is a path from nowhere; write a name ("python*") or a whole path ("/srv/*/bin/python*")
    ETC/config.toml: rule "a": broker: cannot use it as a broker's address: its scheme is not amqp or amqps; write a URL, or "worker" for the one that the worker logs in to
    ETC/config.toml: there is a rule "a" already (ETC/config.toml); give it another name, or write `rules = []` in a drop-in before it to drop those there were
    ETC/config.toml, line 1: `hooks[0].on` is missing; see observer config --help
    ETC/config.toml: hook 1: it has neither command nor url; write command = ["/usr/local/bin/alert"] or url = "http://…"
    ETC/config.toml: hook 1: no code fits "conection-refused"; did you mean `connection-refused`? `observer explain --list` names all
    ETC/config.toml: hook 1: url is https, which hooks do not speak; use http:// to a proxy on this machine, or a command such as curl
    ETC/config.toml: hook 1: it has both command and url; make two hooks of it
    ETC/config.toml: `metrics.listen`: 0.0.0.0 can be reached from elsewhere, and nobody is asked who they are; write "unix:/run/observer/metrics.sock", "127.0.0.1:9464", or "" for nowhere
    ETC/config.toml: `metrics.listen`: "localhost:9464" is neither unix:PATH nor an address of digits with a port; write "unix:/run/observer/metrics.sock", "127.0.0.1:9464", or "" for nowhere
    "#);
}

#[test]
fn errors_of_variables_flags_and_drop_ins_name_them() {
    let all = [
        Etc::new("").variable("OBSERVER_DAEMON_FLIGHT__RNIG", "1MiB").error(),
        Etc::new("").variable("OBSERVER_DAEMON_FLIGHT__RING", "1000000").error(),
        Etc::new("").variable("OBSERVER_DAEMON_RULES", "amqp://u:geheim1@host").error(),
        Etc::new("").flag("flight.ring").error(),
        Etc::new("").flag("flight..ring=1MiB").error(),
        Etc::new("").flag("metrics.listen=tcp:1").error(),
        Etc::new("").flag("rules=[{name=\"dramatiq\",exe=\"x\"}]").error(),
        Etc::new("").drop_in("a.toml", "\n\nmetrics.lisen = \"\"\n").error(),
    ];
    let text = all.join("\n");
    assert!(!text.contains("geheim1"), "{text}");
    insta::assert_snapshot!(text, @r#"
    OBSERVER_DAEMON_FLIGHT__RNIG: there is no setting `flight.rnig`; did you mean `ring`? There are: head, ring, ready_within, stalled_after
    OBSERVER_DAEMON_FLIGHT__RING: `flight.ring` is the number 1000000; write a size with its unit, as "64MiB"
    OBSERVER_DAEMON_RULES: `rules` is the text "amqp://u:«redacted»@host"; write a list, such as ["…"]
    --set flight.ring: there is no value; write --set KEY=VALUE, as in --set flight.ring=64MiB
    --set flight..ring: there is no setting `flight..ring`; there are: rules, flight, retention, hooks, metrics
    --set metrics.listen: `metrics.listen`: "tcp:1" is neither unix:PATH nor an address of digits with a port; write "unix:/run/observer/metrics.sock", "127.0.0.1:9464", or "" for nowhere
    --set rules: there is a rule "dramatiq" already (built in); give it another name, or write `rules = []` in a drop-in before it to drop those there were
    ETC/config.d/a.toml, line 3: there is no setting `metrics.lisen`; did you mean `listen`? There are: listen
    "#);
}

#[test]
fn no_more_rules_than_the_kernel_matches() {
    let rule = |index| format!("[[rules]]\nname = \"r{index}\"\nexe = \"x\"\n");
    let many = |count: usize| (0..count).map(rule).collect::<String>();
    assert_eq!(Etc::new(&many(32)).load().settings.rules.len(), 32);
    assert!(Etc::new(&many(33)).error().contains("there are 33 rules, and 32 can be matched"));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let mut etc = Etc::new("");
    etc.sources.file = etc.folder.path().join("other.toml");
    assert!(
        etc.error().starts_with("cannot read the configuration ETC/other.toml: entity not found; "),
        "{}",
        etc.error()
    );
    etc.sources.required = false;
    assert_eq!(etc.load().settings, Settings::default());
}

#[test]
fn what_others_can_write_is_not_followed_as_root() {
    let chmod =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut etc = Etc::new("").drop_in("a.toml", "");
    let own = nix::unistd::geteuid();
    etc.sources.guarded = true;
    if own.is_root() {
        chmod(&etc.path(""), 0o755);
        etc.load();
        for path in [etc.sources.file.clone(), etc.path("a.toml"), etc.path("")] {
            for mode in [0o664, 0o646] {
                chmod(&path, mode | 0o111);
                assert!(etc.error().contains("others than root can write it"), "{}", etc.error());
            }
            chmod(&path, 0o755);
            nix::unistd::chown(&path, Some(65_534.into()), None).unwrap();
            assert!(etc.error().contains("(owner 65534, mode 755)"), "{}", etc.error());
            nix::unistd::chown(&path, Some(own), None).unwrap();
        }
        let folder = etc.folder.path().to_owned();
        chmod(&folder, 0o777);
        assert!(etc.error().contains("others than root can write it (owner 0, mode 777)"), "{}", etc.error());
        chmod(&folder, 0o1777);
        etc.load();
        // A link is as good as what it leads to.
        let target = etc.folder.path().join("target");
        std::fs::write(&target, "").unwrap();
        chmod(&target, 0o666);
        symlink(&target, etc.path("b.toml")).unwrap();
        assert!(etc.error().contains("others than root can write it"), "{}", etc.error());
    } else {
        assert!(
            etc.error().contains(&format!("(owner {own}")),
            "what is not root's is refused: {}",
            etc.error()
        );
    }
    etc.sources.guarded = false;
    etc.load();
}

#[test]
fn what_is_no_file_of_text_is_refused() {
    let etc = Etc::new("");
    nix::unistd::mkfifo(&etc.path("a.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(etc.error().contains("it is no file, or larger than 1 MiB"), "{}", etc.error());
    let etc = Etc::new(&" ".repeat((1 << 20) + 1));
    assert!(etc.error().contains("it is no file, or larger than 1 MiB"), "{}", etc.error());
    let etc = Etc::new("");
    std::fs::write(etc.path("a.toml"), [0xff, 0xfe]).unwrap();
    assert!(etc.error().contains("it must be a text in UTF-8"), "{}", etc.error());
}
