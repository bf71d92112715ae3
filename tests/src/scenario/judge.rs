//! Whether `explain` said what the scenario expects. It knows the JSON contract, and nothing of how a session comes about.

use std::collections::BTreeMap;

use serde_json::Value;

use super::file::Scenario;
use super::place::filled;

/// Codes of sessions that end well: a failure found in one is a false alarm.
const ENDS_WELL: [&str; 3] = ["healthy", "idle", "stopped"];

/// What came of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The expected code and cause, and all that was to be said.
    Right,
    /// Something else.
    Wrong,
    /// No conclusion where there was one to be drawn.
    Undetermined,
    /// A failure in a session of a worker that is fine.
    FalseAlarm,
    /// It could not be run to its end: the scenario is at fault, or the lab.
    Broken,
    /// What is expected is not concluded yet, and the scenario's file says so.
    NotYet,
    /// This machine cannot produce it.
    NotHere,
}

impl Outcome {
    /// Whether there is nothing to be looked at.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Right | Self::NotHere)
    }
}

/// A verdict and what is thought of it.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What came of it.
    pub outcome: Outcome,
    /// The code, with `: cause` where there is one.
    pub concluded: String,
    /// Of the verdict.
    pub confidence: Option<f64>,
    /// What is not as expected.
    pub objections: Vec<String>,
    /// The verdict, for people who look into it.
    pub verdict: Value,
}

/// A code and its cause in one word.
pub(super) fn word(code: &str, cause: Option<&str>) -> String {
    cause.map_or_else(|| code.to_owned(), |cause| format!("{code}: {cause}"))
}

/// Holds what `explain --format json` printed against what is expected. `values` are what stands for `{name}` in the texts.
pub fn judge(scenario: &Scenario, values: &BTreeMap<String, String>, explained: &Value) -> Judgement {
    let verdict = &explained["verdict"];
    let code = verdict["code"].as_str().unwrap_or("no verdict");
    let cause = verdict["cause"].as_str();
    let expect = &scenario.expect;
    let findings: Vec<&Value> = explained["findings"].as_array().into_iter().flatten().collect();
    let mut objections = Vec::new();
    if code != expect.code || cause != expect.cause.as_deref() {
        objections.push(format!("expected {}", word(&expect.code, expect.cause.as_deref())));
    }
    for also in &scenario.also {
        if !findings.iter().any(|finding| finding["code"] == **also) {
            objections.push(format!("{also} is not among the findings"));
        }
    }
    let said = said(verdict, &findings);
    for text in scenario.says.iter().map(|text| filled(values, text)) {
        if !said.contains(&text) {
            objections.push(format!("does not say {text:?}"));
        }
    }
    let ends_well = ENDS_WELL.contains(&expect.code.as_str());
    let failures: Vec<&str> = std::iter::once(verdict)
        .chain(findings.iter().copied())
        .filter(|finding| finding["severity"] == "failure")
        .filter_map(|finding| finding["code"].as_str())
        .collect();
    if ends_well && !failures.is_empty() {
        objections.push(format!("false alarm: {}", failures.join(", ")));
    }
    let outcome = if ends_well && !failures.is_empty() {
        Outcome::FalseAlarm
    } else if objections.is_empty() {
        Outcome::Right
    } else if code == "undetermined" && expect.code != code {
        Outcome::Undetermined
    } else {
        Outcome::Wrong
    };
    Judgement {
        outcome,
        concluded: word(code, cause),
        confidence: verdict["confidence"].as_f64(),
        objections,
        verdict: verdict.clone(),
    }
}

/// All that the verdict says to a person, with the evidence of the findings it rests on.
fn said(verdict: &Value, findings: &[&Value]) -> String {
    let of = |value: &Value| {
        let mut texts: Vec<String> = ["title", "summary", "remedy"]
            .iter()
            .filter_map(|field| value[*field].as_str().map(String::from))
            .collect();
        let evidence = value["evidence"].as_array().into_iter().flatten();
        texts.extend(evidence.filter_map(|piece| piece["text"].as_str().map(String::from)));
        texts.join("\n")
    };
    let same = |finding: &&&Value| finding["code"] == verdict["code"] && finding["cause"] == verdict["cause"];
    std::iter::once(of(verdict))
        .chain(findings.iter().filter(same).map(|finding| of(finding)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::file;
    use super::*;

    fn judged(expect: &str, explained: &Value) -> Judgement {
        let text = format!("what = \"a worker that is looked at\"\ncommand = \"x\"\n{expect}");
        let scenario = file::parse("a/b", &text).unwrap().remove(0);
        judge(&scenario, &[("closed_port".to_owned(), "4711".to_owned())].into(), explained)
    }

    fn refused() -> Value {
        json!({
            "verdict": { "code": "connection-refused", "cause": null, "severity": "failure", "confidence": 0.9, "title": "refused" },
            "findings": [
                { "code": "connection-refused", "cause": null, "severity": "failure", "evidence": [{ "text": "127.0.0.1:4711" }] },
                { "code": "output-lost", "cause": null, "severity": "warning" },
            ],
        })
    }

    #[test]
    fn code_cause_and_what_is_said_must_all_be_right() {
        let right = "expect.code = \"connection-refused\"\nsays = [\"127.0.0.1:{closed_port}\"]\nalso = [\"output-lost\"]";
        assert_eq!(judged(right, &refused()).outcome, Outcome::Right);
        for wrong in [
            "expect = { code = \"connection-refused\", cause = \"x\" }",
            "expect.code = \"idle-not\"",
            "expect.code = \"connection-refused\"\nsays = [\"127.0.0.1:{closed_port}1\"]",
            "expect.code = \"connection-refused\"\nalso = [\"actors-blocked\"]",
        ] {
            let judged = judged(wrong, &refused());
            assert_eq!((judged.outcome, judged.objections.len()), (Outcome::Wrong, 1), "{wrong}");
        }
    }

    #[test]
    fn a_failure_in_a_healthy_session_is_a_false_alarm_even_beside_the_right_verdict() {
        let mut explained = refused();
        assert_eq!(judged("expect.code = \"idle\"", &explained).outcome, Outcome::FalseAlarm);
        explained["verdict"] = json!({ "code": "idle", "cause": null, "severity": "ok" });
        assert_eq!(judged("expect.code = \"idle\"", &explained).outcome, Outcome::FalseAlarm);
        explained["findings"] = json!([]);
        assert_eq!(judged("expect.code = \"idle\"", &explained).outcome, Outcome::Right);
        assert_eq!(judged("expect.code = \"healthy\"", &explained).outcome, Outcome::Wrong);
    }

    #[test]
    fn no_conclusion_is_not_a_wrong_one() {
        let explained = json!({ "verdict": { "code": "undetermined", "cause": null }, "findings": [] });
        assert_eq!(judged("expect.code = \"dns-failure\"", &explained).outcome, Outcome::Undetermined);
        assert_eq!(judged("expect.code = \"undetermined\"", &explained).outcome, Outcome::Right);
    }
}
