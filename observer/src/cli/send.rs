//! `observer send`: publishes one dramatiq message, marked as a canary, and follows it to its end where that is being recorded. Knows
//! dramatiq's encoding and a broker; of sessions only that one can be followed.

mod follow;

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde::Serialize;
use serde_json::{Map, Value};

use follow::{Follower, Until};

use super::{Context, ExitStatus, Format, client, print, printable, progress};
use crate::{
    amqp::dramatiq::CANARY,
    model::message::Life,
    render::style::{DIM, Line, PLAIN},
    source::proc::monotonic_ns,
    words::units,
};

/// Send a message to an actor, marked as a canary.
///
/// It runs as any other message of that actor does: choose one that does no harm. The broker confirms that a queue has it. While a
/// session records the worker, the message is followed there until it is settled.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer send default count_words 'to be or not to be' --broker amqp://guest:guest@127.0.0.1\n  observer send default add 1 2 --kwargs '{\"carry\": true}'\n\nExit status: 0 when the message was acknowledged (when nothing is followed: when a queue has it), 1 when not."
)]
pub struct Args {
    /// The queue
    pub queue: String,
    /// The actor
    pub actor: String,
    /// Its arguments: JSON where they are JSON, else text
    #[arg(value_name = "ARGS", allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// Its keyword arguments, a JSON object
    #[arg(long, value_name = "JSON")]
    pub kwargs: Option<String>,
    /// The broker (amqp://user:password@host:port/vhost)
    #[arg(long, value_name = "URL", env = "OBSERVER_BROKER", hide_env_values = true)]
    pub broker: Option<String>,
    /// The session to follow it in [default: the newest that is being recorded]
    #[arg(long, value_name = "N", conflicts_with = "no_follow")]
    pub session: Option<String>,
    /// How long to follow it (10s, 2m)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::parse_duration_ns, conflicts_with = "no_follow")]
    pub timeout: u64,
    /// Only send it
    #[arg(long)]
    pub no_follow: bool,
}

/// A message as dramatiq's JSON encoder writes it (dramatiq 2.2, `message.py`): the fields in their order.
#[derive(Debug, Serialize)]
struct Canary<'a> {
    queue_name: &'a str,
    actor_name: &'a str,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    options: Map<String, Value>,
    message_id: String,
    message_timestamp: u64,
}

impl<'a> Canary<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let kwargs = match args.kwargs.as_deref().map(serde_json::from_str::<Value>) {
            None => Map::new(),
            Some(Ok(Value::Object(kwargs))) => kwargs,
            Some(_) => bail!("cannot use --kwargs: it is no JSON object; write it like '{{\"name\": 1}}'"),
        };
        let value =
            |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            queue_name: &args.queue,
            actor_name: &args.actor,
            args: args.args.iter().map(value).collect(),
            kwargs,
            options: Map::from_iter([(CANARY.to_owned(), Value::Bool(true))]),
            message_id: uuid4()?,
            message_timestamp: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// A random UUID (RFC 9562, version 4), as `uuid.uuid4()` writes it.
fn uuid4() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("cannot make a message id: {error}"))?;
    let number = u128::from_be_bytes(bytes) & !(0xf000 << 64) & !(0xc000 << 48) | 0x4000 << 64 | 0x8000 << 48;
    let hex = format!("{number:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    message_id: &'a str,
    queue: &'a str,
    actor: &'a str,
    message_timestamp_ms: u64,
    /// When it was about to be sent, on the clock of the sessions.
    sent_at_ns: u64,
    /// `None` when nothing was being recorded, or it was not asked for.
    followed: Option<Followed<'a>>,
}

#[derive(Debug, Serialize)]
struct Followed<'a> {
    session: &'a str,
    until: Until,
    /// As in `observer.show-messages/1`; `None` when no recorded process was given the message.
    state: Option<&'static str>,
    life: Option<&'a Life>,
}

