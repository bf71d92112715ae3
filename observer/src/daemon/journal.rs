//! Writes to the systemd journal: what the service itself has to say, and one entry with fields of its own for every report. Knows how an
//! entry is sent; what a report says is decided elsewhere.

use std::{
    io::{self, IsTerminal as _},
    os::unix::{
        fs::MetadataExt as _,
        net::{SocketAddr, UnixDatagram},
    },
    path::Path,
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::report::{Occasion, Report};
use crate::words::escape::escape;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// More of a value is of no use in a journal, and an entry has to fit in a datagram.
const MOST_BYTES: usize = 4096;

/// Says how serious an entry is (`syslog(3)`).
#[derive(Clone, Copy)]
enum Priority {
    Error = 3,
    Warning = 4,
    Notice = 5,
}

/// `MESSAGE_ID` of an entry: made once with `systemd-id128 new`, and for ever. `journalctl MESSAGE_ID=…` finds them all.
pub const fn message_id(occasion: Occasion) -> &'static str {
    match occasion {
        Occasion::Ended => "e041c3e494ca45aabdd6b1c01bd21b3b",
        Occasion::NotReady => "7f3536510e454a66be3af8d6374a7037",
        Occasion::Stalled => "15bc0679a5cb49edb5126e294753ba70",
    }
}

/// Where reports are written.
#[derive(Debug)]
pub struct Journal(Option<(UnixDatagram, SocketAddr)>);

/// Sets up what the service says of itself: to the journal when systemd has connected standard error to it, else to standard error.
/// `filter` is one of [`EnvFilter`], such as `observer=info`. The answer takes reports to the same place.
///
/// # Errors
/// When it has been set up before. That the journal cannot be reached is said on standard error, and that is used.
pub fn init(filter: &str) -> io::Result<Journal> {
    let filter = EnvFilter::new(filter);
    let connected = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stderr_is(&stream));
    let reached =
        connected.then(|| Ok::<_, io::Error>((tracing_journald::layer()?, Journal::at(Path::new(SOCKET))?)));
    let why_not = match reached {
        Some(Ok((layer, journal))) => {
            let layer = layer.with_syslog_identifier("observer".into());
            tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(io::Error::other)?;
            return Ok(journal);
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(io::Error::other)?;
    if let Some(error) = why_not {
        tracing::warn!(
            "cannot write to the journal at {SOCKET}: {error}; going on with standard error, without fields"
        );
    }
    Ok(Journal(None))
}

/// `JOURNAL_STREAM` is handed on to everything that a service starts; it holds for a process whose standard error is that very socket.
fn stderr_is(stream: &str) -> bool {
    let own = std::fs::metadata("/proc/self/fd/2");
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

impl Journal {
    /// A journal that listens here.
    ///
    /// # Errors
    /// When nobody does.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that does not read must not hold the service up. It is not `connect`ed: journald may be started anew.
        socket.set_nonblocking(true)?;
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Self(Some((socket, SocketAddr::from_pathname(path)?))))
    }

    /// Writes one entry. What cannot be written is said in the service's own log.
    pub fn report(&self, report: &Report) {
        let message = line(report);
        let Some((socket, address)) = &self.0 else {
            match priority(report) {
                Priority::Error => tracing::error!("{message}"),
                Priority::Warning => tracing::warn!("{message}"),
                Priority::Notice => tracing::info!("{message}"),
            }
            return;
        };
        if let Err(error) = socket.send_to_addr(&entry(report, &message), address) {
            tracing::error!("cannot write a report to the journal at {SOCKET}: {error}; it said: {message}");
        }
    }
}

fn priority(report: &Report) -> Priority {
    match report.severity.as_str() {
        "failure" => Priority::Error,
        "warning" => Priority::Warning,
        _ => Priority::Notice,
    }
}

/// The report in one line, without characters that a terminal obeys.
fn line(report: &Report) -> String {
    let Report { code, cause, title, name, pid, unit, .. } = report;
    let cause = cause.as_ref().map_or_else(String::new, |cause| format!(" ({cause})"));
    let unit = unit.as_ref().map_or_else(String::new, |unit| format!(" of {unit}"));
    let what = match report.occasion {
        Occasion::Ended => "ended",
        Occasion::NotReady => "does not consume",
        Occasion::Stalled => "settles nothing",
    };
    escape(&format!("worker {pid}{unit} {what}: {code}{cause}: {title}; observer explain {name}"))
}

