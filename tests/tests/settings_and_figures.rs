//! What the service's parts say to programs of others: `observer config` to a shell, figures to Prometheus' own parsers. No service runs.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use observer::daemon::metrics::serve;
use observer::daemon::status::{Recorded, Status};
use observer::source::ebpf::ProgramFacts;
use serde_json::Value;
use tests::observe::said;
use tests::target;
use tests::venv::{self, Venv};

/// Reads the figures with both parsers, and prints every sample.
const SCRAPE: &str = r#"
import http.client, json, socket, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)

where = sys.argv[1]
connection = Unix(where) if where.startswith("/") else http.client.HTTPConnection(where)
connection.request("GET", "/metrics")
answer = connection.getresponse()
assert answer.status == 200, answer.status
assert answer.getheader("content-type").startswith("application/openmetrics-text; version=1.0.0"), answer.getheaders()
text = answer.read().decode()
samples = lambda parse: sorted(
    ([sample.name, sample.labels, float(sample.value)] for family in parse(text) for sample in family.samples), key=json.dumps)
assert json.dumps(samples(openmetrics)) == json.dumps(samples(prometheus))
types = {family.name: [family.type, family.unit] for family in openmetrics(text)}
print(json.dumps({"samples": samples(openmetrics), "types": types}))
"#;

fn status() -> Status {
    let rule = Some("dramatiq".to_owned());
    Status {
        version: "0.1.0".into(),
        uptime_ns: 1_500_000_000,
        rules: vec!["dramatiq".into()],
        recordings: vec![
            Recorded { pid: 11, rule: rule.clone(), consumes: true, ..Recorded::default() },
            Recorded { pid: 12, rule, ..Recorded::default() },
        ],
        events: 12,
        lost: [("a \"b\" \\ c\nd".to_owned(), 3)].into(),
        programs: vec![ProgramFacts {
            name: "sys_enter".into(),
            verified_instructions: 9,
            run_count: 4,
            run_time_ns: 1_000,
        }],
        ..Status::default()
    }
}

fn scraped(place: &str) -> Value {
    let venv = Venv::ensure_with(&venv::interpreter(), "prometheus-client==0.22.1\n").unwrap();
    let output =
        Command::new(venv.python()).args(["-c", SCRAPE, place]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(figures: &Value) {
    let sample = |name: &str, labels: Value| {
        let samples = figures["samples"].as_array().unwrap();
        samples.iter().find(|sample| sample[0] == name && sample[1] == labels).map(|sample| sample[2].clone())
    };
    let none = serde_json::json!({});
    assert_eq!(sample("observer_uptime_seconds", none.clone()), Some(1.5.into()));
    assert_eq!(sample("observer_events_total", none.clone()), Some(12.0.into()));
    assert_eq!(sample("observer_recordings", serde_json::json!({"rule": "dramatiq"})), Some(2.0.into()));
    assert_eq!(
        sample("observer_recordings_consuming", serde_json::json!({"rule": "dramatiq"})),
        Some(1.0.into())
    );
    let place = serde_json::json!({"where": "a \"b\" \\ c\nd"});
    assert_eq!(sample("observer_events_lost_total", place), Some(3.0.into()), "as it was, whatever is in it");
    let program = serde_json::json!({"program": "sys_enter"});
    assert_eq!(sample("observer_program_run_seconds_total", program), Some(1e-6.into()));
    assert_eq!(figures["types"]["observer_cpu_seconds"], serde_json::json!(["counter", "seconds"]));
    assert_eq!(figures["types"]["observer_free_bytes"], serde_json::json!(["gauge", "bytes"]));
}

#[test]
fn prometheus_reads_the_figures_from_a_unix_socket_and_from_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    let serving = serve(&format!("unix:{}", path.display()), status).unwrap();
    check(&scraped(&path.display().to_string()));
    drop(serving);
    let serving = serve("127.0.0.1:0", status).unwrap();
    check(&scraped(&serving.address().unwrap().to_string()));
}

fn config(file: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(target::observer().unwrap());
    command.arg("config").arg("--config").arg(file).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_config_prints_is_a_configuration_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(
        &file,
        "[flight]\nring = \"64MiB\"\n\n[[hooks]]\non = [\"*\"]\ncommand = [\"/bin/true\"]\n",
    )
    .unwrap();
    let first = config(&file, &["--set", "retention.max_age=3d"]);
    assert!(first.status.success(), "{}", said(&first));
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains(&format!("ring = \"64MiB\"  # {}\n", file.display())), "{text}");
    assert!(text.contains("max_age = \"3d\"  # --set retention.max_age\n"), "{text}");
    assert!(text.contains("head = \"16MiB\"  # built in\n"), "{text}");

    std::fs::write(&file, &text).unwrap();
    let settings = |text: &str| {
        let settings = text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned());
        settings.collect::<Vec<_>>()
    };
    let again = config(&file, &[]);
    assert_eq!(settings(&String::from_utf8(again.stdout).unwrap()), settings(&text));
    let json = config(&file, &["--format", "json"]);
    let document: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["schema"], "observer.config/1");
    assert!(
        document["settings"]
            .as_array()
            .unwrap()
            .iter()
            .all(|setting| setting["origin"] == file.display().to_string())
    );
}

#[test]
fn check_says_nothing_or_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[flight]\n").unwrap();
    let well = config(&file, &["--check"]);
    assert_eq!((well.status.code(), said(&well).trim()), (Some(0), ""));
    assert!(well.stdout.is_empty());

    std::fs::write(&file, "[flight]\nrign = \"64MiB\"\n").unwrap();
    let wrong = config(&file, &["--check"]);
    assert_eq!(wrong.status.code(), Some(1));
    let expected = format!(
        "observer: {}, line 2: there is no setting `flight.rign`; did you mean `ring`?",
        file.display()
    );
    assert!(said(&wrong).starts_with(&expected), "{}", said(&wrong));
}