/// Sends, and follows.
///
/// # Errors
/// When the broker cannot be reached or refuses us, when no queue takes the message, and when the session cannot be read.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let url = args
        .broker
        .as_deref()
        .context("cannot send: no broker is named; give --broker URL or set OBSERVER_BROKER")?;
    let canary = Canary::new(args)?;
    let body = serde_json::to_vec(&canary).context("cannot encode the message")?;
    // Before it is sent: what was recorded until now takes its time to read.
    let mut follower = match args.no_follow {
        true => None,
        false => progress::while_slow("reading the session", || {
            Follower::find(&context.open_state_dir()?, args.session.as_deref(), &canary.message_id)
        })?,
    };
    let sent_at_ns = send(url, &args.queue, &body)?;

    let (id, queue, actor) = (&canary.message_id, printable(&args.queue), printable(&args.actor));
    let is_text = context.format == Format::Text;
    if is_text {
        print(&format!("{id}\nsent to actor {actor} in queue {queue}; the broker has it\n"))?;
    }
    let mut until = None;
    if let Some(follower) = &mut follower {
        let tell = &mut |line: &Line| if is_text { line_out(line, context) } else { Ok(()) };
        let at = units::moment(sent_at_ns, follower.started_ns());
        tell(&Line::new().with(DIM, format!("followed in session {}", follower.session())))?;
        tell(
            &Line::new().with(DIM, format!("{at:>14}  ")).with(PLAIN, format!("published to {}", args.queue)),
        )?;
        until = Some(follower.follow(Duration::from_nanos(args.timeout), tell)?);
    }
    let followed = follower.as_ref().zip(until);
    match context.format {
        Format::Text => print(&last_words(followed, id, args.timeout))?,
        Format::Json => {
            let mut out = Vec::new();
            let report = Report {
                schema: "observer.send/1",
                message_id: id,
                queue: &args.queue,
                actor: &args.actor,
                message_timestamp_ms: canary.message_timestamp,
                sent_at_ns,
                followed: followed.map(|(follower, until)| Followed {
                    session: follower.session(),
                    until,
                    state: follower.life().map(Life::state),
                    life: follower.life(),
                }),
            };
            crate::render::json::write(&mut out, &report)?;
            out.write_all(b"\n")?;
            io::stdout().write_all(&out)?;
        }
    }
    let is_well = followed.is_none_or(|(follower, until)| until == Until::Settled && follower.is_acked());
    Ok(if is_well { ExitStatus::SUCCESS } else { ExitStatus::FAILURE })
}

/// Text goes out line by line: whoever waits sees each step.
fn line_out(line: &Line, context: &Context) -> anyhow::Result<()> {
    let mut out = Vec::new();
    line.write(&mut out, None)?;
    let text = String::from_utf8_lossy(&out).into_owned();
    Ok(print(&if context.color { text } else { anstream::adapter::strip_str(&text).to_string() })?)
}

/// What to say when it is over: nothing, when the steps said it all.
fn last_words(followed: Option<(&Follower, Until)>, id: &str, timeout_ns: u64) -> String {
    let Some((follower, until)) = followed else {
        return format!(
            "follow it in a session that records the worker: observer show @ --messages --message {id}\n"
        );
    };
    let why = match until {
        Until::Settled => return String::new(),
        Until::Timeout => format!("not settled after {}", units::duration(timeout_ns)),
        Until::RecordingEnded => "not settled when the recording ended".to_owned(),
    };
    let (standing, session) = (printable(&follower.standing()), printable(follower.session()));
    format!("{why}: {standing}\nlook at who consumes what: observer show {session} --queues\n")
}

/// Publishes, and waits for the broker's word. Answers when it published, in nanoseconds on `CLOCK_MONOTONIC`.
fn send(url: &str, queue: &str, body: &[u8]) -> anyhow::Result<u64> {
    client::with_channel(&format!("send to queue {}", printable(queue)), url, async |channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(client::refused)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        // Before: it may be delivered before we are told that it is there.
        let at_ns = monotonic_ns();
        let confirm = channel
            .basic_publish("".into(), queue.into(), options, body, persistent)
            .await
            .map_err(client::refused)?
            .await
            .map_err(client::refused)?;
        match confirm {
            Confirmation::Ack(None) => Ok(at_ns),
            Confirmation::Ack(Some(_)) => Err(anyhow!(
                "there is no such queue in this virtual host; look at the queues with: rabbitmqctl list_queues -p VHOST"
            )),
            Confirmation::Nack(_) => {
                Err(anyhow!("the broker could not keep it (basic.nack); its log says why"))
            }
            Confirmation::NotRequested => Err(anyhow!("the broker confirmed nothing")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::dramatiq::DramatiqMessage;

    fn args(words: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        <Command as clap::Parser>::try_parse_from(["send"].iter().chain(words)).unwrap().args
    }

    #[test]
    fn it_is_the_message_dramatiq_would_have_sent() {
        let args = args(&["default", "add", "1", "to be", "[true]", "--kwargs", r#"{"k":null}"#]);
        let canary = Canary::new(&args).unwrap();
        let body = serde_json::to_string(&canary).unwrap();
        let (id, ms) = (&canary.message_id, canary.message_timestamp);
        assert_eq!(
            body,
            format!(
                r#"{{"queue_name":"default","actor_name":"add","args":[1,"to be",[true]],"kwargs":{{"k":null}},"options":{{"observer_canary":true}},"message_id":"{id}","message_timestamp":{ms}}}"#
            )
        );
        let read = DramatiqMessage::decode(body.as_bytes(), true).unwrap();
        assert_eq!(read.message_id.as_ref(), Some(id));
    }

    #[test]
    fn ids_are_random_uuids_of_version_4() {
        let (one, other) = (uuid4().unwrap(), uuid4().unwrap());
        assert_ne!(one, other);
        for id in [one, other] {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!("89ab".contains(&id[19..20]), "{id}");
        }
    }

    #[test]
    fn errors_name_no_secret() {
        let error = Canary::new(&args(&["q", "a", "--kwargs", "[s3cret]"])).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