/// The entry in the journal's native protocol: `systemd.journal-fields(7)` says what the names without `OBSERVER_` mean.
///
/// `journalctl -u UNIT` also shows what root says of a unit by `OBJECT_SYSTEMD_UNIT`. journald adds that by itself to an `OBJECT_PID` that
/// is alive; a worker that is reported is often not, so it is said here.
fn entry(report: &Report, message: &str) -> Vec<u8> {
    let (pid, uid) = (report.pid.to_string(), report.uid.to_string());
    let level = (priority(report) as u8).to_string();
    let unit = report.unit.as_deref();
    let mut bytes = Vec::new();
    let fields = [
        ("MESSAGE", Some(message)),
        ("MESSAGE_ID", Some(message_id(report.occasion))),
        ("PRIORITY", Some(&level)),
        ("SYSLOG_IDENTIFIER", Some("observer")),
        ("OBJECT_PID", Some(&pid)),
        ("OBJECT_SYSTEMD_UNIT", unit),
        ("OBSERVER_CODE", Some(&report.code)),
        ("OBSERVER_CAUSE", report.cause.as_deref()),
        ("OBSERVER_SEVERITY", Some(&report.severity)),
        ("OBSERVER_SUMMARY", Some(&report.summary)),
        ("OBSERVER_REMEDY", report.remedy.as_deref()),
        ("OBSERVER_PID", Some(&pid)),
        ("OBSERVER_UID", Some(&uid)),
        ("OBSERVER_UNIT", unit),
        ("OBSERVER_RULE", report.rule.as_deref()),
        ("OBSERVER_SESSION", Some(&report.session)),
        ("OBSERVER_NAME", Some(&report.name)),
        ("OBSERVER_PATH", Some(&report.path)),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        // Escaped, a value has no line end in it, which would begin another field.
        let value = escape(value);
        let end = value.floor_char_boundary(MOST_BYTES);
        bytes.extend_from_slice(format!("{name}={}\n", &value[..end]).as_bytes());
    }
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;

    pub(in crate::daemon) fn report() -> Report {
        Report {
            occasion: Occasion::Ended,
            code: "connection-refused".into(),
            cause: Some("no-listener".into()),
            severity: "failure".into(),
            title: "nobody listens at 127.0.0.1:5670".into(),
            summary: "It tried\nPRIORITY=0\u{1b}[31m".into(),
            remedy: Some("start the broker".into()),
            session: "20260101-000000-0001".into(),
            name: "shop".into(),
            path: "/var/lib/observer/users/1000/20260101-000000-0001.sqlite".into(),
            pid: 4711,
            uid: 1000,
            unit: Some("worker.service".into()),
            rule: Some("python-m-dramatiq".into()),
            command: ["python", "-m", "dramatiq", "shop"].map(String::from).to_vec(),
        }
    }

    fn written(report: &Report) -> BTreeMap<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Journal::at(&path).unwrap().report(report);
        let mut buffer = vec![0; 1 << 18];
        let length = journald.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        let fields: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
        let by_name: BTreeMap<_, _> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(fields.len(), by_name.len(), "each once: {text}");
        by_name
    }

    #[test]
    fn an_entry_has_the_fields_that_relate_it_to_the_worker() {
        let fields = written(&report());
        for (name, value) in [
            (
                "MESSAGE",
                "worker 4711 of worker.service ended: connection-refused (no-listener): nobody listens at 127.0.0.1:5670; observer explain shop",
            ),
            ("MESSAGE_ID", message_id(Occasion::Ended)),
            ("PRIORITY", "3"),
            ("SYSLOG_IDENTIFIER", "observer"),
            ("OBJECT_PID", "4711"),
            ("OBJECT_SYSTEMD_UNIT", "worker.service"),
            ("OBSERVER_CODE", "connection-refused"),
            ("OBSERVER_CAUSE", "no-listener"),
            ("OBSERVER_PID", "4711"),
            ("OBSERVER_UID", "1000"),
            ("OBSERVER_UNIT", "worker.service"),
            ("OBSERVER_SESSION", "20260101-000000-0001"),
            ("OBSERVER_NAME", "shop"),
            ("OBSERVER_PATH", "/var/lib/observer/users/1000/20260101-000000-0001.sqlite"),
            ("OBSERVER_SUMMARY", "It tried\\nPRIORITY=0\\x1b[31m"),
        ] {
            assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_long_is_cut() {
        let mut report = report();
        report.unit = None;
        report.cause = None;
        report.severity = "warning".into();
        report.occasion = Occasion::Stalled;
        report.summary = "ü".repeat(500_000);
        let fields = written(&report);
        for name in ["OBSERVER_UNIT", "OBJECT_SYSTEMD_UNIT", "OBSERVER_CAUSE"] {
            assert!(!fields.contains_key(name), "{name}");
        }
        assert_eq!(fields["PRIORITY"], "4");
        assert_eq!(fields["OBSERVER_SUMMARY"].len(), MOST_BYTES);
        assert!(fields["MESSAGE"].starts_with("worker 4711 settles nothing: "));
    }

    #[test]
    fn message_ids_are_ids_and_differ() {
        let ids = [Occasion::Ended, Occasion::NotReady, Occasion::Stalled].map(message_id);
        assert!(
            ids.iter()
                .all(|id| id.len() == 32
                    && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        );
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    }

    #[test]
    fn the_journal_is_only_ours_when_our_own_standard_error_is_connected_to_it() {
        let own = std::fs::metadata("/proc/self/fd/2").unwrap();
        assert!(stderr_is(&format!("{}:{}", own.dev(), own.ino())));
        assert!(!stderr_is("8:12345"));
        assert!(Journal::at(Path::new("/var/empty/invalid/socket")).is_err());
    }
}
