//! No secret reaches the disk.

use super::{
    bodies,
    store::{ending, read},
};
use crate::{
    event::{Address, Body, Event, Exec, Fd, FileCall, FileLook, Known, OutputStream, Sender},
    session::{
        Filter, Redactor, Session,
        testing::{event, header, record, state_dir},
    },
};

fn redactor() -> Redactor {
    Redactor::with_key([7; 32])
}

fn exec(argv: &[&str], env: &[&str]) -> Event {
    let Some(Body::Exec(exec)) = bodies::all().into_iter().find(|body| body.kind() == "exec") else {
        panic!()
    };
    let words = |words: &[&str]| Known::Is(words.iter().map(|word| (*word).to_owned()).collect());
    event(1, Body::Exec(Box::new(Exec { argv: words(argv), env: words(env), ..*exec })))
}

fn output(text: &str) -> Event {
    let body = Body::Output {
        stream: OutputStream::Stderr,
        fd: Fd(2),
        inode: 1,
        len: text.len() as u64,
        piece_offset: 0,
        errno: 0,
    };
    Event { bytes: text.as_bytes().to_vec(), ..event(2, body) }
}

fn open(path: &str) -> Event {
    let Some(Body::Open(call)) = bodies::all().into_iter().find(|body| body.kind() == "open") else {
        panic!()
    };
    event(3, Body::Open(FileCall { path: Known::Is(path.into()), resolved: Known::Is(path.into()), ..call }))
}

/// What is left of an event's text, with the hashes cut out.
fn redacted(redactor: &mut Redactor, mut event: Event) -> String {
    redactor.redact_event(&mut event);
    let text = match event.body {
        Body::Exec(exec) => [exec.argv.get().unwrap().join(" "), exec.env.get().unwrap().join(" ")].join("|"),
        Body::Output { .. } => String::from_utf8(event.bytes).unwrap(),
        Body::Open(call) => call.path.get().unwrap().clone(),
        body => serde_json::to_string(&body).unwrap(),
    };
    let mut parts = text.split("«redacted:");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        assert!(part.chars().take(4).all(|c| c.is_ascii_hexdigit()), "{part}");
        text + "«" + part.get(4..).unwrap()
    })
}

#[test]
fn variables_and_arguments_that_name_secrets() {
    let argv = [
        "w",
        "--password",
        "pw1",
        "--token=tk1",
        "--no-password",
        "x",
        "-p",
        "2",
        "PGPASSWORD=pw2",
        "--auth-method",
        "md5",
    ];
    let env = [
        "DB_PASSWORD=pw3",
        "SSH_AUTH_SOCK=/run/a",
        "KEYBOARD=us",
        "SECRET=",
        "CREDENTIALS=/etc/k.json",
        "BROKER_URL=amqp://u:p#w@h/v",
        "X",
    ];
    assert_eq!(
        redacted(&mut redactor(), exec(&argv, &env)),
        "w --password «» --token=«» --no-password x -p 2 PGPASSWORD=«» --auth-method md5|\
         DB_PASSWORD=«» SSH_AUTH_SOCK=/run/a KEYBOARD=us SECRET= CREDENTIALS=/etc/k.json BROKER_URL=amqp://u:«»@h/v X"
    );
}

#[test]
fn the_same_secret_gives_the_same_mark_and_another_key_another() {
    let mark = |key, value: &str| {
        let mut event = exec(&[], &[&format!("TOKEN={value}")]);
        Redactor::with_key([key; 32]).redact_event(&mut event);
        let Body::Exec(exec) = event.body else { panic!() };
        exec.env.get().unwrap()[0].clone()
    };
    assert_eq!(mark(1, "alpha"), mark(1, "alpha"));
    assert_ne!(mark(1, "alpha"), mark(1, "beta"));
    assert_ne!(mark(1, "alpha"), mark(2, "alpha"));
    assert_eq!(mark(1, "alpha").chars().count(), "TOKEN=«redacted:3f9a»".chars().count());
}

