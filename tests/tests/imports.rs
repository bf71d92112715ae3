//! What was seen to be imported from outside is what `python -X importtime` prints of the same program, on every CPython here.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::observe::{State, said};
use tests::venv::{self, Venv};

/// Imports that nest, that fail, that are made late, of C modules, of a package of its own, and by name.
const PROGRAM: &str = "\
try:
    import nowhere_to_be_found
except ImportError:
    pass
try:
    import broken
except ValueError:
    pass
import json, sqlite3
from xml.dom import minidom
import package.inner
def later():
    import csv
    import json
later()
import importlib
importlib.import_module('by_name')
import sys
print('\\n'.join(sys.path))
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("imports-").tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("program.py", PROGRAM);
    put("package/__init__.py", "from . import other\n");
    put("package/other.py", "import colorsys\n");
    put("package/inner.py", "import stringprep\n");
    put("broken.py", "raise ValueError('on purpose')\n");
    put("by_name.py", "import zipapp\n");
    folder
}

/// Names and depths in the order in which `-X importtime` prints them: children before their parents.
fn printed(python: &Path, arguments: &[&str], folder: &Path) -> Vec<(String, u64)> {
    let run = || {
        let mut command = Command::new(python);
        command.args(["-X", "importtime"]).args(arguments).current_dir(folder).stdin(Stdio::null());
        command.output().unwrap()
    };
    // The first writes the bytecode.
    run();
    let output = run();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines =
        text.lines().filter(|line| line.starts_with("import time:") && !line.contains("imported package"));
    lines
        .map(|line| {
            let name = line.rsplit('|').next().unwrap().strip_prefix(' ').unwrap();
            let indent = name.len() - name.trim_start().len();
            (name.trim().to_owned(), indent as u64 / 2)
        })
        .collect()
}

/// The same from outside, and what the program printed.
fn seen(python: &Path, arguments: &[&str], folder: &Path) -> (State, Value, String) {
    seen_with(python, arguments, folder, "")
}

fn seen_with(python: &Path, arguments: &[&str], folder: &Path, python_path: &str) -> (State, Value, String) {
    let state = State::new().unwrap();
    let mut words = vec![python.to_str().unwrap()];
    words.extend(arguments);
    let mut command = state.attach(&[], &words).unwrap();
    if !python_path.is_empty() {
        command.env("PYTHONPATH", python_path);
    }
    let output = command.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    assert_eq!(state.lost().unwrap(), BTreeMap::new());
    let shown = state.show(&["--imports"]).unwrap();
    assert_eq!(shown["schema"], "observer.show-imports/1");
    let process = shown["processes"].as_array().unwrap().last().unwrap().clone();
    (state, process, String::from_utf8(output.stdout).unwrap())
}

fn modules(process: &Value) -> &Vec<Value> {
    process["modules"].as_array().unwrap()
}

/// How many imports that were seen to begin a module is inside of.
fn depth(process: &Value, module: &Value) -> u64 {
    let parent = module["parent"].as_u64().map(|parent| &modules(process)[parent as usize]);
    parent.map_or(0, |parent| depth(process, parent) + u64::from(parent["inferred"] == false))
}

fn in_order_of_their_ends(process: &Value) -> Vec<(String, u64)> {
    let ended = process["ended"].as_array().unwrap();
    let ended = ended.iter().map(|at| &modules(process)[at.as_u64().unwrap() as usize]);
    ended.map(|module| (module["name"].as_str().unwrap().to_owned(), depth(process, module))).collect()
}

