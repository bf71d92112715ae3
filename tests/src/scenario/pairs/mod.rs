//! Pairs: one worker recorded twice, once working and once failing, with one planted difference among dozens of innocent ones. Holds
//! what `observer diff` ranks and `observer bisect` proves against what was planted. It draws no conclusion of its own.

pub mod file;
mod noise;
mod table;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::file::{Bisect, Pair, Planted};
pub use self::table::Totals;
use super::file::Scenario;
use super::judge::Outcome;
use super::place::Place;
use super::run::{self, Lab};
use super::{processes, python};
use crate::rabbit::Broker;

/// Sessions of the two sides.
const SIDES: [&str; 2] = ["monday", "tuesday"];

/// What came of a pair.
enum Done {
    Compared(Compared),
    /// It could not be run to the end.
    Broken(String),
    /// This machine cannot produce it.
    NotHere(String),
}

/// What was said of a pair.
struct Compared {
    /// The place of what was planted, from 1; of several that stand together at the head, 1.
    rank: Option<usize>,
    /// What bisect came to; an error when it is not what it must come to. `None`: it was not asked.
    bisected: Option<Result<String, String>>,
    runs: usize,
    /// For people who look into it.
    left: Option<PathBuf>,
    /// What diff ranked first.
    head: Vec<String>,
}

impl Compared {
    fn is_bisected_rightly(&self) -> bool {
        self.bisected.as_ref().is_none_or(Result::is_ok)
    }

    fn is_first_and_right(&self) -> bool {
        self.rank == Some(1) && self.is_bisected_rightly()
    }
}

/// What is to be run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Only pairs whose name matches one of these; all when there is none.
    pub patterns: &'a [String],
    /// How many at once.
    pub jobs: usize,
    /// Whether what can be toggled is bisected; otherwise pairs are only compared.
    pub bisect: bool,
    /// The observer.
    pub program: &'a Path,
}

/// Runs the pairs. Prints a line for each as it is done, and at the end what is to be looked at.
///
/// # Errors
/// When they could not be run. What is not right is in the totals.
pub fn run(options: &Options<'_>) -> Result<Totals> {
    let Options { patterns, jobs, bisect, program } = *options;
    let mut pairs = file::chosen(patterns)?;
    // Those that take the most runs first: nobody waits for them at the end.
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.about.expect.len()));
    if pairs.is_empty() {
        bail!("no pair is called like {}: see {}", patterns.join(", "), file::folder().display());
    }
    // Made one after the other, and not while somebody's patience is being measured.
    for side in pairs.iter().flat_map(|pair| [&pair.working, &pair.failing]) {
        if python::interpreter(side).is_ok() {
            python::venv(side)?;
        }
    }
    eprintln!("start a private RabbitMQ; run {} pairs, {jobs} at once", pairs.len());
    let shared = Broker::start_with(&run::PLUGINS, run::CONFIG)?;
    let lab = Lab { program, backend: "auto", keep: None, shared: &shared };
    let queue = Mutex::new(VecDeque::from(pairs));
    let told = Mutex::new((Totals::default(), Vec::new()));
    table::heading();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(pair) = next() {
                    let begun = Instant::now();
                    let done = done(&pair, &lab, bisect);
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.0.add(&done);
                    told.1.extend(odd(&pair, &done));
                    table::line(&pair.name, &names(&pair.about.expect), &done, begun.elapsed().as_secs_f64());
                }
            });
        }
    });
    let (totals, odd) = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    for odd in odd {
        println!("\n{odd}");
    }
    println!("\n{totals}");
    Ok(totals)
}

fn names(planted: &[Planted]) -> String {
    planted.iter().map(|one| format!("{} {}", one.kind, one.key)).collect::<Vec<_>>().join(" + ")
}

