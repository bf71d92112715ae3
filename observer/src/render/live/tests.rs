//! What is drawn, as snapshots: a failing and a healthy session fed in steps, on screens of several sizes; that keys do what the help says;
//! that nothing hostile comes through.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{Act, Content, Facts, Pane, Rates, Row, State, Tail, draw};
use crate::{
    diagnose::{self, Explanation, case::Case},
    event::{
        Body, Event, Known, Pid,
        broker::{QueueSample, Way},
    },
    model::{
        Model,
        fixture::{self, HOSTILE, MASTER, STARTED_NS, WORKER, at, exec},
        wire::{Wire, ack, body, deliver, publish},
    },
    session::{Ending, Header, State as Recording},
};

/// A session that is followed, as the loop that reads it does.
struct Followed {
    header: Header,
    model: Model,
    tail: Tail,
    rates: Rates,
    id: u64,
}

impl Followed {
    fn new() -> Self {
        Self {
            header: fixture::header(),
            model: Model::new(STARTED_NS),
            tail: Tail::default(),
            rates: Rates::default(),
            id: 0,
        }
    }

    fn feed(&mut self, events: &[Event]) {
        for event in events {
            self.id += 1;
            let Self { model, tail, .. } = self;
            model.add_and_tell(self.id, event, &mut |said| tail.said(said, STARTED_NS));
            tail.event(self.id, event, STARTED_NS, event.body.file_call().is_some());
            self.rates.sample(&self.model, event.at_ns);
        }
    }

    fn explained(&self, ending: Option<&Ending>) -> Explanation {
        let mut model = self.model.clone();
        model.finish();
        diagnose::explain(&Case::new(&self.header, ending, &model))
    }

    fn content(&self, ending: Option<&Ending>) -> Content {
        let explanation = self.explained(ending);
        Content::of(&Facts {
            header: &self.header,
            state: if ending.is_some() { Recording::Done } else { Recording::Recording },
            model: &self.model,
            explanation: Some(&explanation),
            tail: &self.tail,
            rates: &self.rates,
            now_ns: self.model.last_ns,
            not_understood: 0,
            behind: 0,
        })
    }
}

fn drawn(state: &State, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, true)).unwrap();
    terminal.backend().to_string()
}

