//! `observer send`: publishes one dramatiq message, marked as a canary, and says how to follow it. Knows dramatiq's encoding and a
//! broker; nothing of sessions.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    uri::{AMQPScheme, AMQPUri},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Context, ExitStatus, Format, print, printable};

/// A broker that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Send a message to an actor, marked as a canary.
///
/// It runs as any other message of that actor does: choose one that does no harm. The broker confirms that a queue has it; what
/// becomes of it is seen in a session that is recording the worker.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer send default count_words 'to be or not to be' --broker amqp://guest:guest@127.0.0.1\n  observer send default add 1 2 --kwargs '{\"carry\": true}'\n\nExit status: 0 when a queue has the message, 1 when not."
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
}

/// A message as dramatiq's JSON encoder writes it (dramatiq 2.2, `message.py`): the fields in their order.
#[derive(Debug, Serialize)]
struct Canary<'a> {
    queue_name: &'a str,
    actor_name: &'a str,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    options: Options,
    message_id: String,
    message_timestamp: u64,
}

/// The options of a message are the application's: dramatiq passes on what it does not know.
#[derive(Debug, Serialize)]
struct Options {
    observer_canary: bool,
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
            options: Options { observer_canary: true },
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
}

/// Sends.
///
/// # Errors
/// When the broker cannot be reached or refuses us, and when no queue takes the message.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let url = args
        .broker
        .as_deref()
        .context("cannot send: no broker is named; give --broker URL or set OBSERVER_BROKER")?;
    let canary = Canary::new(args)?;
    let body = serde_json::to_vec(&canary).context("cannot encode the message")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the client's event loop")?;
    let published = async { tokio::time::timeout(PATIENCE, publish(url, &args.queue, &body)).await };
    // Errors name the broker by its address alone: its URL holds a password.
    let broker = address(url);
    runtime
        .block_on(published)
        .map_err(|_| {
            anyhow!(
                "cannot send to {broker}: no answer for {} s; is it a broker's AMQP port?",
                PATIENCE.as_secs()
            )
        })?
        .with_context(|| format!("cannot send to queue {} at {broker}", printable(&args.queue)))?;

    let (id, queue, actor) = (&canary.message_id, printable(&args.queue), printable(&args.actor));
    match context.format {
        Format::Text => print(&format!(
            "{id}\nsent to actor {actor} in queue {queue}; the broker has it\nfollow it in a session that records the worker: observer show @ --messages --message {id}\n"
        ))?,
        Format::Json => {
            let mut out = Vec::new();
            let report = Report {
                schema: "observer.send/1",
                message_id: id,
                queue: &args.queue,
                actor: &args.actor,
                message_timestamp_ms: canary.message_timestamp,
            };
            crate::render::json::write(&mut out, &report)?;
            out.write_all(b"\n")?;
            io::stdout().write_all(&out)?;
        }
    }
    Ok(ExitStatus::SUCCESS)
}

/// A broker's URL without user, password and options.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    // A password may hold any of / and @: what stands after the last @ cannot be part of it.
    printable(rest.rsplit_once('@').map_or(rest, |(_, address)| address))
}

async fn publish(url: &str, queue: &str, body: &[u8]) -> anyhow::Result<()> {
    let url = if url.contains("://") { url.to_owned() } else { format!("amqp://{url}") };
    // The parser's own error may quote the password.
    let uri: AMQPUri = url
        .parse()
        .map_err(|_| anyhow!("the URL cannot be read; write amqp://user:password@host:port/vhost"))?;
    if uri.scheme == AMQPScheme::AMQPS {
        bail!("TLS is not supported yet; use a port without it");
    }
    let properties = ConnectionProperties::default().with_connection_name("observer".into());
    let connection = Connection::connect_uri(uri, properties).await.map_err(refused)?;
    let channel = connection.create_channel().await.map_err(refused)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(refused)?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let confirm = channel
        .basic_publish("".into(), queue.into(), options, body, persistent)
        .await
        .map_err(refused)?
        .await
        .map_err(refused)?;
    let answer = match confirm {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => Err(anyhow!(
            "there is no such queue in this virtual host; look at the queues with: rabbitmqctl list_queues -p VHOST"
        )),
        Confirmation::Nack(_) => Err(anyhow!("the broker could not keep it (basic.nack); its log says why")),
        Confirmation::NotRequested => Err(anyhow!("the broker confirmed nothing")),
    };
    // The message is where it is, whatever comes of the farewell.
    let _ = connection.close(200, "done".into()).await;
    answer
}

/// A client's error without what it may quote of the URL.
fn refused(error: lapin::Error) -> anyhow::Error {
    match error.kind() {
        lapin::ErrorKind::IOError(error) => anyhow!("{error}"),
        lapin::ErrorKind::ProtocolError(error) => anyhow!("{}", printable(&error.to_string())),
        lapin::ErrorKind::InvalidConnectionState(_) | lapin::ErrorKind::InvalidChannelState(..) => {
            anyhow!("the broker closed the connection; are user, password and virtual host right?")
        }
        _ => anyhow!("{}", printable(&error.to_string())),
    }
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
        assert_eq!(address("amqp://me:p/a@ss@rabbit:5672/jobs?heartbeat=5"), "rabbit:5672/jobs");
        assert_eq!(address("rabbit:5672"), "rabbit:5672");
        let error = Canary::new(&args(&["q", "a", "--kwargs", "[s3cret]"])).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
