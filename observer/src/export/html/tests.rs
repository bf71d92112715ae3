//! The page of the hand-made session, as text: what is in it, and what cannot be. How it looks, a browser says (`tests/tests/export`).

use std::collections::BTreeSet;

use super::*;
use crate::{
    compare::{self, run::Reader},
    event::Event,
    export::testing::{HOSTILE_MARKDOWN, exported, hostile_events, session_of},
    model::fixture,
    words::escape::is_plain,
};

fn page(events: Vec<Event>, working: Option<&[Event]>) -> String {
    let run = |events: &[Event]| {
        let header = fixture::header();
        let mut reader = Reader::new(header.started_ns);
        (1..).zip(events).for_each(|(id, event)| reader.add(id, event));
        reader.finish(&header, Some(fixture::ending()))
    };
    let against = working.map(|working| {
        let (working, failing) = (run(working), run(&events));
        let comparison = compare::compare(&working, &failing);
        (working, comparison)
    });
    let (_scratch, session) = session_of(events);
    let against = against.as_ref().map(|(run, comparison)| (run, comparison));
    String::from_utf8(exported(|out, progress| write(&session, against, out, progress))).unwrap()
}

/// The values of an attribute, or what begins like one.
fn values<'a>(page: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(begin).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn its_parts_are_in_order_and_verdict_and_evidence_come_first() {
    let events = fixture::events();
    let page = page(events.clone(), Some(&events[..20]));
    let parts: Vec<&str> = values(&page, "<section id=\"").collect();
    let wanted = [
        "verdict",
        "ladder",
        "timeline",
        "events",
        "amqp",
        "messages",
        "queues",
        "imports",
        "environment",
        "differences",
        "session",
    ];
    assert_eq!(parts, wanted);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(at("id=\"verdict-title\"") < at("id=\"evidence-title\""));
    assert!(
        at("id=\"evidence-title\"") < at("id=\"next-title\"")
            && at("id=\"next-title\"") < at("id=\"ladder\"")
    );
    assert!(
        page.contains("12 events lost") && page.contains("12 of file at the kernel&#39;s ring buffer"),
        "{page}"
    );
    assert!(page.contains("file calls made through io_uring") && page.contains("which works"));
}

#[test]
fn every_link_leads_to_something_that_is_there_once() {
    let page = page(fixture::events(), None);
    let mut ids = BTreeSet::new();
    for id in values(&page, " id=\"") {
        assert!(ids.insert(id), "{id} is there twice");
    }
    let links: Vec<&str> = values(&page, "href=\"").collect();
    assert!(links.iter().any(|link| link.starts_with("#e")), "{links:?}");
    for link in links {
        assert!(link.strip_prefix('#').is_some_and(|id| ids.contains(id)), "{link}");
    }
}

#[test]
fn what_is_hostile_stays_text() {
    let page = page(hostile_events(), Some(&fixture::events()));
    assert!(page.chars().all(|c| c == '\n' || is_plain(c)), "something would steer a terminal, or hide");
    assert!(page.contains("&#60;/pre&#62;&#60;script&#62;alert(1)"), "{} was to be in", HOSTILE_MARKDOWN[1]);
    assert_eq!(page.matches("<script").count(), 2, "the page's own");
    assert_eq!(page.matches("</script").count(), 2);
}

#[test]
fn the_policy_names_the_style_and_the_script_and_allows_nothing_else() {
    let page = page(fixture::events(), None);
    let policy = values(&page, "Content-Security-Policy\" content=\"").next().unwrap();
    let hash = |begin: &str, end: &str| {
        let text = page.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0;
        STANDARD.encode(<sha2::Sha256 as sha2::Digest>::digest(text))
    };
    let wanted = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash("<style>", "</style>"),
        hash("<script>", "</script>")
    );
    assert_eq!(policy, wanted);
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy would not let it be");
    assert!(!page.contains("http://127") && !values(&page, "src=\"").any(|_| true));
}

#[test]
fn json_in_a_script_element_cannot_end_it() {
    let text = in_script(&["</script><!--&\u{2028}\u{2029}"]).unwrap();
    assert_eq!(text, r#"["\u003c/script\u003e\u003c!--\u0026\u2028\u2029"]"#);
}

#[test]
fn an_empty_session_is_a_page_too() {
    let page = page(Vec::new(), None);
    assert!(page.contains("No process was seen") && page.contains("All 0 events"), "{page}");
}