#[test]
fn redacting_twice_changes_nothing() {
    let mut redactor = redactor();
    let mut once =
        exec(&["--password", "hunter22", "amqp://u:hunter22@h"], &["TOKEN=hunter22", "A=amqp://u:p%23ass@h"]);
    redactor.redact_event(&mut once);
    let mut twice = once.clone();
    redactor.redact_event(&mut twice);
    assert_eq!(once, twice);
}

#[test]
fn a_secret_seen_once_is_found_wherever_it_comes_again() {
    let mut redactor = redactor();
    let env = ["API_KEY=s3cr3t-key", "URL=amqp://shop:pa%23ss9word@h", "TOKEN=ab", "DB_PASSWORD=swordfish"];
    redacted(&mut redactor, exec(&[], &env));
    assert_eq!(redacted(&mut redactor, output("key s3cr3t-key, pa#ss9word, pa%23ss9word")), "key «», «», «»");
    assert_eq!(redacted(&mut redactor, output("tab, about")), "tab, about", "too short to look for");
    assert_eq!(redacted(&mut redactor, output("swordfish")), "«»");
    assert_eq!(redacted(&mut redactor, exec(&["x", "s3cr3t-key"], &["Y=1s3cr3t-key2"])), "x «»|Y=1«»2");
    assert_eq!(redacted(&mut redactor, open("/tmp/s3cr3t-key/x")), "/tmp/«»/x");
    assert_eq!(
        redacted(&mut redactor, open("/srv/swordfish/x.py")),
        "/srv/swordfish/x.py",
        "may be an ordinary word"
    );
}

#[test]
fn passwords_everybody_knows_do_not_blank_the_names_of_programs() {
    let mut redactor = redactor();
    let env = ["A=amqp://app:dramatiq@h", "B=amqp://shopuser:shopuser@h"];
    assert_eq!(redacted(&mut redactor, exec(&[], &env)), "|A=amqp://app:«»@h B=amqp://shopuser:«»@h");
    let line = "[dramatiq.MainProcess] [INFO] shopuser";
    assert_eq!(redacted(&mut redactor, output(line)), line);
}

#[test]
fn tracebacks_that_quote_parts_of_a_password() {
    let mut redactor = redactor();
    let text = "  broker = RabbitmqBroker(url='amqp://u:pa#ss@h')\nValueError: Port could not be cast to integer value as 'pa'\n";
    assert_eq!(
        redacted(&mut redactor, output(text)),
        "  broker = RabbitmqBroker(url='amqp://u:«»@h')\nValueError: Port could not be cast to integer value as '«»'\n"
    );
    assert_eq!(
        redacted(&mut redactor, output("connecting to amqp://u:half-of-i")),
        "connecting to amqp://u:«»"
    );
}

#[test]
fn output_without_secrets_is_not_copied() {
    let mut redactor = redactor();
    redacted(&mut redactor, exec(&[], &["TOKEN=s3cr3t-key"]));
    let mut event = output("ready: see https://example.org/ a=b\n");
    let (before, address) = (event.clone(), event.bytes.as_ptr());
    redactor.redact_event(&mut event);
    assert_eq!((event.bytes.as_ptr(), &event), (address, &before));
}

#[test]
fn other_places_where_strings_come_from_outside() {
    let mut redactor = redactor();
    redacted(&mut redactor, exec(&[], &["TOKEN=s3cr3t-key"]));
    let sender = Sender {
        pid: crate::event::Pid(1),
        name: "kill".into(),
        cmdline: Known::Is("psql --password s3 db".into()),
    };
    let signal = Body::Signal { signal: 1, code: 0, sender: Known::Is(sender), group: true, queued: true };
    assert!(redacted(&mut redactor, event(1, signal)).contains("\"psql --password «» db\""));
    let address = Known::Is(Address::Unix { path: "/run/s3cr3t-key".into() });
    let bind = Body::Bind { socket: crate::event::SocketId(1), fd: Fd(1), address, errno: 0 };
    assert!(redacted(&mut redactor, event(1, bind)).contains("/run/«»"));
    let note = Body::Note { level: crate::event::NoteLevel::Info, text: "at amqp://u:pw@h".into() };
    assert!(redacted(&mut redactor, event(1, note)).contains("amqp://u:«»@h"));
}

