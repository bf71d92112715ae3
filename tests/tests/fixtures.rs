//! What is concluded from recorded sessions, held against what their scenarios expect: no root, no broker, no Python.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::ops::ControlFlow;

use observer::diagnose::{self, case::Case};
use observer::fold;
use observer::model::Model;
use observer::render::explain;
use observer::session::{Filter, Session};
use serde_json::Value;
use tests::scenario::fixture::{self, Fixture};
use tests::scenario::judge::{Outcome, judge};

fn explained(fixture: &Fixture) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.sqlite");
    fixture.unpack(&path).unwrap();
    let session = Session::open(&path).unwrap();
    let ending = session.ending();
    let model = fold::fold(&session, &Filter::default(), None).unwrap();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    serde_json::to_value(explain::document(&case, &diagnose::explain(&case))).unwrap()
}

/// The same by a reader that follows: some events at a time, in order of their arrival.
fn explained_bit_by_bit(fixture: &Fixture) -> Value {
    const WINDOW: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.sqlite");
    fixture.unpack(&path).unwrap();
    let session = Session::open(&path).unwrap();
    let mut model = Model::new(session.header().started_ns);
    for after in (0..session.newest_id()).step_by(WINDOW as usize) {
        let window = Filter { after_id: Some(after), up_to_id: Some(after + WINDOW), ..Filter::default() };
        let each = |id, event| {
            model.add(id, &event);
            ControlFlow::Continue(())
        };
        session.events(&window, each).unwrap();
    }
    model.finish();
    let ending = session.ending();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    serde_json::to_value(explain::document(&case, &diagnose::explain(&case))).unwrap()
}

#[test]
fn whoever_follows_a_session_concludes_the_same_in_the_end() {
    let (fixtures, _) = fixture::all(&fixture::folder()).unwrap();
    let odd: Vec<String> = fixtures
        .iter()
        .filter_map(|fixture| {
            let (whole, followed) = (explained(fixture), explained_bit_by_bit(fixture));
            let (verdict, other) = (&whole["verdict"], &followed["verdict"]);
            let name = &fixture.scenario.name;
            (verdict != other).then(|| format!("{name}: {:#}\n{:#}", verdict, other))
        })
        .collect();
    assert!(fixtures.len() > 100);
    assert!(odd.is_empty(), "{} of {} fixtures:\n{}", odd.len(), fixtures.len(), odd.join("\n"));
}

#[test]
fn recorded_sessions_are_explained_as_their_scenarios_expect() {
    let (fixtures, orphans) = fixture::all(&fixture::folder()).unwrap();
    assert_eq!(orphans, Vec::<String>::new(), "sessions of scenarios that are no more");
    let mut odd = Vec::new();
    for fixture in &fixtures {
        let judgement = judge(&fixture.scenario, &fixture.values, &explained(fixture));
        if judgement.outcome != Outcome::Right {
            odd.push(format!(
                "{}: {:?}: concluded {}: {}",
                fixture.scenario.name,
                judgement.outcome,
                judgement.concluded,
                judgement.objections.join("; ")
            ));
        }
    }
    assert!(odd.is_empty(), "{} of {} fixtures:\n{}", odd.len(), fixtures.len(), odd.join("\n"));
}
