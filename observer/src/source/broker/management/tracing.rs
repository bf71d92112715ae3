//! Tracing by the management API: whether it is on, turned on where that was asked for, and off again at the end. It knows nothing of what
//! is traced.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

use super::{Management, NoAnswer, answers::Vhost};
use crate::{
    event::NoteLevel,
    source::broker::{sink::Firehose, url::escape},
};

/// How long turning tracing off may take at the end.
const END_LIMIT: Duration = Duration::from_secs(3);

impl Management {
    pub(super) async fn tracing(&self, client: &Client, traced: &mut Traced, refused: &mut Vec<String>) {
        let path = format!("vhosts/{}", escape(&self.vhost));
        let known = match self.get(client, &path).await {
            Ok(answer) => {
                let tracing = serde_json::from_value::<Vhost>(answer).unwrap_or_default().tracing;
                tracing.ok_or_else(|| "the broker does not say".to_owned())
            }
            Err(error) => {
                refused.push(format!("{path} ({})", error.text));
                if self.firehose && !traced.seen && error.status.is_some() {
                    traced.seen = true;
                    self.sink.note(NoteLevel::Warning, self.cannot_turn_on(&error)).await;
                }
                Err(error.text)
            }
        };
        // Only where it is off when we come: somebody else who turns it off means it.
        if self.firehose && known == Ok(false) && !traced.seen {
            traced.seen = true;
            // Before the answer: one that is lost on its way back leaves tracing on.
            traced.by_us = true;
            let (level, text) = match self.put_tracing(client, true).await {
                Ok(()) => (
                    NoteLevel::Info,
                    format!(
                        "turned on tracing in virtual host {:?}, as --firehose asks; it will be turned off at the end; should observer be killed: rabbitmqctl trace_off -p {0:?}",
                        self.vhost
                    ),
                ),
                Err(error) => {
                    traced.by_us = error.status.is_none();
                    (NoteLevel::Warning, self.cannot_turn_on(&error))
                }
            };
            let on = level == NoteLevel::Info;
            self.sink.note(level, text).await;
            return self.sink.firehose(|known| learn(known, Ok(on), on)).await;
        }
        traced.seen |= known.is_ok();
        let by_us = traced.by_us;
        self.sink.firehose(|firehose| learn(firehose, known, by_us)).await;
    }

    fn cannot_turn_on(&self, error: &NoAnswer) -> String {
        format!(
            "cannot turn on tracing in virtual host {:?}: {}; give the user the tag administrator, or run: rabbitmqctl trace_on -p {0:?}",
            self.vhost, error.text
        )
    }

    pub(super) async fn turn_off(&self, client: &Client) {
        let attempt = async {
            loop {
                match self.put_tracing(client, false).await {
                    Err(error) if error.status.is_none() => {
                        tokio::time::sleep(Duration::from_millis(200)).await
                    }
                    answer => return answer,
                }
            }
        };
        let (level, text) = match tokio::time::timeout(END_LIMIT, attempt).await {
            Ok(Ok(())) => (NoteLevel::Info, format!("turned off tracing in virtual host {:?}", self.vhost)),
            failed => {
                let answer = match failed {
                    Ok(Err(error)) => error.text,
                    _ => format!("no answer within {} s", END_LIMIT.as_secs()),
                };
                (
                    NoteLevel::Trouble,
                    format!(
                        "cannot turn off tracing in virtual host {:?}: {answer}; it may still be on and slows the broker down; run: rabbitmqctl trace_off -p {0:?}",
                        self.vhost
                    ),
                )
            }
        };
        self.sink.note(level, text).await;
    }

    async fn put_tracing(&self, client: &Client, on: bool) -> Result<(), NoAnswer> {
        let path = format!("vhosts/{}", escape(&self.vhost));
        // From 3.11 on, what a PUT leaves out is reset: it is sent back as it is.
        let mut body = serde_json::Map::new();
        if let Value::Object(mut now) = self.get(client, &path).await? {
            for field in ["description", "tags", "default_queue_type", "protected_from_deletion"] {
                if let Some(value) =
                    now.remove(field).filter(|value| value != "undefined" && !value.is_null())
                {
                    body.insert(field.into(), value);
                }
            }
        }
        body.insert("tracing".into(), on.into());
        self.request(client, Method::PUT, &path, Some(body.into())).await.map(drop)
    }
}

/// What became of tracing since we came.
#[derive(Default)]
pub(super) struct Traced {
    /// The broker was asked since it was last there.
    pub(super) seen: bool,
    /// It was off and we asked for it.
    pub(super) by_us: bool,
}

fn learn(firehose: &mut Firehose, tracing: Result<bool, String>, by_us: bool) {
    if tracing == Ok(false) {
        firehose.flows = false;
    }
    firehose.tracing = Some(tracing);
    firehose.by_us = by_us;
}
