//! `observer ls`: the sessions there are. Knows sessions' headers and endings, and none of their events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, ExitStatus, Format, print, printable};
use crate::{
    render::json,
    session::{Ending, Listed, State, Summary},
};

/// List the recorded sessions, the newest first.
///
/// A session is `recording`, `done`, or `cut short` when its observer was killed; what it recorded until then can be read. Sessions that
/// the service keeps for you are among them; with the rights for it (root, group `observer`) those of all users, with their owners.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer ls\n  observer ls --format json | jq -r '.sessions[] | select(.exit.code != 0) | .name'"
)]
pub struct Args {
    /// List no more than so many.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub limit: Option<usize>,
}

/// Prints the list.
///
/// # Errors
/// When the state directory cannot be read. A session that cannot be read is listed, with the reason.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let dir = context.open_state_dir()?;
    let mut sessions = dir.list()?;
    sessions.truncate(args.limit.unwrap_or(usize::MAX));
    print(&match context.format {
        Format::Json => json_of(&sessions)?,
        Format::Text if sessions.is_empty() => {
            let place = dir.path().to_string_lossy().into_owned();
            format!(
                "No sessions in {} yet. Record one:\n  observer attach -- python -m dramatiq MODULE\n",
                printable(&place)
            )
        }
        Format::Text => table(&sessions, Timestamp::now(), context.color),
    })?;
    Ok(ExitStatus::SUCCESS)
}

fn json_of(sessions: &[Listed]) -> serde_json::Result<String> {
    let sessions: Vec<Value> = sessions.iter().map(entry).collect();
    let document = json!({ "schema": "observer.ls/1", "sessions": sessions });
    json::pretty(&document)
}

fn entry(session: &Listed) -> Value {
    let mut entry = json!({
        "id": session.id, "name": session.name(), "path": session.path.to_string_lossy(), "size_bytes": session.size_bytes,
        "owner": session.owner,
    });
    let more = match &session.summary {
        Ok(Summary { header, ending, state }) => json!({
            "state": state,
            "command": header.command,
            "attached": header.attached,
            "backend": header.backend,
            "started_at": header.started_at,
            "duration_ns": ending.as_ref().map(|ending| ending.ended_ns.saturating_sub(header.started_ns)),
            "exit": ending.as_ref().map(|ending| json!({ "code": ending.code, "signal": ending.signal })),
            "reason": ending.as_ref().map(|ending| &ending.reason),
        }),
        Err(error) => json!({ "state": "unreadable", "error": error.to_string() }),
    };
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}

const COLUMNS: [&str; 8] = ["NAME", "STATE", "STARTED", "DURATION", "EXIT", "SIZE", "OWNER", "COMMAND"];
/// Shown when there are sessions of several.
const OWNER: usize = 6;

fn table(sessions: &[Listed], now: Timestamp, color: bool) -> String {
    let rows: Vec<[String; 8]> = sessions.iter().map(|session| row(session, now)).collect();
    let several = sessions.windows(2).any(|pair| pair[0].owner != pair[1].owner);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |cells: [&str; 8]| {
        let shown = (0..).zip(cells.iter().zip(widths)).filter(|(column, _)| several || *column != OWNER);
        let padded: Vec<String> = shown.map(|(_, (cell, width))| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(COLUMNS);
    for (row, session) in rows.iter().zip(sessions) {
        let cells = line(std::array::from_fn(|column| row[column].as_str()));
        let style = match session.summary.as_ref().map(|summary| summary.state) {
            Ok(State::Done) => anstyle::Style::new(),
            Ok(State::Recording) => anstyle::AnsiColor::Green.on_default(),
            Ok(State::CutShort) => anstyle::AnsiColor::Yellow.on_default(),
            Err(_) => anstyle::AnsiColor::Red.on_default(),
        };
        match color {
            true => text.push_str(&format!("{style}{}{style:#}\n", cells.trim_end())),
            false => text.push_str(&cells),
        }
    }
    text
}

/// The login name of a user; their number, when they have none any more.
fn user(uid: u32) -> String {
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| printable(&user.name))
}

fn row(session: &Listed, now: Timestamp) -> [String; 8] {
    let name = printable(session.name());
    let size = bytes(session.size_bytes);
    let none = || "-".to_owned();
    match &session.summary {
        Ok(Summary { header, ending, state }) => [
            name,
            state.to_string(),
            header.started_at.parse().map_or_else(|_| printable(&header.started_at), |at| ago(at, now)),
            ending
                .as_ref()
                .map_or_else(none, |ending| duration(ending.ended_ns.saturating_sub(header.started_ns))),
            ending.as_ref().map_or_else(none, exit),
            size,
            user(session.owner),
            printable(&header.command.join(" ")),
        ],
        Err(error) => {
            let why = printable(&error.to_string());
            [name, "unreadable".into(), none(), none(), none(), size, user(session.owner), why]
        }
    }
}

fn exit(ending: &Ending) -> String {
    match (ending.code, ending.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => nix::sys::signal::Signal::try_from(signal)
            .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned()),
        (None, None) => printable(&ending.reason),
    }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.as_second() - at.as_second() {
        // A clock that was set back, or another machine's.
        ..0 => at.strftime("%Y-%m-%d %H:%M").to_string(),
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h ago", seconds / 3_600),
        seconds @ 86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        _ => at.strftime("%Y-%m-%d").to_string(),
    }
}

