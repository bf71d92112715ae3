//! What is wrong with settings that can be read: what they name does not exist, or cannot be meant. Knows not how they were written.

use std::collections::BTreeMap;

use nix::unistd::User;
use reqwest::Url;

use super::{ConfigError, Origin, layer::nearest};
use crate::{
    daemon::{
        metrics::Listen,
        settings::{Hook, Rule, Settings},
    },
    diagnose::catalogue::Code,
    session::{blank, check_name},
    source::broker::BrokerUrl,
    words::{escape::is_plain, glob},
};

/// As many as the kernel's table holds.
const MOST_RULES: usize = 32;

/// `Err` of what is wrong and what to write.
type Judged = Result<(), (String, String)>;

/// Checks the rules there are in the end.
pub(super) fn rules(rules: &[(Rule, Origin)]) -> Result<(), ConfigError> {
    if let Some((_, origin)) = rules.get(MOST_RULES) {
        let what = format!("there are {} rules, and {MOST_RULES} can be matched in the kernel", rules.len());
        return Err(at(origin, (what, "a glob (`*`, `?`) says several in one".into())));
    }
    let mut names: BTreeMap<&str, &Origin> = BTreeMap::new();
    for (rule, origin) in rules {
        judge(rule).map_err(|(what, next)| at(origin, (format!("rule \"{}\": {what}", rule.name), next)))?;
        // Those that come first are of the later layer, which is the one to change.
        if let Some(first) = names.insert(&rule.name, origin) {
            let what = format!("there is a rule \"{}\" already ({origin})", rule.name);
            let next =
                "give it another name, or write `rules = []` in a drop-in before it to drop those there were";
            return Err(at(first, (what, next.into())));
        }
    }
    Ok(())
}

fn judge(rule: &Rule) -> Judged {
    if rule.name.is_empty() {
        return wrong("it has no name", "write name = \"shop-worker\"");
    }
    if check_name(&rule.name).is_err() {
        return wrong(
            "its name cannot be shown everywhere",
            "write up to 64 letters, digits, `.`, `_` or `-`",
        );
    }
    if rule.exe.is_none() && rule.args.is_empty() {
        return wrong(
            "it has neither exe nor args, so it would fit every command",
            "write exe = \"python*\" or args = [\"dramatiq\"]",
        );
    }
    let globs = [("exe", &rule.exe), ("unit", &rule.unit), ("cgroup", &rule.cgroup)];
    let texts = globs.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)));
    for (key, text) in texts.chain(rule.args.iter().map(|word| ("args", word))) {
        // An empty word is one that can be given, and nothing else can be empty.
        if (text.is_empty() && key != "args") || !text.chars().all(is_plain) {
            return wrong(
                &format!("{key} is empty or holds a control character"),
                "leave it out, or write a glob",
            );
        }
    }
    if rule.exe.as_ref().is_some_and(|exe| exe.contains('/') && !exe.starts_with(['/', '*'])) {
        return wrong(
            "exe is a path from nowhere",
            "write a name (\"python*\") or a whole path (\"/srv/*/bin/python*\")",
        );
    }
    if rule.cgroup.as_ref().is_some_and(|cgroup| !cgroup.starts_with(['/', '*'])) {
        return wrong("cgroup is no path", "write it from the root of the hierarchy: \"/system.slice/*\"");
    }
    if let Some(user) = &rule.user {
        user_there(user)?;
    }
    if rule.limit.is_some_and(|limit| limit.0 == 0) {
        return wrong("`for` is nothing", "write for = \"30s\", or leave it out to record until it ends");
    }
    if let Some(broker) = rule.broker.as_deref().filter(|broker| *broker != "worker")
        && let Err(error) = BrokerUrl::parse(broker)
    {
        return wrong(
            &format!("broker: {error}"),
            "write a URL, or \"worker\" for the one that the worker logs in to",
        );
    }
    if let Some(url) = &rule.management {
        let fits = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !fits {
            return wrong("management is no URL", "write management = \"http://127.0.0.1:15672\"");
        }
    }
    match rule.session.as_deref().map(check_name) {
        Some(Err(error)) => wrong(&format!("session: {error}"), "write a name, without a glob"),
        _ => Ok(()),
    }
}

