//! What differs between two runs of the same thing and means nothing: two shells, two logins, two builds.

use std::collections::BTreeMap;

/// Name, value in the run that works, value in the one that fails; `-` where it is not there. `{folder}` is the pair's own.
const VARIABLES: [(&str, &str, &str); 34] = [
    // Terminals and shells.
    ("SHLVL", "1", "3"),
    ("COLUMNS", "80", "212"),
    ("LINES", "24", "58"),
    ("TERM", "dumb", "xterm-256color"),
    ("COLORTERM", "-", "truecolor"),
    ("WINDOWID", "-", "62914566"),
    ("LS_COLORS", "-", "rs=0:di=01;34:ln=01;36"),
    ("OLDPWD", "/root", "/srv"),
    ("EDITOR", "vi", "nano"),
    ("PAGER", "-", "less"),
    ("HISTCONTROL", "-", "ignoreboth"),
    // Logins and services.
    ("XDG_SESSION_ID", "14", "27"),
    ("XDG_RUNTIME_DIR", "/run/user/0", "/run/user/1000"),
    ("SSH_CLIENT", "10.0.4.9 51514 22", "-"),
    ("SSH_AGENT_PID", "2211", "90417"),
    ("GPG_AGENT_INFO", "/tmp/gpg-Zt1/S.agent:2213:1", "/tmp/gpg-0aB/S.agent:90420:1"),
    ("JOURNAL_STREAM", "-", "8:4411920"),
    ("INVOCATION_ID", "3c1f0b52a6be4f0f8e6b", "9a77d20c41f84e7c9b10"),
    ("MANAGERPID", "1", "612"),
    ("TMPDIR", "{folder}/tmp-k3", "{folder}/tmp-w8"),
    // Of the project, and read by nobody here.
    ("RELEASE", "2024.11.3", "2024.11.4"),
    ("GIT_COMMIT", "5f0c9e1", "b71d22a"),
    ("BUILD_NUMBER", "1182", "1190"),
    ("BUILD_URL", "http://ci.invalid/job/1182", "http://ci.invalid/job/1190"),
    ("DEPLOYED_BY", "ana", "ci"),
    ("REQUEST_ID", "a-1001", "a-1738"),
    ("FEATURE_DARK_MODE", "off", "on"),
    ("CACHE_URL", "redis://cache-1.invalid:6379/0", "redis://cache-2.invalid:6379/0"),
    ("BROKER_ALERT_EMAIL", "ops@shop.invalid", "team@shop.invalid"),
    ("WEB_CONCURRENCY", "2", "4"),
    ("REPORT_TITLE", "weekly", "daily"),
    ("STATSD_PREFIX", "blue", "green"),
    ("NODE_NAME", "w-04", "w-11"),
    ("POD_UID", "0b61", "77fe"),
];

/// Adds it to one side; what a pair names itself stays.
pub(super) fn add(variables: &mut BTreeMap<String, String>, working: bool) {
    for (name, works, fails) in VARIABLES {
        let value = if working { works } else { fails };
        if value != "-" {
            variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}