#[test]
fn nothing_of_a_secret_is_in_the_file() {
    let (_scratch, dir) = state_dir();
    let mut head = header("a", "one");
    head.command.push("--password=hunter22".into());
    // A stream that opens like nothing known: it may be the middle of a secret, so all of it is blanked.
    let mut data = event(4, bodies::all().into_iter().find(|body| body.kind() == "data").unwrap());
    data.bytes = b"hunter22".to_vec();
    let mut recorder = record(&dir, head, vec![]);
    recorder.append(
        vec![
            exec(&["x", "--password", "hunter22"], &["U=amqp://u:hunter22@h"]),
            output("it is hunter22\n"),
            open("/home/hunter22"),
            data,
        ],
        None,
    );
    let path = recorder.path().to_owned();
    recorder.finish(ending());
    let file = std::fs::read(&path).unwrap();
    assert_eq!(memchr::memmem::find(&file, b"hunter22"), None);
    let session = Session::open(&path).unwrap();
    let (_, data) = read(&session, &Filter { kinds: vec!["data".into()], ..Filter::default() }).remove(0);
    assert_eq!(data.bytes, b"********");
    assert!(matches!(data.body, Body::Data { redacted, .. } if redacted.contains(&(8, 16))));
}

#[test]
fn the_key_is_made_once_for_a_directory() {
    let (_scratch, dir) = state_dir();
    let makers: Vec<_> = (0..8)
        .map(|_| {
            let dir = dir.clone();
            std::thread::spawn(move || {
                let mut event = exec(&[], &["TOKEN=x"]);
                Redactor::open(&dir).unwrap().redact_event(&mut event);
                format!("{:?}", event.body)
            })
        })
        .collect();
    let marks: std::collections::HashSet<String> =
        makers.into_iter().map(|maker| maker.join().unwrap()).collect();
    assert_eq!(marks.len(), 1);
    assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing else is left");
}

#[test]
fn the_command_line_of_a_rival_keeps_no_secret() {
    let Some(Body::BrokerConnection(mut rival)) =
        bodies::all().into_iter().find(|body| body.kind() == "broker-connection")
    else {
        panic!()
    };
    rival.local_command =
        Some(["rival.py", "--password", "hunter2", "amqp://shop:s3cr3t-x@h/"].map(str::to_owned).to_vec());
    let mut event = event(1, Body::BrokerConnection(rival));
    redactor().redact_event(&mut event);
    let text = format!("{event:?}");
    assert!(text.contains("rival.py") && text.contains("«redacted:"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("s3cr3t-x"), "{text}");
}

#[test]
fn of_a_text_that_was_read_only_a_keyed_hash_is_kept() {
    let kept = |key: u8, content: &str| {
        let look = FileLook { path: "/srv/app/.env".into(), len_bytes: 9, ..FileLook::default() };
        let mut event = event(1, Body::FileLook(look));
        event.bytes = content.as_bytes().to_vec();
        Redactor::with_key([key; 32]).redact_event(&mut event);
        assert!(event.bytes.is_empty());
        match event.body {
            Body::FileLook(look) => look.digest.expect("there was content"),
            _ => unreachable!("it stays what it is"),
        }
    };
    assert_eq!(kept(1, "KEY=value"), kept(1, "KEY=value"));
    assert_ne!(kept(1, "KEY=value"), kept(1, "KEY=valve"));
    assert_ne!(kept(1, "KEY=value"), kept(2, "KEY=value"));
    assert!(!kept(1, "KEY=value").contains("value"));
}
