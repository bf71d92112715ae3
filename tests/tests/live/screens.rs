//! `show --follow` on a terminal: what is drawn, what keys do, and that the terminal is as it was however it ends.

use nix::sys::signal::{Signal, kill};
use tests::rabbit::Broker;
use tests::scene::Scene;
use tests::tmux::Tmux;

use super::{is_as_before, is_recorded, note_how_it_is, observer, process_of, send, worker};

#[test]
fn a_worker_is_looked_at_while_it_is_recorded() {
    let broker = Broker::start(&[]).unwrap();
    let scene = Scene::new().unwrap();
    let recording = worker(&scene, "looked-at", &broker);
    is_recorded(&scene, "looked-at");
    let tmux = Tmux::start(&scene.path("")).unwrap();
    note_how_it_is(&tmux, &scene);
    tmux.line(&format!("{} show @ --follow", observer(&scene))).unwrap();
    tmux.shows(&["looked-at recording", "▶ findings", " worker running", " worker ✓✓✓✓✓✓✓✓––– consume"])
        .unwrap();
    assert!(tmux.modes().unwrap().0, "it has the alternate screen");
    send(&broker, 3);
    tmux.shows(&[" worker ✓✓✓✓✓✓✓✓✓✓✓ settle", "default ready 0", "delivered 3", "basic.ack"]).unwrap();

    tmux.keys(&["Tab", "z"]).unwrap();
    tmux.until("one pane", |screen| screen.contains("▶ amqp") && !screen.contains("─ timeline")).unwrap();
    tmux.line("/basic.consume ").unwrap();
    tmux.until("what is searched for is selected", |screen| {
        screen.lines().any(|line| line.contains('›') && line.contains("basic.consume "))
    })
    .unwrap();
    tmux.keys(&["G", "z", "Space"]).unwrap();
    tmux.shows(&["PAUSED (+"]).unwrap();
    send(&broker, 1);
    let paused = |screen: &str| {
        let more = screen.split("PAUSED (+").nth(1).and_then(|rest| rest.split(')').next());
        more.and_then(|more| more.parse::<u64>().ok())
    };
    let still =
        tmux.until("it is recorded on", |screen| paused(screen).is_some_and(|more| more > 10)).unwrap();
    assert!(still.contains("delivered 3") && !still.contains("delivered 4"), "{still}");
    tmux.keys(&["Space"]).unwrap();
    tmux.shows(&["delivered 4"]).unwrap();

    tmux.resize(120, 40).unwrap();
    tmux.until("it is wider", |screen| screen.lines().any(|line| line.chars().count() > 110)).unwrap();
    tmux.resize(40, 10).unwrap();
    tmux.until("one pane", |screen| screen.contains("▶ amqp") && !screen.contains("─ timeline")).unwrap();
    tmux.resize(30, 8).unwrap();
    tmux.shows(&["too small"]).unwrap();
    tmux.resize(80, 24).unwrap();
    tmux.shows(&["▶ amqp", "─ timeline"]).unwrap();

    tmux.keys(&["Tab", "z"]).unwrap();
    tmux.line("fexec").unwrap();
    let execs = tmux.shows(&["▶ timeline", "only exec"]).unwrap();
    let events: Vec<&str> = execs.lines().filter(|line| line.trim_start().starts_with('+')).collect();
    assert!(!events.is_empty() && events.iter().all(|line| line.contains(" exec ")), "{execs}");
    tmux.keys(&["?"]).unwrap();
    tmux.shows(&["to the event that proves the line", "not seen: "]).unwrap();
    tmux.keys(&["?", "z"]).unwrap();

    recording.signal(Signal::SIGTERM);
    tmux.shows(&["looked-at done", "the recording is over"]).unwrap();
    recording.ended();
    tmux.keys(&["q"]).unwrap();
    tmux.shows(&["session ", "next "]).unwrap();
    is_as_before(&tmux, &scene);
}

fn finished() -> (Scene, Tmux) {
    let scene = Scene::new().unwrap();
    let ended = scene.attach("short").unwrap().args(["--quiet", "--", "/bin/true"]).status();
    assert!(ended.unwrap().success());
    let tmux = Tmux::start(&scene.path("")).unwrap();
    note_how_it_is(&tmux, &scene);
    tmux.line(&format!("{} show @ --follow", observer(&scene))).unwrap();
    tmux.shows(&["short done", "▶ findings"]).unwrap();
    (scene, tmux)
}

#[test]
fn the_terminal_is_as_it_was_after_every_signal_that_ends_it() {
    let (scene, tmux) = finished();
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        kill(process_of(&scene, "--follow"), signal).unwrap();
        tmux.until("the shell", |screen| !screen.contains('▶') && screen.contains('$')).unwrap();
        tmux.line("echo \"status $?\"").unwrap();
        // As a program that takes no signals is ended by one.
        tmux.shows(&[&format!("status {}", 128 + signal as i32)]).unwrap();
        is_as_before(&tmux, &scene);
        tmux.line(&format!("clear; {} show @ --follow", observer(&scene))).unwrap();
        tmux.shows(&["short done", "▶ findings"]).unwrap();
    }
    tmux.keys(&["C-c"]).unwrap();
    tmux.until("the shell", |screen| !screen.contains('▶') && screen.contains('$')).unwrap();
    is_as_before(&tmux, &scene);
}

#[test]
fn it_can_be_stopped_and_goes_on() {
    let (scene, tmux) = finished();
    tmux.keys(&["C-z"]).unwrap();
    tmux.shows(&["Stopped"]).unwrap();
    is_as_before(&tmux, &scene);
    tmux.line("fg").unwrap();
    tmux.shows(&["short done", "▶ findings"]).unwrap();
    assert!(tmux.modes().unwrap().0);
    // Nobody can do anything before this one: the shell is left with the alternate screen, until it goes on.
    kill(process_of(&scene, "--follow"), Signal::SIGSTOP).unwrap();
    tmux.shows(&["Stopped"]).unwrap();
    tmux.line("fg").unwrap();
    tmux.until("it is drawn anew", |screen| screen.starts_with("short done") && !screen.contains("Stopped"))
        .unwrap();
    tmux.keys(&["Tab"]).unwrap();
    tmux.shows(&["▶ amqp"]).unwrap();
    tmux.keys(&["q"]).unwrap();
    tmux.until("the shell", |screen| !screen.contains('▶') && screen.contains("session ")).unwrap();
    is_as_before(&tmux, &scene);
}

#[test]
fn without_a_terminal_that_can_be_drawn_on_it_is_lines() {
    let (scene, tmux) = finished();
    tmux.keys(&["q"]).unwrap();
    tmux.line(&format!("clear; TERM=dumb {} show @ --follow --kind exec; echo end", observer(&scene)))
        .unwrap();
    let lines = tmux.shows(&["exec", "/bin/true", "next ", "\nend"]).unwrap();
    assert!(!lines.contains('▶'), "{lines}");
    is_as_before(&tmux, &scene);
}
