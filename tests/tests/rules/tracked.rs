//! Who is tracked can be asked, let go of and taken up again; so can the probes in interpreters.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use observer::event::{Body, ImportSight, Pid};
use tests::deadline;
use tests::privilege::lacking;

use crate::PYTHON;
use crate::watch::{LIMIT, Place, Waiting, Watch, rule};

#[test]
fn who_is_forgotten_is_not_told_of_any_more() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let mut watch = Watch::new(&[rule(1, Some("sh"), &["-c", "*", &place.token("waiting")])]);
    let mut kept = Waiting::new(&place, "read one; read two");
    let mut forgotten = Waiting::new(&place, "read one; read two; /bin/true; exit 0");
    for pid in [kept.pid(), forgotten.pid()] {
        watch.until("its exec", |event| event.pid.0 == pid && matches!(event.body, Body::Exec(_)));
        assert!(watch.ebpf.tracked().contains(&Pid(pid)));
    }
    watch.ebpf.forget(&[Pid(forgotten.pid())]);
    assert_eq!(watch.ebpf.tracked(), [Pid(kept.pid())]);
    watch.settle(&place);
    watch.events.clear();
    for waiting in [&mut forgotten, &mut kept] {
        waiting.line();
        waiting.line();
        waiting.0.wait().unwrap();
    }
    watch.until_gone(kept.pid());
    watch.settle(&place);
    assert!(watch.of(forgotten.pid()).is_empty(), "{:?}", watch.of(forgotten.pid()));
    assert_eq!(watch.ebpf.tracked(), []);
}

#[test]
fn who_is_known_already_is_adopted_without_a_word() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let mut watch = Watch::new(&[]);
    let mut root =
        Waiting::new(&place, "exec 3<&0; (read one <&3; /bin/true; exit 3) & read two; wait; exit 4");
    let child = deadline::until("its child", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", root.pid())).unwrap();
        children.trim().parse::<u32>().ok()
    });
    let found = watch.ebpf.adopt(Pid(root.pid()), 0, &HashSet::from([Pid(root.pid())])).unwrap();
    assert_eq!(found, [Pid(root.pid()), Pid(child)]);
    watch.poll();
    assert!(watch.of(child).iter().any(|event| matches!(event.body, Body::Exec(_))), "who is new is told of");
    let told = watch.of(root.pid());
    assert!(!told.iter().any(|event| matches!(event.body, Body::Exec(_))), "{told:?}");
    root.line();
    root.line();
    watch.until_gone(root.pid());
    assert!(watch.of(child).iter().any(|event| matches!(event.body, Body::Exit { .. })));
    assert!(watch.ebpf.adopt(Pid(child), 0, &HashSet::new()).is_err(), "who is gone cannot be");
}

#[test]
fn probes_in_interpreters_are_let_go_of_and_taken_again() {
    if lacking("eBPF") {
        return;
    }
    let place = Place::new();
    let token = place.token("imports");
    let mut watch = Watch::new(&[rule(1, Some("python3*"), &[&token])]);
    // The probes come while it runs: the next one is seen from its beginning, and after a rest they come late again.
    let expected = [ImportSight::Late, ImportSight::Seen, ImportSight::Late, ImportSight::Seen];
    for (turn, expected) in expected.into_iter().enumerate() {
        if turn == 2 {
            watch.ebpf.rest();
        }
        let mut python = Command::new(PYTHON);
        python.args(["-c", "input(); import this", &token]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut python = python.spawn().unwrap();
        let pid = python.id();
        watch.until("its interpreter", |event| {
            event.pid.0 == pid && matches!(event.body, Body::Interpreter(_))
        });
        python.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(python.wait().unwrap().success());
        watch.until_gone(pid);
        let of_it = watch.of(pid);
        let sight = of_it.iter().find_map(|event| match &event.body {
            Body::Interpreter(interpreter) => Some(interpreter.imports),
            _ => None,
        });
        assert_eq!(sight, Some(expected), "turn {turn}");
        let imported = of_it.iter().any(|event| format!("{:?}", event.body).contains("\"this\""));
        assert!(imported, "turn {turn}: what is imported once probed is seen");
    }
}
