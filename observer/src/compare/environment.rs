//! The environment, variable by variable. Knows names that mean something to Python, to libc and to terminals; nothing of values.

use std::collections::BTreeMap;

use super::{Difference, Kind, difference, divergence::Found, evidence::Evidence, run::Run};
use crate::event::Exec;

/// Set by shells and terminals for themselves.
const NOISE: [&str; 35] = [
    "SHLVL",
    "COLUMNS",
    "LINES",
    "_",
    "OLDPWD",
    "TERM",
    "COLORTERM",
    "WINDOWID",
    "PS1",
    "LS_COLORS",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "XDG_SESSION_ID",
    "HISTFILE",
    "HISTSIZE",
    "LESSOPEN",
    "LESSCLOSE",
    "TMUX",
    "TMUX_PANE",
    "MAIL",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS",
    "HISTCONTROL",
    "SESSION_MANAGER",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MANAGERPID",
    "DISPLAY",
    "XAUTHORITY",
];
const NOISE_PREFIXES: [&str; 6] = ["SUDO_", "GNOME_", "VSCODE_", "GPG_", "DBUS_", "SYSTEMD_"];

pub(super) fn differences(
    working: &Run,
    failing: &Run,
    diverged: Option<&Found>,
    evidence: &Evidence<'_>,
    out: &mut Vec<Difference>,
) {
    let (Some(a), Some(b)) = (&working.program, &failing.program) else { return };
    let (Some(a), Some(b)) = (variables(a), variables(b)) else { return };
    let lost_modules = diverged.is_some_and(|diverged| diverged.found.text.contains("loads "));
    for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
        let (one, two) = (a.get(name), b.get(name));
        if one == two {
            continue;
        }
        let (weight, why) = weigh(name, one.copied(), two.copied(), lost_modules, evidence);
        out.push(difference(
            Kind::Env,
            (*name).to_owned(),
            (one.map(|value| (*value).to_owned()), two.map(|value| (*value).to_owned())),
            weight,
            why,
        ));
    }
}

fn variables(exec: &Exec) -> Option<BTreeMap<&str, &str>> {
    Some(exec.env.get()?.iter().filter_map(|pair| pair.split_once('=')).collect())
}

/// The stronger of what the variable's name says, and of what its values did.
fn weigh(
    name: &str,
    working: Option<&str>,
    failing: Option<&str>,
    modules_differ: bool,
    evidence: &Evidence<'_>,
) -> (u32, String) {
    let noise = NOISE.contains(&name)
        || name.ends_with("_PID")
        || NOISE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if noise {
        return (3, "shells and terminals set it for themselves".to_owned());
    }
    let follows = match name {
        "PWD" => Some((5, "follows from the working directory")),
        "VIRTUAL_ENV" | "VIRTUAL_ENV_PROMPT" => Some((25, "follows from the environment that is active")),
        _ => None,
    };
    if let Some((weight, why)) = follows {
        return (weight, why.to_owned());
    }
    let (weight, why) = by_name(name, modules_differ, evidence);
    match evidence.of_variable(name, working, failing) {
        Some((stronger, sign)) if stronger > weight => (stronger, sign),
        _ => (weight, why.to_owned()),
    }
}

fn by_name(name: &str, modules_differ: bool, evidence: &Evidence<'_>) -> (u32, &'static str) {
    const UNICODE: [&str; 2] = ["UnicodeDecodeError", "UnicodeEncodeError"];
    let text = name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_");
    let encoding = ["PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE"].contains(&name);
    let named_like_broker =
        ["AMQP", "RABBIT", "BROKER"].iter().any(|word| name.to_ascii_uppercase().contains(word));
    match name {
        _ if (text || encoding) && evidence.raised(&UNICODE).is_some() => {
            (120, "decides the encoding of texts, and the run that fails could not read one")
        }
        "PYTHONWARNINGS" | "PYTHONDEVMODE" if evidence.raised(&["Warning"]).is_some() => {
            (120, "decides what becomes of warnings, and one was raised in the run that fails")
        }
        "PYTHONPATH" | "PYTHONHOME" if modules_differ => {
            (110, "decides where modules come from, and those differ")
        }
        "PYTHONPATH" | "PYTHONHOME" => (88, "decides where modules come from"),
        "PYTHONHASHSEED" => (15, "decides the order of sets"),
        _ if name.starts_with("PYTHON") => (75, "changes how Python runs"),
        "PATH" => (40, "decides which programs are found"),
        "LD_PRELOAD" | "LD_LIBRARY_PATH" => (72, "decides which shared libraries are loaded"),
        _ if text => (48, "changes how text is read"),
        "TZ" => (48, "changes how time is read"),
        "HOME" => (52, "configuration and user packages are looked for below it"),
        "TMPDIR" | "TEMP" | "TMP" => (12, "temporary files go there"),
        "USER" | "LOGNAME" | "USERNAME" | "SHELL" | "HOSTNAME" => (9, "names who and where"),
        _ if name.starts_with("XDG_") => (20, "configuration may be looked for below it"),
        _ if name.starts_with("TOX_") => (22, "tox sets it"),
        _ if name.to_ascii_lowercase().starts_with("dramatiq") => (92, "dramatiq reads it"),
        // Where it is known what the sources name, a name that they do not name is a weaker sign.
        _ if named_like_broker && evidence.knows_sources() => (44, "is named like the broker's address"),
        _ if named_like_broker => (90, "is named like the broker's address"),
        _ if evidence.knows_sources() => (30, "no source that was read was seen to name it"),
        _ => (62, "the program may read it"),
    }
}
