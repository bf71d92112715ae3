//! `attach --follow`: a view where nobody else uses the terminal, and only news where the command does; either way the command's terminal
//! is as without it.

use std::fs::File;
use std::process::{Command, Stdio};

use tests::scene::Scene;
use tests::tmux::Tmux;
use tests::venv::Venv;
use tests::{deadline, target};

use super::{LIMIT, Running, is_as_before, is_recorded, note_how_it_is};

fn attach(scene: &Scene, name: &str, rest: &str) -> String {
    format!("{} --follow {rest}", scene.attach_words(name).unwrap().join(" "))
}

#[test]
fn a_command_that_has_the_terminal_keeps_it_and_news_are_told_beside_it() {
    let scene = Scene::new().unwrap();
    let tmux = Tmux::start(&target::folder()).unwrap();
    note_how_it_is(&tmux, &scene);
    tmux.line(&format!("export PATH={} BROKER_URL=amqp://127.0.0.1:1", Venv::ensure().unwrap().path()))
        .unwrap();
    let during = scene.path("during");
    let worker =
        format!("sh -c 'stty -g >{}; exec python -m dramatiq -p1 -t1 minimal_worker'", during.display());
    tmux.line(&format!("clear; {}", attach(&scene, "shared", &format!("-- {worker}")))).unwrap();
    let news = |screen: &str, what: &str| {
        screen.lines().any(|line| line.starts_with("observer: ") && line.contains(what))
    };
    let all = tmux
        .until("the news", |screen| {
            news(screen, "✗ connection-refused") && news(screen, "ladder     ✓ import")
        })
        .unwrap();
    assert!(!tmux.modes().unwrap().0, "no view over what the command writes: {all}");
    assert_eq!(
        std::fs::read_to_string(during).unwrap(),
        std::fs::read_to_string(scene.path("before")).unwrap()
    );
    tmux.keys(&["C-c"]).unwrap();
    tmux.shows(&["session ", "next "]).unwrap();
    is_as_before(&tmux, &scene);
}

/// A process of ours that lives until a file is there.
fn waiting(scene: &Scene) -> Running {
    let script = "while [ ! -e \"$0\" ]; do sleep 0.1; done";
    Running::start(Command::new("sh").args(["-c", script]).arg(scene.path("stop")).stdout(Stdio::null()))
}

#[test]
fn a_process_attached_to_is_viewed_and_recorded_on_when_the_view_is_left() {
    let scene = Scene::new().unwrap();
    let process = waiting(&scene);
    let tmux = Tmux::start(&scene.path("")).unwrap();
    note_how_it_is(&tmux, &scene);
    tmux.line(&attach(&scene, "viewed", &format!("--pid {}", process.0.id()))).unwrap();
    tmux.shows(&["viewed recording", "▶ findings", &format!("{} running", process.0.id())]).unwrap();
    tmux.keys(&["q"]).unwrap();
    tmux.until("the first line", |screen| {
        !screen.contains('▶') && screen.contains("the view is closed, the recording goes on")
    })
    .unwrap();
    assert_eq!(tmux.modes().unwrap(), (false, true));
    is_recorded(&scene, "viewed");
    // Without the view it is stopped and goes on as without one ever.
    tmux.keys(&["C-z"]).unwrap();
    tmux.shows(&["Stopped"]).unwrap();
    tmux.line("fg").unwrap();
    File::create(scene.path("stop")).unwrap();
    process.ended();
    tmux.shows(&["session ", "next "]).unwrap();
    is_as_before(&tmux, &scene);
    let session = scene.session("viewed").unwrap();
    assert_eq!(session.header["ending"]["reason"], "exited");
}

#[test]
fn in_the_view_the_interrupt_key_lets_go_as_it_does_without() {
    let scene = Scene::new().unwrap();
    let process = waiting(&scene);
    let tmux = Tmux::start(&scene.path("")).unwrap();
    note_how_it_is(&tmux, &scene);
    tmux.line(&attach(&scene, "let-go", &format!("--pid {}", process.0.id()))).unwrap();
    tmux.shows(&["let-go recording", "▶ findings"]).unwrap();
    tmux.keys(&["C-c"]).unwrap();
    tmux.shows(&["session ", "next "]).unwrap();
    is_as_before(&tmux, &scene);
    assert_eq!(scene.session("let-go").unwrap().header["ending"]["reason"], "interrupted");
    File::create(scene.path("stop")).unwrap();
    process.ended();
}

#[test]
fn a_command_whose_streams_are_files_leaves_the_terminal_to_the_view() {
    let scene = Scene::new().unwrap();
    let tmux = Tmux::start(&scene.path("")).unwrap();
    note_how_it_is(&tmux, &scene);
    let (log, stop) = (scene.path("log"), scene.path("stop"));
    let command =
        format!("sh -c 'echo from the command; while [ ! -e {} ]; do sleep 0.1; done'", stop.display());
    let line = attach(&scene, "redirected", &format!("-- {command} >{} 2>&1 </dev/null", log.display()));
    tmux.line(&line).unwrap();
    tmux.shows(&["redirected recording", "▶ findings"]).unwrap();
    tmux.keys(&["Tab"]).unwrap();
    tmux.shows(&["▶ amqp"]).unwrap();
    File::create(stop).unwrap();
    tmux.until("the shell", |screen| !screen.contains('▶')).unwrap();
    deadline::until("the verdict", LIMIT, || {
        std::fs::read_to_string(&log).unwrap().contains("session  ").then_some(())
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("from the command\n") && !log.contains('▶'), "{log}");
    is_as_before(&tmux, &scene);
}
