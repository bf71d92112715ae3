//! `observer explain`: why messages are not consumed, from a session alone. Knows sessions and rendering; what is concluded is
//! `diagnose`'s.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;

use super::{Context, ExitStatus, Format, print, progress, show};
use crate::{
    diagnose::{
        self, Explanation,
        case::Case,
        catalogue::{Code, Entry},
    },
    fold,
    render::{explain, json},
    session::{Filter, Session},
};

/// Says why messages are not consumed: the cause, what proves it, and what to do next.
///
/// The answer comes from the session alone, the same every time. Without a session it is the newest one's.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer explain @\n  observer explain tuesday -v\n  observer explain @ --format json | jq -r .verdict.code\n  observer explain @ --check || alert\n  observer explain --list\n\nExit status with --check: 0 when the verdict is healthy, idle or stopped; 2 when it cannot be told; 1 otherwise."
)]
pub struct Args {
    /// The session's name or id; `@` is the newest
    #[arg(default_value = "@")]
    pub session: String,
    /// Exit with 0 when all is well, 1 when not, 2 when it cannot be told
    #[arg(long)]
    pub check: bool,
    /// List everything that can be concluded, and how it looks from outside
    #[arg(long, conflicts_with_all = ["check"])]
    pub list: bool,
}

/// Explains a session.
///
/// # Errors
/// When there is no such session, or it cannot be read.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    if args.list {
        return list(context);
    }
    let session = Session::open(&context.open_state_dir()?.find(&args.session)?)?;
    let ending = session.ending();
    let model =
        progress::while_slow("reading the session", || fold::fold(&session, &Filter::default(), None))?;
    let case = Case::new(session.header(), ending.as_ref(), &model);
    let explanation = diagnose::explain(&case);
    match context.format {
        Format::Json => print(&json::pretty(&explain::document(&case, &explanation))?)?,
        Format::Text => {
            let colors = if context.color { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
            let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colors));
            let written = explain::write(&mut out, &case, &explanation, show::columns(), context.verbose > 0)
                .and_then(|()| out.flush());
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result.context("cannot print")?,
            }
        }
    }
    Ok(if args.check { status(&explanation) } else { ExitStatus::SUCCESS })
}

fn status(explanation: &Explanation) -> ExitStatus {
    match explanation.verdict.code {
        Code::Healthy | Code::Idle | Code::Stopped => ExitStatus::SUCCESS,
        Code::Undetermined => ExitStatus(2),
        _ => ExitStatus::FAILURE,
    }
}

fn list(context: &Context) -> anyhow::Result<ExitStatus> {
    match context.format {
        Format::Json => {
            let entries: Vec<_> = Code::ALL.iter().map(|code| described(*code)).collect();
            let document = serde_json::json!({"schema": "observer.codes/1", "codes": entries});
            print(&json::pretty(&document)?)?;
        }
        Format::Text => print(&reference())?,
    }
    Ok(ExitStatus::SUCCESS)
}

fn described(code: Code) -> serde_json::Value {
    let Entry { name, rung, severity, title, seen, remedy, causes, .. } = code.entry();
    let causes: Vec<_> =
        causes.iter().map(|(name, meaning)| serde_json::json!({"cause": name, "meaning": meaning})).collect();
    serde_json::json!({
        "code": name, "rung": rung, "severity": severity, "title": title, "seen": seen, "remedy": remedy, "causes": causes,
    })
}

/// The catalogue as a page of Markdown, which is readable as it is.
pub fn reference() -> String {
    let mut page = String::from("# What `observer explain` can conclude\n");
    for code in Code::ALL {
        let Entry { name, rung, severity, title, seen, remedy, causes, .. } = code.entry();
        let severity = format!("{severity:?}").to_lowercase();
        page.push_str(&format!(
            "\n## `{name}`\n\n{title} ({severity}, rung {})\n\n- seen: {seen}\n",
            rung.name()
        ));
        for (cause, meaning) in *causes {
            page.push_str(&format!("- cause `{cause}`: {meaning}\n"));
        }
        page.push_str(&format!("- next: {remedy}\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_catalogue_is_the_catalogue() {
        let page = include_str!("../../CODES.md");
        assert!(
            page == reference(),
            "make it anew: cargo run -p observer -- explain --list >observer/CODES.md"
        );
    }
}
