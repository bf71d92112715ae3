//! `observer rm`: removes sessions. Knows the state directory only.

use serde_json::json;

use super::{Context, ExitStatus, Format, print, printable};
use crate::session::Listed;

/// Remove recorded sessions.
///
/// Each is given by its name, its id or the beginning of one, or `@` for the newest. When one of them is unknown or is being recorded,
/// nothing is removed.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer rm minimal_worker\n  observer rm minimal_worker-2 20261123-161500-3f9a"
)]
pub struct Args {
    /// The sessions: names, ids, or `@`.
    #[arg(required = true, value_name = "SESSION")]
    pub sessions: Vec<String>,
    /// Remove even what is being recorded now; its recorder goes on, for nothing.
    #[arg(short, long)]
    pub force: bool,
}

/// Removes them and says which.
///
/// # Errors
/// When one is not known, is being recorded, or cannot be removed.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let dir = context.open_state_dir()?;
    let mut wanted: Vec<Listed> = Vec::new();
    for name in &args.sessions {
        let session = dir.find_listed(name)?;
        if !args.force {
            dir.check_idle(&session)?;
        }
        if !wanted.iter().any(|other| other.path == session.path) {
            wanted.push(session);
        }
    }
    for session in &wanted {
        dir.remove(session, args.force)?;
    }
    let removed = wanted.iter();
    print(&match context.format {
        Format::Text => removed
            .map(|one| format!("removed {} ({})\n", printable(one.name()), printable(&one.id)))
            .collect(),
        Format::Json => {
            let removed: Vec<_> = removed.map(|one| json!({ "id": one.id, "name": one.name() })).collect();
            serde_json::to_string_pretty(&json!({ "schema": "observer.rm/1", "removed": removed }))? + "\n"
        }
    })?;
    Ok(ExitStatus::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{StateDir, testing};

    fn rm(dir: &StateDir, sessions: &[&str], force: bool) -> anyhow::Result<ExitStatus> {
        let context = Context { state_dir: Some(dir.path().to_owned()), ..Context::default() };
        run(&Args { sessions: sessions.iter().map(|name| (*name).to_owned()).collect(), force }, &context)
    }

    fn files(dir: &StateDir) -> usize {
        dir.path().read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "key").count()
    }

    #[test]
    fn what_sqlite_keeps_beside_a_session_goes_with_it() {
        let (_scratch, dir) = testing::state_dir();
        let (wal, path) = {
            let recorder = testing::record(&dir, testing::header("a", "one"), vec![]);
            let path = recorder.path().to_owned();
            (std::fs::read(format!("{}-wal", path.display())).unwrap(), path)
        };
        // As SIGKILL leaves it.
        std::fs::write(format!("{}-wal", path.display()), wal).unwrap();
        assert!(files(&dir) >= 3);
        rm(&dir, &["one"], false).unwrap();
        assert_eq!(files(&dir), 0);
    }

    #[test]
    fn what_is_being_recorded_stays_and_so_does_everything_else_that_was_named() {
        let (_scratch, dir) = testing::state_dir();
        drop(testing::record(&dir, testing::header("a", "one"), vec![]));
        let recorder = testing::record(&dir, testing::header("b", "two"), vec![]);
        let error = rm(&dir, &["one", "two"], false).unwrap_err().to_string();
        assert!(error.contains("`two` is being recorded now"), "{error}");
        assert_eq!(dir.list().unwrap().len(), 2);
        rm(&dir, &["one", "two"], true).unwrap();
        assert_eq!(dir.list().unwrap().len(), 0);
        drop(recorder);
    }

    #[test]
    fn a_path_is_not_a_session_to_remove() {
        let (_scratch, dir) = testing::state_dir();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        assert!(rm(&dir, &[precious.to_str().unwrap()], true).is_err());
        assert!(precious.exists());
    }
}