fn user_there(user: &str) -> Judged {
    if user.contains(['*', '?']) {
        return wrong(&format!("user \"{user}\" is a glob"), "name one user; without `user` it is everybody");
    }
    match (user.parse::<u32>(), User::from_name(user)) {
        (Ok(_), _) | (_, Ok(Some(_))) => Ok(()),
        (_, Ok(None)) => {
            wrong(&format!("there is no user \"{user}\""), "see getent passwd, or write a user id")
        }
        (_, Err(error)) => wrong(&format!("cannot look up user \"{user}\": {error}"), "write a user id"),
    }
}

/// Checks the hooks.
pub(super) fn hooks(hooks: &[(Hook, Origin)]) -> Result<(), ConfigError> {
    for (index, (hook, origin)) in hooks.iter().enumerate() {
        hook_there(hook).map_err(|(what, next)| at(origin, (format!("hook {}: {what}", index + 1), next)))?;
    }
    Ok(())
}

fn hook_there(hook: &Hook) -> Judged {
    if hook.on.is_empty() {
        return wrong(
            "`on` names no code",
            "write on = [\"*\"] for all; `observer explain --list` names them",
        );
    }
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    if let Some(none) = hook.on.iter().find(|on| !codes.iter().any(|code| glob::matches(on, code))) {
        let near = nearest(none, &codes);
        let near = near.split_once(" There are").map_or("", |(near, _)| near).trim();
        return wrong(
            &format!("no code fits \"{none}\""),
            format!("{near} `observer explain --list` names all").trim(),
        );
    }
    match (hook.command.first(), &hook.url) {
        (None, None) => wrong(
            "it has neither command nor url",
            "write command = [\"/usr/local/bin/alert\"] or url = \"http://…\"",
        ),
        (Some(_), Some(_)) => wrong("it has both command and url", "make two hooks of it"),
        (Some(program), None) if program.is_empty() => {
            wrong("command is empty", "write command = [\"/usr/local/bin/alert\"]")
        }
        (Some(_), None) if hook.command.iter().any(|word| word.contains('\0')) => {
            wrong("a word of command holds a NUL", "leave it out")
        }
        (Some(_), None) => Ok(()),
        (None, Some(url)) => match Url::parse(url) {
            Ok(parsed) if parsed.scheme() == "http" => Ok(()),
            Ok(parsed) if parsed.scheme() == "https" => wrong(
                "url is https, which hooks do not speak",
                "use http:// to a proxy on this machine, or a command such as curl",
            ),
            Ok(_) => {
                wrong(&format!("url {} is not http", blank(url)), "write url = \"http://127.0.0.1:9093/…\"")
            }
            Err(error) => wrong(&format!("url is none: {error}"), "write url = \"http://127.0.0.1:9093/…\""),
        },
    }
}

/// Checks all else. `origin` knows where a key was said.
pub(super) fn scalars(settings: &Settings, origin: &dyn Fn(&str) -> Origin) -> Result<(), ConfigError> {
    let Settings { flight, retention, metrics, .. } = settings;
    let mib = 1 << 20;
    let least = [
        ("flight.head", flight.head.0, mib, "at least \"1MiB\""),
        ("flight.ring", flight.ring.0, mib, "at least \"1MiB\""),
        ("flight.ready_within", flight.ready_within.0, 1, "a time, such as \"30s\""),
        ("flight.stalled_after", flight.stalled_after.0, 1, "a time, such as \"5m\""),
        ("retention.max_age", retention.max_age.0, 1, "a time, such as \"14d\""),
        ("retention.max_sessions", retention.max_sessions, 1, "at least 1"),
        ("retention.max_bytes", retention.max_bytes.0, mib, "at least \"1MiB\""),
    ];
    for (key, value, least, next) in least {
        if value < least {
            return Err(at(&origin(key), (format!("`{key}` is too small"), format!("write {next}"))));
        }
    }
    let listen = Listen::parse(&metrics.listen).map_err(|what| {
        let next = "write \"unix:/run/observer/metrics.sock\", \"127.0.0.1:9464\", or \"\" for nowhere";
        at(&origin("metrics.listen"), (format!("`metrics.listen`: {what}"), next.into()))
    });
    listen.map(drop)
}

fn wrong(what: &str, next: &str) -> Judged {
    Err((what.to_owned(), next.to_owned()))
}

fn at(origin: &Origin, (what, next): (String, String)) -> ConfigError {
    ConfigError::Wrong { place: origin.to_string(), what, next }
}
