//! The environment, variable by variable. Knows names that mean something to Python, to libc and to terminals; nothing of values.

use std::collections::BTreeMap;

use super::{Difference, Kind, difference, divergence::Found, run::Run};
use crate::event::Exec;

/// Set by shells and terminals for themselves.
const NOISE: [&str; 24] = [
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
];
const NOISE_PREFIXES: [&str; 6] = ["SUDO_", "GNOME_", "VSCODE_", "GPG_", "DBUS_", "SYSTEMD_"];

pub(super) fn differences(working: &Run, failing: &Run, diverged: Option<&Found>, out: &mut Vec<Difference>) {
    let (Some(a), Some(b)) = (&working.program, &failing.program) else { return };
    let (Some(a), Some(b)) = (variables(a), variables(b)) else { return };
    let lost_modules = diverged.is_some_and(|diverged| diverged.found.text.contains("loads "));
    for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
        let (one, two) = (a.get(name), b.get(name));
        if one == two {
            continue;
        }
        let (weight, why) = weigh(name, lost_modules);
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

fn weigh(name: &str, modules_differ: bool) -> (u32, &'static str) {
    match name {
        _ if NOISE.contains(&name) || NOISE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {
            (3, "shells and terminals set it for themselves")
        }
        "PWD" => (5, "follows from the working directory"),
        "PYTHONPATH" | "PYTHONHOME" if modules_differ => {
            (110, "decides where modules come from, and those differ")
        }
        "PYTHONPATH" | "PYTHONHOME" => (88, "decides where modules come from"),
        "PYTHONHASHSEED" => (15, "decides the order of sets"),
        _ if name.starts_with("PYTHON") => (75, "changes how Python runs"),
        "PATH" => (40, "decides which programs are found"),
        "VIRTUAL_ENV" | "VIRTUAL_ENV_PROMPT" => (25, "follows from the environment that is active"),
        "LD_PRELOAD" | "LD_LIBRARY_PATH" => (72, "decides which shared libraries are loaded"),
        "LANG" | "LANGUAGE" | "TZ" => (48, "changes how text or time is read"),
        _ if name.starts_with("LC_") => (48, "changes how text is read"),
        "HOME" => (52, "configuration and user packages are looked for below it"),
        "TMPDIR" | "TEMP" | "TMP" => (30, "temporary files go there"),
        "USER" | "LOGNAME" | "USERNAME" | "SHELL" | "HOSTNAME" => (9, "names who and where"),
        _ if name.starts_with("XDG_") => (20, "configuration may be looked for below it"),
        _ if name.starts_with("TOX_") => (22, "tox sets it"),
        // Names dramatiq reads itself, and the usual names of a broker's address.
        _ if name.to_ascii_lowercase().starts_with("dramatiq") => (92, "dramatiq reads it"),
        _ if ["AMQP", "RABBIT", "BROKER"].iter().any(|word| name.to_ascii_uppercase().contains(word)) => {
            (90, "is named like the broker's address")
        }
        _ => (62, "the program may read it"),
    }
}
