//! `observer manual`: writes the manual pages and the completion scripts, for a package. Knows the command line's definition, and nothing of
//! what the verbs do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap_mangen::Man;

use super::ExitStatus;

/// Write the manual pages and the completion scripts into a folder, for a package.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder; it is created when it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What a shell loads when `observer` is completed for the first time: by file name, as its package expects it. The script that does the work
/// comes from the program itself, so the two cannot be of different versions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("observer.bash", "source <(COMPLETE=bash observer)\n"),
    // The file is the body of the function that completes, the first time.
    (
        "_observer",
        "#compdef observer\nsource <(COMPLETE=zsh observer)\n_clap_dynamic_completer_observer \"$@\"\n",
    ),
    ("observer.fish", "COMPLETE=fish observer | source\n"),
];

/// Writes `DIR/man/*.1`, a page a verb, and `DIR/completions/*`.
///
/// # Errors
/// When a folder or a file cannot be written.
pub fn run(args: &Args, command: clap::Command) -> anyhow::Result<ExitStatus> {
    let (man, completions) = (args.dir.join("man"), args.dir.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Else every page lists `help`, and there is a page for each verb's.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, &man)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        page(verb, &man)?;
    }
    for (name, script) in COMPLETIONS {
        write(&completions.join(name), script.as_bytes())?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn page(command: &clap::Command, folder: &Path) -> anyhow::Result<()> {
    let man = Man::new(command.clone()).manual("observer");
    let mut text = Vec::new();
    man.render(&mut text).context("cannot render a manual page")?;
    write(&folder.join(man.get_filename()), &text)
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    #[test]
    fn a_page_for_each_verb_but_the_hidden_ones_and_a_script_for_each_shell() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("new");
        let verbs = [
            Command::new("look").about("Look on").arg(Arg::new("what").help("At what")),
            Command::new("dark").hide(true),
        ];
        run(&Args { dir: dir.clone() }, Command::new("observer").subcommands(verbs)).unwrap();
        let names = |folder: &str| {
            let mut names: Vec<_> = dir
                .join(folder)
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("man"), ["observer-look.1", "observer.1"]);
        assert_eq!(names("completions"), ["_observer", "observer.bash", "observer.fish"]);
        let page = fs::read_to_string(dir.join("man/observer-look.1")).unwrap();
        assert!(page.contains("Look on") && page.contains("At what"), "{page}");
        assert!(page.contains("observer look") || page.contains("observer\\-look"), "{page}");
    }
}
