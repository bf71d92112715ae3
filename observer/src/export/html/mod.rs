//! A session as one self-contained page. Knows sessions, the model and what was concluded of it; what is where on the page is written down
//! in `schema/html.txt`. It loads nothing from anywhere, and is to be read without its script too.

mod bounded;
mod conclusion;
mod depths;
mod differences;
mod events;
mod flame;
mod given;
mod latency;
mod messages;
mod scale;
mod talk;
mod text;
mod timeline;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    ops::ControlFlow,
};

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rust_embed::{EmbeddedFile, RustEmbed};
use serde::Serialize;
use text::Text;

use super::{ExportError, Progress, facts, unseen};
use crate::{
    compare::{Comparison, run::Run},
    diagnose::{self, case::Case},
    event::{Body, NoteLevel},
    fold,
    model::Model,
    render::json,
    session::{Filter, Session},
    words::{self, units},
};

const SCHEMA: &str = "observer.html/1";

#[derive(RustEmbed)]
#[folder = "src/export/html/assets"]
struct Assets;

/// Writes a session as a page. `against` is a run that works, and what differs from it.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn write(
    session: &Session,
    against: Option<(&Run, &Comparison)>,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<(), ExportError> {
    let header = session.header();
    let started_ns = header.started_ns;
    let mut model = Model::with_lives(started_ns);
    let mut choice = events::Choice::new();
    let mut listener = talk::Listener::new(started_ns);
    let mut watcher = messages::Watcher::new(started_ns);
    let mut gauge = depths::Gauge::new(started_ns);
    let not_understood = fold::read_ahead(session, &Filter::default(), |id, event| {
        progress.one();
        choice.take(id, &event);
        model.add_and_tell(id, &event, &mut |said| listener.hear(said));
        model.amqp.lives.take_done().for_each(|life| watcher.take(&life));
        match &event.body {
            Body::QueueSample(sample) if !sample.ours => gauge.take(event.at_ns, sample),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    model.finish_and_tell(&mut |said| listener.hear(said));
    model.amqp.lives.take_done().for_each(|life| watcher.take(&life));

    let ending = session.ending();
    let case = Case::new(header, ending.as_ref(), &model);
    let explanation = diagnose::explain(&case);
    let proofs = conclusion::events(&case, &explanation);
    let seen = choice.seen;
    let wanted = choice.ids(proofs.iter().copied().chain(listener.events()).collect());
    let mut shown = events::read(session, &wanted)?;
    let evidence: BTreeSet<u64> =
        explanation.findings.iter().flat_map(|one| &one.evidence).map(|one| one.event).collect();
    shown.iter_mut().for_each(|event| event.proves = evidence.contains(&event.id));
    let there: BTreeSet<u64> = shown.iter().map(|event| event.id).collect();
    let scale = timeline::scale(&case, &shown);
    let talk = listener.finish(&model, &there);
    let mut said = talk.by_event();
    for event in &mut shown {
        if let Some(said) = said.remove(&event.id) {
            event.text = said;
        }
    }
    let (style, script) = (asset("page.css")?, asset("page.js")?);
    let told = Facts {
        schema: SCHEMA,
        session: &header.id,
        verdict: explanation.verdict.code.name(),
        from: scale.from,
        until: scale.until,
    };
    let page = Page {
        schema: SCHEMA,
        style_hash: STANDARD.encode(style.metadata.sha256_hash()),
        script_hash: STANDARD.encode(script.metadata.sha256_hash()),
        style: &String::from_utf8_lossy(&style.data),
        script: &String::from_utf8_lossy(&script.data),
        facts: in_script(&told)?,
        name: Text::of(&header.name),
        shell_name: Text::of(words::command(std::slice::from_ref(&header.name))),
        verdict: conclusion::of(&case, &explanation, &there),
        timeline: timeline::of(&case, &explanation, &shown, scale),
        talk,
        messages: watcher.finish(&model.amqp.lives.totals),
        depths: gauge.finish(scale),
        flames: flame::of(&case, |event| there.contains(&event)),
        given: given::of(&case),
        against: against.map(|(working, comparison)| differences::of(working, comparison)),
        session: about(&case),
        losses: losses(&case, not_understood),
        unseen: unseen(header).map(Text::of).collect(),
        left_out: seen.saturating_sub(shown.len() as u64),
        seen,
        there,
        shown,
    };
    // The page is laid out in pieces of a few bytes; what is behind `out` collects them.
    page.write_into(out)?;
    Ok(())
}

/// What the script is told.
#[derive(Serialize)]
struct Facts<'a> {
    schema: &'static str,
    session: &'a str,
    verdict: &'static str,
    from: f64,
    until: f64,
}

/// A value as JSON that may stand in a script element: nothing in it ends the element, or is a line end to the script.
fn in_script(value: &impl Serialize) -> io::Result<String> {
    let mut bytes = Vec::new();
    // Escapes U+2028 and U+2029 already, with everything else that cannot be seen.
    json::write(&mut bytes, value)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

fn asset(name: &str) -> io::Result<EmbeddedFile> {
    Assets::get(name).ok_or_else(|| io::Error::other(format!("{name} was not built into this program")))
}

/// The page.
#[derive(Template)]
#[template(path = "html/page.html")]
struct Page<'a> {
    schema: &'static str,
    style_hash: String,
    script_hash: String,
    style: &'a str,
    script: &'a str,
    facts: String,
    name: Text,
    /// As a shell takes it.
    shell_name: Text,
    verdict: conclusion::Conclusion,
    timeline: timeline::Timeline,
    talk: talk::Talk,
    messages: messages::Messages,
    depths: depths::Depths,
    flames: flame::Flames,
    given: given::Given,
    against: Option<differences::Differences>,
    session: Vec<(&'static str, Text)>,
    losses: Vec<Text>,
    unseen: Vec<Text>,
    seen: u64,
    left_out: u64,
    there: BTreeSet<u64>,
    shown: Vec<events::Shown>,
}

impl Page<'_> {
    /// Whether an event is on the page.
    fn has(&self, event: &Option<u64>) -> bool {
        event.is_some_and(|event| self.there.contains(&event))
    }
}

fn about(case: &Case<'_>) -> Vec<(&'static str, Text)> {
    let name = ("name", case.header.name.clone());
    let kept = ("bytes kept of a call", case.header.snaplen.to_string());
    let facts = [name].into_iter().chain(facts(case)).chain([kept]);
    facts.map(|(name, value)| (name, Text::of(value))).collect()
}

fn losses(case: &Case<'_>, not_understood: u64) -> Vec<Text> {
    let troubles = &case.model.troubles;
    let mut lines = match troubles.lost() {
        0 => vec![Text::of("no event was lost")],
        lost => vec![Text::of(format!("{} lost", units::counted(lost, "event")))],
    };
    lines.extend(troubles.losses().into_iter().map(|(hop, what, count)| {
        Text::of(format!("{count} of {what} at the {}", crate::render::timeline::hop_text(hop)))
    }));
    if not_understood > 0 {
        let count = units::counted(not_understood, "event");
        lines.push(Text::of(format!("{count} of kinds that a newer observer recorded are not understood")));
    }
    let notes = troubles.notes().iter().filter(|(level, _, _)| *level != NoteLevel::Info);
    lines.extend(notes.map(|(_, text, count)| {
        Text::of(if *count > 1 { format!("{text} (×{count})") } else { text.clone() })
    }));
    lines
}

#[cfg(test)]
mod tests;