fn duration(ns: u64) -> String {
    match ns / 1_000_000_000 {
        0 => format!("{} ms", ns / 1_000_000),
        seconds @ 1..60 => format!("{seconds}.{} s", ns / 100_000_000 % 10),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing;

    #[test]
    fn a_table_a_person_can_read() {
        let (_scratch, dir) = testing::state_dir();
        let mut header = testing::header("20260101-000000-0001", "minimal_worker");
        header.command = ["python", "-m", "dramatiq", "minimal_worker\u{1b}[31m"].map(String::from).to_vec();
        testing::record(&dir, header, vec![]).finish(Ending {
            ended_ns: testing::STARTED_NS + 12_300_000_000,
            code: None,
            signal: Some(15),
            reason: "exited".into(),
        });
        drop(testing::record(&dir, testing::header("20260101-000001-0001", "foo"), vec![]));
        std::fs::write(
            dir.path().join("old.sqlite"),
            "not a database at all, but long enough to be looked at",
        )
        .unwrap();
        let mut sessions = dir.list().unwrap();
        sessions.sort_by(|a, b| a.id.cmp(&b.id));
        for session in &mut sessions {
            session.size_bytes = 45_056;
        }
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let text = table(&sessions, now, false).replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text, @r"
        NAME            STATE       STARTED    DURATION  EXIT     SIZE    COMMAND
        minimal_worker  done        5 min ago  12.3 s    SIGTERM  44 KiB  python -m dramatiq minimal_worker\x1b[31m
        foo             cut short   5 min ago  -         -        44 KiB  python -m dramatiq foo
        old             unreadable  -          -         -        44 KiB  cannot read session DIR/old.sqlite: file is not a database; it was damaged or copied while it was being recorded (a session being recorded has a -wal file beside it that belongs to it)
        ");
    }

    #[test]
    fn whose_a_session_is_is_shown_when_they_are_of_several() {
        let (_scratch, dir) = testing::state_dir();
        for id in ["a", "b"] {
            drop(testing::record(&dir, testing::header(id, id), vec![]));
        }
        let mut sessions = dir.list().unwrap();
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert!(!table(&sessions, now, false).contains("OWNER"));
        // A number that no user has.
        sessions[0].owner = 3_999_999_999;
        let text = table(&sessions, now, false);
        let line = text.lines().nth(1).unwrap();
        assert!(
            text.contains("SIZE") && text.contains("OWNER") && line.contains("  3999999999  python"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&json_of(&sessions).unwrap()).unwrap();
        assert_eq!(json["sessions"][0]["owner"], 3_999_999_999_u32);
    }

    #[test]
    fn json_tells_every_session_once() {
        let (_scratch, dir) = testing::state_dir();
        let ending = Ending {
            ended_ns: testing::STARTED_NS + 5,
            code: Some(3),
            signal: None,
            reason: "exited".into(),
        };
        testing::record(&dir, testing::header("a", "one"), vec![]).finish(ending);
        std::fs::write(dir.path().join("b.sqlite"), "").unwrap();
        let text: Value = serde_json::from_str(&json_of(&dir.list().unwrap()).unwrap()).unwrap();
        assert_eq!(text["schema"], "observer.ls/1");
        let of =
            |id: &str| text["sessions"].as_array().unwrap().iter().find(|s| s["id"] == id).cloned().unwrap();
        assert_eq!(of("a")["exit"], json!({ "code": 3, "signal": null }));
        assert_eq!((&of("a")["state"], &of("a")["duration_ns"]), (&json!("done"), &json!(5)));
        assert_eq!(of("b")["state"], "unreadable");
        assert!(of("b")["error"].as_str().unwrap().contains("cannot read"), "{}", of("b")["error"]);
    }

    #[test]
    fn quantities_for_people() {
        assert_eq!(
            [0, 900, 2_048, 5 << 20, 3 << 30].map(bytes),
            ["0 B", "900 B", "2 KiB", "5.0 MiB", "3.0 GiB"]
        );
        let times = [5_000_000, 1_250_000_000, 61_000_000_000, 3_720_000_000_000].map(duration);
        assert_eq!(times, ["5 ms", "1.2 s", "1 min 1 s", "1 h 2 min"]);
        let at = |seconds| ago(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        assert_eq!([at(3), at(150), at(7_300), at(90_000)], ["3 s ago", "2 min ago", "2 h ago", "1 d ago"]);
        assert_eq!([at(-90), at(9_999_999)], ["1970-01-01 00:00", "1970-01-01"]);
    }
}