fn press(state: &mut State, keys: &str) -> Act {
    let mut act = Act::None;
    for key in keys.split(' ') {
        let code = match key {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "backtab" => KeyCode::BackTab,
            "space" => KeyCode::Char(' '),
            "down" => KeyCode::Down,
            word if word.chars().count() > 1 => {
                word.chars().for_each(|c| press_one(state, KeyCode::Char(c)));
                continue;
            }
            one => KeyCode::Char(one.chars().next().unwrap()),
        };
        act = state.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    act
}

fn press_one(state: &mut State, code: KeyCode) {
    assert_eq!(state.press(KeyEvent::new(code, KeyModifiers::NONE)), Act::None);
}

/// A worker that consumes, settles what it was given, and a queue that fills up.
fn healthy() -> Vec<Event> {
    let mut events = vec![
        at(100, MASTER, MASTER, exec(&["python", "-m", "dramatiq", "minimal_worker"])),
        at(900, MASTER, MASTER, Body::Fork { child: Pid(WORKER) }),
        fixture::connect(999, 2, 5672, 0),
    ];
    let mut wire = Wire::connect(&mut events, 1_000, 2, WORKER, 4715);
    wire.open(&mut events, 2_000);
    wire.consume(&mut events, 3_000, "default", 4);
    for tag in 1..=20 {
        let text = body("default", &format!("m-{tag}"), "");
        wire.sent(&mut events, tag * 200_000, &publish("default", &text));
        wire.received(&mut events, tag * 200_000 + 50_000, &deliver(tag, "default", false, &text));
        if tag < 19 {
            wire.sent(&mut events, tag * 200_000 + 90_000, &ack(tag, false));
        }
    }
    events.push(at(4_100_000, 0, 0, Body::QueueSample(sample("default", 7, 2))));
    events
}

fn sample(queue: &str, ready: u64, unacked: u64) -> QueueSample {
    QueueSample {
        vhost: "/".to_owned(),
        queue: queue.to_owned(),
        ready: Some(ready),
        unacked: Some(unacked),
        consumers: Some(1),
        state: Some("running".to_owned()),
        published: Some(20),
        delivered: Some(20),
        how: Way::Management,
        ours: false,
    }
}

#[test]
fn a_failing_session_as_it_grows() {
    let mut followed = Followed::new();
    let events = fixture::events();
    let mut state = State::new(followed.content(None));
    insta::assert_snapshot!("failing_before_anything", drawn(&state, 80, 24));
    followed.feed(&events[..21]);
    state.update(followed.content(None));
    insta::assert_snapshot!("failing_refused", drawn(&state, 80, 24));
    followed.feed(&events[21..28]);
    state.update(followed.content(None));
    let stuck = drawn(&state, 120, 40);
    assert!(stuck.contains("4712 worker running, in futex for 1.10 s"), "{stuck}");
    followed.feed(&events[28..]);
    state.update(followed.content(Some(&fixture::ending())));
    insta::assert_snapshot!("failing_ended", drawn(&state, 80, 24));
    insta::assert_snapshot!("failing_ended_wide", drawn(&state, 120, 40));
    insta::assert_snapshot!("failing_ended_small", drawn(&state, 40, 10));
    insta::assert_snapshot!("too_small", drawn(&state, 39, 10).trim_end_matches(['"', '\n', ' ']));
}

#[test]
fn a_healthy_session() {
    let mut followed = Followed::new();
    followed.feed(&healthy());
    let mut state = State::new(followed.content(None));
    insta::assert_snapshot!("healthy", drawn(&state, 80, 24));
    insta::assert_snapshot!("healthy_wide", drawn(&state, 120, 40));
    press(&mut state, "tab z");
    insta::assert_snapshot!("healthy_conversation", drawn(&state, 120, 20));
    press(&mut state, "?");
    insta::assert_snapshot!("help", drawn(&state, 80, 24));
}

#[test]
fn a_view_that_is_paused_stands_still_and_says_so() {
    let mut followed = Followed::new();
    let events = healthy();
    followed.feed(&events[..10]);
    let mut state = State::new(followed.content(None));
    press(&mut state, "space");
    let before = drawn(&state, 80, 24);
    assert!(before.contains("PAUSED (+0) "), "{before}");
    followed.feed(&events[10..]);
    state.update(followed.content(None));
    let after = drawn(&state, 80, 24);
    let below = |screen: &str| screen.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(below(&after), below(&before));
    assert!(after.contains(&format!("PAUSED (+{}) ", events.len() - 10)), "{after}");
    press(&mut state, "space");
    state.update(followed.content(None));
    let on = drawn(&state, 80, 24);
    assert!(!on.contains("PAUSED") && on.contains("4.10"), "{on}");
}

#[test]
fn a_finding_leads_to_the_event_that_proves_it_and_back() {
    let mut followed = Followed::new();
    let events = fixture::events();
    followed.feed(&events);
    let ending = fixture::ending();
    let mut state = State::new(followed.content(Some(&ending)));
    let first = followed.explained(Some(&ending)).findings[0].evidence[0].event;
    assert_eq!(press(&mut state, "enter"), Act::Jump(first));
    let rows = (1..).zip(&events).map(|(id, event)| Row::of_event(id, event, STARTED_NS)).collect();
    state.jump(first, rows);
    assert_eq!(state.focus, Pane::Timeline);
    let screen = drawn(&state, 80, 24);
    assert!(screen.contains("▶ timeline (around an event"), "{screen}");
    let shown = crate::render::timeline::line(&events[first as usize - 1], STARTED_NS);
    let moment: String =
        shown.spans().map(|(_, text)| text).collect::<String>().trim().chars().take(9).collect();
    let selected = screen.lines().find(|line| line.contains('›')).unwrap();
    assert!(selected.contains(&moment), "{moment}: {screen}");
    press(&mut state, "esc");
    assert!(!drawn(&state, 80, 24).contains("around an event"));
    state.jump(99_999, Vec::new());
    assert!(drawn(&state, 80, 24).contains("event 99999 cannot be read"));
    press(&mut state, "backtab backtab backtab g");
    assert_eq!(state.focus, Pane::Queues);
    assert_eq!(press(&mut state, "enter"), Act::None);
    assert!(drawn(&state, 80, 24).contains("nothing to jump to"));
}

#[test]
fn what_is_searched_for_is_selected_and_what_is_not_there_is_said() {
    let mut followed = Followed::new();
    followed.feed(&healthy());
    let mut state = State::new(followed.content(None));
    press(&mut state, "tab z / M-1x enter");
    assert!(drawn(&state, 100, 24).contains("`M-1x` is not in amqp"));
    // In both its publish and its delivery.
    press(&mut state, "g / M-13 enter");
    let selected =
        |state: &State| drawn(state, 100, 24).lines().find(|line| line.contains('›')).unwrap().to_owned();
    let first = selected(&state);
    assert!(first.contains("→ 1 basic.publish") && first.contains("m-13"), "{first}");
    press(&mut state, "n");
    assert!(selected(&state).contains("← 1 basic.deliver"), "{}", selected(&state));
    press(&mut state, "N");
    assert_eq!(selected(&state), first);
}

#[test]
fn only_the_kinds_and_processes_that_are_asked_for_are_shown() {
    let mut followed = Followed::new();
    followed.feed(&fixture::events());
    let mut state = State::new(followed.content(None)).only("connect,stat");
    press(&mut state, "z");
    state.focus = Pane::Timeline;
    let screen = drawn(&state, 100, 24);
    assert!(screen.contains("only connect,stat"), "{screen}");
    assert!(screen.contains("newfstatat") && screen.contains("ECONNREFUSED"), "{screen}");
    assert!(!screen.contains("exec  ") && !screen.contains("output"), "{screen}");
    press(&mut state, "f");
    (0..20).for_each(|_| press_one(&mut state, KeyCode::Backspace));
    press(&mut state, "nonsense enter");
    assert!(drawn(&state, 100, 24).contains("no such kind: nonsense"));
    assert!(drawn(&state, 100, 24).contains("newfstatat"), "the filter is as it was");
    press(&mut state, "f");
    (0..20).for_each(|_| press_one(&mut state, KeyCode::Backspace));
    press(&mut state, "4711 enter");
    let screen = drawn(&state, 100, 24);
    assert!(screen.contains(" 4711 ") && !screen.contains(" 4712/4715 "), "{screen}");
}

#[test]
fn nothing_hostile_is_drawn_and_nothing_is_told_by_colour_alone() {
    let mut followed = Followed::new();
    let mut events = fixture::events();
    let mut hostile = sample(HOSTILE, 3, 1);
    hostile.state = Some(HOSTILE.to_owned());
    events.push(at(9_100_000, 1, 1, exec(&[HOSTILE, HOSTILE])));
    events.push(at(9_200_000, 1, 1, Body::ExecFailed { path: Known::Is(HOSTILE.to_owned()), errno: 2 }));
    events.push(at(9_300_000, 0, 0, Body::QueueSample(hostile)));
    let stuck = Body::Stuck { syscall: HOSTILE.to_owned(), since_ns: 0, on: Known::unknown(), args: [0; 6] };
    events.push(at(9_400_000, 1, 1, stuck));
    followed.header.name = HOSTILE.to_owned();
    followed.feed(&events);
    let mut state = State::new(followed.content(None));
    state.say(HOSTILE);
    for pane in Pane::ALL {
        state.focus = pane;
        for zoomed in [false, true] {
            state.zoomed = zoomed;
            let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
            terminal.draw(|frame| draw(frame, &state, false)).unwrap();
            for cell in terminal.backend().buffer().content() {
                assert!(cell.symbol().chars().all(crate::words::escape::is_plain), "{:?}", cell.symbol());
                assert_eq!((cell.fg, cell.bg), Default::default(), "no colours were asked for");
            }
        }
    }
    assert!(drawn(&state, 200, 60).contains("evil"), "it is there, harmless");
}
