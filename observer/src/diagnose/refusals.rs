//! What a broker refused, put together by process and particulars. Shared by the families that read reply codes; concludes nothing.

use super::{case::Case, finding::Evidence};
use crate::{
    event::Pid,
    model::{amqp::Closing, link::Link},
    words::units,
};

/// One kind of refusal of one process: all closings that say the same.
pub(super) struct Refusal<'a> {
    /// The process.
    pub(super) pid: Pid,
    /// The first.
    pub(super) first: &'a Closing,
    /// The last.
    pub(super) last: &'a Closing,
    /// How many.
    pub(super) count: u64,
    /// The connection of the last.
    pub(super) link: &'a Link,
}

/// Closings by the server that are so, the same texts of one process together, in order of time.
pub(super) fn refusals<'a>(case: &'a Case<'_>, is_so: impl Fn(&Closing, &Link) -> bool) -> Vec<Refusal<'a>> {
    let mut found: Vec<Refusal<'a>> = Vec::new();
    for closing in &case.model.amqp.closings {
        let Some(link) = case.model.amqp.link(closing.link) else { continue };
        // Seen from the broker's own process it is no refusal of ours.
        if link.accepted || !is_so(closing, link) {
            continue;
        }
        let pid = link.opened.pid;
        let same = |known: &&mut Refusal<'a>| {
            known.pid == pid && known.last.text == closing.text && known.last.cause == closing.cause
        };
        match found.iter_mut().find(same) {
            Some(known) => (known.last, known.link, known.count) = (closing, link, known.count + 1),
            None => found.push(Refusal { pid, first: closing, last: closing, count: 1, link }),
        }
    }
    found
}

impl Refusal<'_> {
    /// The closings as evidence.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        let Refusal { first, last, count, .. } = self;
        let what = if first.channel.is_some() { "channel.close" } else { "connection.close" };
        let cause = first.cause.as_ref().map(|cause| format!(" to {cause}")).unwrap_or_default();
        let mut found =
            vec![Evidence::new(first.mark, format!("{what} {}{cause}: {}", first.code, first.text))];
        if *count > 1 {
            found.push(Evidence::new(
                last.mark,
                format!("the same again, {} in all", units::counted(*count, "time")),
            ));
        }
        found
    }

    /// Whether a virtual host was opened in the same process with the same credential, after the last refusal.
    pub(super) fn was_let_in_later(&self, case: &Case<'_>) -> bool {
        let facts = self.link.facts();
        case.links(self.pid).any(|link| {
            link.opened.at_ns > self.last.mark.at_ns
                && link.facts().is_open
                && link.facts().user == facts.user
                && (facts.vhost.is_none() || link.facts().vhost == facts.vhost)
        })
    }
}

/// Texts between two marks: `between("for user 'bob'", "user '", "'")`.
pub(super) fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    crate::words::command(&[word.to_owned()])
}