/// What is to be looked at.
fn odd(pair: &Pair, done: &Done) -> Option<String> {
    let what = &pair.working.what;
    match done {
        Done::NotHere(_) => None,
        Done::Broken(why) => {
            Some(format!("BROKEN: {}\n  {what}\n  {}", pair.name, why.replace('\n', "\n  ")))
        }
        Done::Compared(compared) => {
            if compared.is_first_and_right() {
                return None;
            }
            let bisected = compared.bisected.as_ref().and_then(|bisected| bisected.as_ref().err());
            let mut text = format!("{}\n  {what}\n  diff: {}", pair.name, compared.head.join("\n        "));
            if let Some(why) = bisected {
                text.push_str(&format!("\n  bisect: {}", why.replace('\n', "\n          ")));
            }
            if let Some(left) = &compared.left {
                text.push_str(&format!(
                    "\n  look: observer --state-dir {}/state diff {} {}",
                    left.display(),
                    SIDES[0],
                    SIDES[1]
                ));
            }
            Some(text)
        }
    }
}

fn done(pair: &Pair, lab: &Lab<'_>, bisect: bool) -> Done {
    if let Some(why) = [&pair.working, &pair.failing].into_iter().find_map(run::not_here) {
        return Done::NotHere(why);
    }
    compared(pair, lab, bisect).map_or_else(|error| Done::Broken(format!("{error:#}")), Done::Compared)
}

/// Makes the pair's place, and clears away what it leaves.
fn compared(pair: &Pair, lab: &Lab<'_>, bisect: bool) -> Result<Compared> {
    let mut place = Place::make(&pair.working, lab.shared, &python::venv(&pair.working)?)?;
    place.values.insert("folder".to_owned(), place.folder().display().to_string());
    for name in ["tmp-k3", "tmp-w8"] {
        fs::create_dir(place.path(name))?;
        fs::set_permissions(place.path(name), Permissions::from_mode(0o777))?;
    }
    let compared = in_place(pair, lab, &mut place, bisect);
    processes::end(&processes::in_folder(place.folder()));
    place.close_vhost();
    let left = (!compared.as_ref().is_ok_and(Compared::is_first_and_right)).then(|| place.keep());
    let look = || left.as_ref().map(|left| format!("look: observer --state-dir {}/state ls", left.display()));
    let compared = compared.with_context(|| look().unwrap_or_default())?;
    Ok(Compared { left, ..compared })
}

fn in_place(pair: &Pair, lab: &Lab<'_>, place: &mut Place, bisect: bool) -> Result<Compared> {
    for (side, name) in [&pair.working, &pair.failing].into_iter().zip(SIDES) {
        place.next_session(name);
        record(side, lab, place).with_context(|| format!("session {name}"))?;
    }
    let (_, diff) = observer(lab, place, &["diff", SIDES[0], SIDES[1]])?;
    let differences = diff["differences"].as_array().cloned().unwrap_or_default();
    let planted = filled(&pair.about.expect, place);
    let rank_of =
        |one: &Planted| differences.iter().position(|found| is(found, one)).map(|position| position + 1);
    let ranks: Option<Vec<usize>> = planted.iter().map(rank_of).collect();
    let rank = ranks.and_then(|ranks| Some(ranks.iter().max()? + 1 - ranks.len()));
    let head = differences.iter().take(6).map(said).collect();
    let (runs, bisected) = match bisect {
        true => self::bisect(pair, lab, place).map(|(runs, bisected)| (runs, Some(bisected)))?,
        false => (0, None),
    };
    Ok(Compared { rank, bisected, runs, left: None, head })
}

