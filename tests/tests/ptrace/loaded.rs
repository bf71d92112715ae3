//! What a process had loaded when it was ended without putting its modules away: what the interpreter itself says of it, on every CPython
//! here.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tests::deadline;
use tests::scene::Scene;
use tests::venv;

use super::LIMIT;

/// A worker forked from it, whose second thread ends it by the way that is asked for, after both have said what they have loaded.
const PROGRAM: &str = r#"
import json, os, signal, sys, threading, time
import colorsys

# Whoever starts the tests may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.01)


def end():
    import stringprep

    with open(sys.argv[2], "w") as file:
        json.dump(sorted(sys.modules), file)
    if sys.argv[1] == "leave":
        os._exit(3)
    elif sys.argv[1] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    else:
        # In order: only the first thread can end it so.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


child = os.fork()
if child == 0:
    import wave

    try:
        threading.Thread(target=end).start()
        # Not `pause`: a signal that comes just before it would be waited for in vain.
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        sys.exit(0)
os.waitpid(child, 0)
"#;

fn at_end(scene: &Scene, python: &str, how: &str) -> (Vec<Value>, BTreeSet<String>) {
    let script = scene.path("program.py");
    fs::write(&script, PROGRAM).unwrap();
    let (said, go) = (scene.path(&format!("{how}.json")), scene.path(&format!("{how}.go")));
    let mut attach = scene.observer().unwrap();
    attach.args(["attach", "--quiet", "--name", how, "--backend", "ptrace", "--", python]);
    let mut attach = attach.arg(&script).arg(how).arg(&said).arg(&go).spawn().unwrap();
    // It takes a moment to look into an interpreter, and one that is over by then is told nothing of.
    deadline::until("the interpreter is known", LIMIT, || {
        scene.session(how).ok()?.kind("interpreter").next().map(drop)
    });
    fs::write(go, "").unwrap();
    let status = attach.wait().unwrap();
    assert!(status.success(), "{python}: {how}: {status}");
    let said = serde_json::from_slice(&fs::read(said).unwrap()).unwrap();
    let session = scene.session(how).unwrap();
    (session.kind("loaded-modules").cloned().collect(), said)
}

#[test]
fn what_was_loaded_at_the_end_is_what_the_interpreter_says() {
    let interpreters = venv::interpreters();
    assert!(!interpreters.is_empty());
    for python in interpreters.iter().filter_map(|python| python.to_str()) {
        let scene = Scene::new().unwrap();
        for how in ["leave", "crash"] {
            let (told, said) = at_end(&scene, python, how);
            assert_eq!(told.len(), 1, "{python}: {how}: {told:?}");
            assert_eq!(told[0]["complete"], true, "{python}: {how}");
            let names = told[0]["names"].as_array().unwrap();
            let names: BTreeSet<String> =
                names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            assert!(names.contains("colorsys") && names.contains("wave") && names.contains("stringprep"));
            assert_eq!(names, said, "{python}: {how}");
        }
        // Python has put them away.
        let (told, _) = at_end(&scene, python, "return");
        assert_eq!(told, Vec::<Value>::new(), "{python}");
    }
}