fn named<'a>(process: &'a Value, name: &str) -> &'a Value {
    modules(process).iter().find(|module| module["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn named_at(process: &Value, name: &str) -> usize {
    modules(process).iter().position(|module| module["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_tree_is_the_one_importtime_prints() {
    let folder = folder();
    let interpreters = venv::interpreters();
    assert!(!interpreters.is_empty());
    for python in interpreters {
        let wanted = printed(&python, &["program.py"], folder.path());
        assert!(wanted.len() > 30, "{}: {}", python.display(), wanted.len());
        let (_state, process, path) = seen(&python, &["program.py"], folder.path());
        let interpreter = &process["interpreter"];
        assert_eq!(interpreter["imports"], "seen", "{}: {interpreter}", python.display());
        assert_eq!(in_order_of_their_ends(&process), wanted, "{}", python.display());

        // Its path, as it prints it, without what is no directory (the standard library's archive).
        let path: Vec<&str> = path.lines().filter(|entry| Path::new(entry).is_dir()).collect();
        let searched = process["search_path"].as_array().unwrap();
        let searched: Vec<&str> = searched.iter().map(|entry| entry.as_str().unwrap()).collect();
        assert_eq!(searched, path, "{}", python.display());
        assert_eq!(process["search_path_complete"], true);

        let text = |name: &str, field: &str| {
            PathBuf::from(named(&process, name)[field].as_str().unwrap_or_default())
        };
        assert_eq!(text("package", "file"), folder.path().join("package/__init__.py"));
        assert_eq!(text("package.inner", "file"), folder.path().join("package/inner.py"));
        assert!(text("json.decoder", "file").ends_with("json/decoder.py"));
        assert_eq!(named(&process, "nowhere_to_be_found")["loaded"], false);
        assert_eq!(named(&process, "nowhere_to_be_found")["exception"], "ModuleNotFoundError");
        assert_eq!(named(&process, "broken")["exception"], "ValueError", "{}", python.display());
        assert_eq!(named(&process, "json")["exception"], Value::Null);
        assert_eq!(named(&process, "csv")["function"], "later");
        assert_eq!(named(&process, "csv")["level"], 0);
        // What is loaded already, asked for from a function, and relative to a package.
        let cached = process["cached"].as_array().unwrap();
        let asked = |module: &str, importer: &str| {
            let importer = folder.path().join(importer);
            let is_it =
                |one: &&Value| one["module"] == module && one["importer"] == importer.to_str().unwrap();
            cached.iter().find(is_it).unwrap_or_else(|| panic!("{}: {module}: {cached:#?}", python.display()))
        };
        assert_eq!(asked("json", "program.py")["function"], "later");
        let relative = asked("package", "package/__init__.py");
        assert_eq!((&relative["name"], &relative["level"]), (&"".into(), &1.into()));
        // The one at its head loads it.
        let program = folder.path().join("program.py");
        let is_its = |one: &&Value| one["module"] == "json" && one["importer"] == program.to_str().unwrap();
        assert_eq!(cached.iter().filter(is_its).count(), 1);
        assert_eq!(text("colorsys", "importer"), folder.path().join("package/other.py"));

        // What Python code imports is no import of the interpreter's; its file and what it imports in turn tell of it.
        let by_name = named(&process, "by_name");
        assert_eq!(by_name["inferred"], true);
        assert_eq!(
            named(&process, "zipapp")["parent"],
            named_at(&process, "by_name"),
            "{}",
            python.display()
        );
    }
}

#[test]
fn a_program_tells_its_environment_and_the_versions_it_runs() {
    let folder = folder();
    let venv = Venv::ensure().unwrap();
    let arguments = ["-c", "import dramatiq.brokers.rabbitmq"];
    let wanted = printed(&venv.python(), &arguments, folder.path());
    let (state, process, _) = seen(&venv.python(), &arguments, folder.path());
    assert_eq!(in_order_of_their_ends(&process), wanted);
    let interpreter = &process["interpreter"];
    assert_eq!(interpreter["prefix"].as_str(), venv.root().to_str());
    assert_ne!(interpreter["prefix"], interpreter["base_prefix"]);
    let found = state.events(&["distributions"]).unwrap();
    let versions: BTreeMap<&str, &str> = found
        .iter()
        .flat_map(|event| event.data["found"].as_array().unwrap())
        .map(|one| (one["name"].as_str().unwrap(), one["version"].as_str().unwrap()))
        .collect();
    assert_eq!((versions.get("dramatiq"), versions.get("pika")), (Some(&"2.2.1"), Some(&"1.4.4")));
}

#[test]
fn an_interpreter_nobody_expected_is_said_to_be_seen_late() {
    let folder = folder();
    // A copy that neither the command nor PATH names: the shell puts its name together.
    let debians = fs::canonicalize(venv::DEBIANS).unwrap();
    fs::copy(debians, folder.path().join("python3.11-of-mine")).unwrap();
    fs::write(folder.path().join("hidden"), "exec \"$D/python3.11-of\"\"-mine\" program.py\n").unwrap();
    let state = State::new().unwrap();
    let output = state
        .attach(&[], &["sh", "hidden"])
        .unwrap()
        .current_dir(folder.path())
        .env("D", folder.path())
        .env("PYTHONHOME", "/usr")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    let shown = state.show(&["--imports"]).unwrap();
    let process = shown["processes"].as_array().unwrap().last().unwrap();
    assert_eq!(process["interpreter"]["imports"], "late", "{}", process["interpreter"]);
    // Seen or inferred: it is there, with its file.
    let other = named(process, "package.other");
    assert_eq!(other["file"].as_str().map(PathBuf::from), Some(folder.path().join("package/other.py")));
}

#[test]
fn an_interpreter_that_is_not_understood_has_its_imports_inferred() {
    let Some(python) = venv::pyenv("3.8") else { return };
    let folder = folder();
    // The first run writes the bytecode.
    printed(&python, &["program.py"], folder.path());
    let (_state, process, path) = seen(&python, &["program.py"], folder.path());
    assert_eq!(process["interpreter"]["imports"], "inferred", "{}", process["interpreter"]);
    assert!(process["interpreter"]["why"].as_str().is_some_and(|why| why.contains("not known")));
    let own = ["package", "package.other", "package.inner", "by_name"];
    for name in own {
        let module = named(&process, name);
        assert_eq!((&module["inferred"], &module["total_ns"]), (&true.into(), &Value::Null), "{name}");
    }
    let path: Vec<&str> = path.lines().filter(|entry| Path::new(entry).is_dir()).collect();
    assert_eq!(process["search_path"], serde_json::json!(path));
    assert_eq!(
        (&process["search_path_inferred"], &process["search_path_complete"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn where_modules_come_from_is_told_and_what_they_hide() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path).display().to_string();
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let base = venv::interpreters().into_iter().next().unwrap();
    let made = Command::new(&base).args(["-m", "venv", "--without-pip", &at("env")]).status().unwrap();
    assert!(made.success());
    let site = fs::read_dir(folder.path().join("env/lib")).unwrap().next().unwrap().unwrap();
    let site = format!("env/lib/{}/site-packages", site.file_name().to_str().unwrap());
    put("one/spread/part.py", "");
    put("two/spread/other.py", "");
    put("one/twice.py", "");
    put("two/twice/__init__.py", "");
    put("zip/zipped.py", "import stringprep\n");
    put("app/colorsys.py", "");
    put("app/program.py", "import spread.part, spread.other, zipped, twice, colorsys, edited\n");
    put(&format!("{site}/more.pth"), &format!("{}\nimport from_a_line\n", at("edited/src")));
    put(&format!("{site}/from_a_line.py"), "");
    put(&format!("{site}/sitecustomize.py"), "");
    put(&format!("{site}/edited-0.3.dist-info/RECORD"), "more.pth,,\n");
    put(
        &format!("{site}/edited-0.3.dist-info/direct_url.json"),
        &format!("{{\"url\": \"file://{}\", \"dir_info\": {{\"editable\": true}}}}", at("edited")),
    );
    put("edited/src/edited/__init__.py", "");
    let zipped = Command::new(&base)
        .args(["-m", "zipfile", "-c", &at("lib.zip"), &at("zip/zipped.py")])
        .status()
        .unwrap();
    assert!(zipped.success());

    let python_path = [at("one"), at("lib.zip"), at("two")].join(":");
    let python = folder.path().join("env/bin/python");
    let (state, process, _) = seen_with(&python, &["app/program.py"], folder.path(), &python_path);
    let file = |name: &str| named(&process, name)["file"].as_str().unwrap_or_default().to_owned();
    assert_eq!(file("zipped"), at("lib.zip"));
    assert_eq!(file("twice"), at("one/twice.py"));
    assert_eq!(file("edited"), at("edited/src/edited/__init__.py"));
    assert_eq!(named(&process, "stringprep")["parent"], named_at(&process, "zipped"));
    let spread = named(&process, "spread");
    assert_eq!(
        (&spread["file"], &spread["portions"]),
        (&Value::Null, &serde_json::json!([at("one/spread"), at("two/spread")]))
    );
    assert_eq!(named(&process, "edited")["asker"], Value::Null, "the script itself is no import");

    assert_eq!(process["pth"], serde_json::json!([at(&format!("{site}/more.pth"))]));
    assert_eq!(process["customized"], serde_json::json!(["from_a_line", "sitecustomize"]));
    let hiding: Vec<(&str, &str, usize)> = process["shadows"]["hiding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["entry"].as_str().unwrap(),
                one["hidden"].as_array().unwrap().len(),
            )
        })
        .collect();
    assert_eq!(hiding, [("colorsys", at("app").as_str(), 1), ("twice", at("one").as_str(), 1)]);
    let found = state.events(&["distributions"]).unwrap();
    let edited = found.iter().flat_map(|event| event.data["found"].as_array().unwrap());
    let edited: Vec<_> = edited.map(|one| (one["name"].as_str(), one["editable"].as_str())).collect();
    assert_eq!(edited, [(Some("edited"), Some(at("edited").as_str()))]);
}