/// Records one side, which must come to what it says it comes to.
fn record(side: &Scenario, lab: &Lab<'_>, place: &mut Place) -> Result<()> {
    // What the other side has and this one has not must not lie there.
    fs::remove_dir_all(place.scene())?;
    fs::create_dir(place.scene())?;
    fs::set_permissions(place.scene(), Permissions::from_mode(0o777))?;
    // A handshake on what is printed must not be met by what the other side printed.
    for name in ["log/stdout", "log/stderr"] {
        let _ = fs::remove_file(place.path(name));
    }
    place.use_venv(&python::venv(side)?);
    place.furnish(side)?;
    let judgement = run::play(side, lab, place, None);
    processes::end(&processes::in_folder(place.folder()));
    let judgement = judgement.with_context(|| run::logs(place))?;
    if judgement.outcome != Outcome::Right {
        bail!("{}: {}", judgement.concluded, judgement.objections.join("; "));
    }
    Ok(())
}

/// Runs the bisection, and holds what it came to against what it must come to.
fn bisect(pair: &Pair, lab: &Lab<'_>, place: &Place) -> Result<(usize, Result<String, String>)> {
    let options = shlex::split(&place.filled(&pair.about.options)).context("cannot split `options`")?;
    let (broker, management) = (place.filled("{amqp_url}"), place.filled("{management_url}"));
    let mut words = vec!["bisect", SIDES[0], SIDES[1], "--broker", &broker, "--management", &management];
    words.extend(options.iter().map(String::as_str));
    let (succeeded, report) = observer(lab, place, &words)?;
    let runs = report["runs"].as_array().map_or(0, Vec::len);
    let proved = report["proved"] == true;
    let found = report["minimal"].as_array().cloned().unwrap_or_default();
    let why = report["why"].as_str().unwrap_or_default();
    let left_out: Vec<&str> =
        report["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let expected = filled(pair.about.proves.as_ref().unwrap_or(&pair.about.expect), place);
    let same = |set: &[Value]| {
        set.len() == expected.len() && expected.iter().all(|one| set.iter().any(|found| is(found, one)))
    };
    let names_it =
        |one: &Planted| left_out.iter().any(|text| text.contains(&format!("{} {}:", one.kind, one.key)));
    let (fine, said_short) = match pair.about.bisect {
        Bisect::Proved => (proved && succeeded && same(&found), "proved"),
        Bisect::LeftOut => (!proved && !succeeded && expected.iter().all(names_it), "left out, and said so"),
        Bisect::Unproved => (!proved && !succeeded && runs > 0, "cannot prove, and says so"),
    };
    if fine {
        return Ok((runs, Ok(said_short.to_owned())));
    }
    let mut text = format!("{}: ", if proved { "PROVED" } else { "not proved" });
    text.push_str(
        &found.iter().map(|one| format!("{} {}", one["kind"], one["key"])).collect::<Vec<_>>().join(" + "),
    );
    text.push_str(&format!("\n{why}\nleft out: {}", left_out.join("; ")));
    for run in report["runs"].as_array().into_iter().flatten() {
        text.push_str(&format!("\n{run}"));
    }
    Ok((runs, Err(text)))
}

/// Asks the observer for a document. A secret that sessions hold only as a mark stands in its environment, as `bisect` asks for.
fn observer(lab: &Lab<'_>, place: &Place, words: &[&str]) -> Result<(bool, Value)> {
    let output = Command::new(lab.program)
        .arg("--state-dir")
        .arg(place.path("state"))
        .args(words)
        .args(["--format", "json"])
        .env("SHOP_URL", place.filled("{amqp_url}"))
        .stdin(Stdio::null())
        .output()
        .context("cannot run the observer")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}: {}", words.join(" "), output.status, said.trim()))?;
    Ok((output.status.success(), document))
}

fn filled(planted: &[Planted], place: &Place) -> BTreeSet<Planted> {
    planted.iter().map(|one| Planted { kind: one.kind.clone(), key: place.filled(&one.key) }).collect()
}

fn is(found: &Value, planted: &Planted) -> bool {
    found["kind"] == *planted.kind && found["key"] == *planted.key
}

fn said(found: &Value) -> String {
    let text = |name: &str| found[name].as_str().unwrap_or("-").to_owned();
    format!("{} {}: {} | {} ({})", text("kind"), text("key"), text("working"), text("failing"), text("why"))
}
