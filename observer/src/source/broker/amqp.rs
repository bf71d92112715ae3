//! The observer's own AMQP connection to one virtual host: passive declares, the event exchange and the firehose, one channel each. It
//! reconnects for as long as it is wanted. It publishes nothing, and consumes only from queues of its own.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties, Error, ErrorKind,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPErrorKind,
    types::{AMQPValue, FieldTable},
    uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use tokio::{sync::watch, time::timeout};

use super::{BrokerUrl, PRODUCT, Queues, events::Translator, firehose, sink::Sink};
use crate::event::{
    Body, NoteLevel,
    broker::{QueueSample, Way},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Waiting times between attempts to connect: doubled from one to the other.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// After a refusal: each attempt is an entry in the broker's log.
const REFUSED_BACKOFF: Duration = Duration::from_secs(15);
/// How often to try again what a living connection refused: a plugin may be enabled meanwhile.
const AGAIN: Duration = Duration::from_secs(10);
/// Deliveries on their way to us; every so many are acknowledged together.
const PREFETCH: u16 = 512;
const ACK_EVERY: u64 = 128;
/// Our queues drop their oldest message beyond this: a broker must not suffer because we are slow.
const MOST_QUEUED: i32 = 100_000;
/// Of queues that are not there, every so many samples one is tried: each try costs a channel.
const ABSENT_EVERY: u64 = 5;
const NOT_FOUND: u16 = 404;
const LOCKED: u16 = 405;

/// What one connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purposes {
    pub(super) events: bool,
    pub(super) firehose: bool,
    pub(super) sample_every: Duration,
}

/// Watches one virtual host until told to stop.
pub(super) async fn watch_vhost(
    sink: Rc<Sink>,
    url: BrokerUrl,
    vhost: String,
    purposes: Purposes,
    queues: watch::Receiver<Queues>,
) {
    let mut backoff = BACKOFF.0;
    while !sink.is_stopped() {
        let connected = tokio::select! {
            connected = connect(&url, &vhost) => connected,
            () = sink.stopped() => return,
        };
        match connected {
            Ok(connection) => {
                backoff = BACKOFF.0;
                let detail = format!("connected to {}:{} as {}", url.host(), url.port(), url.user());
                sink.access(Way::Amqp, Some(&vhost), true, detail).await;
                let session = Session { sink: &sink, connection: &connection, vhost: &vhost, purposes };
                let lost = tokio::select! {
                    lost = lost(&connection) => Some(lost),
                    never = session.run(queues.clone()) => never,
                    () = sink.stopped() => None,
                };
                let Some(lost) = lost else {
                    let _ = timeout(Duration::from_secs(1), connection.close(200, "done".into())).await;
                    return;
                };
                let detail = format!(
                    "the connection to {}:{} was lost: {lost}; what happens until it is back is not seen; trying again",
                    url.host(),
                    url.port()
                );
                sink.access(Way::Amqp, Some(&vhost), false, detail).await;
                for way in [Way::PassiveDeclare, Way::Events] {
                    sink.close(way, &vhost, "the connection it rests on was lost").await;
                }
                if purposes.firehose {
                    sink.firehose(|known| {
                        known.bound = Some(Err("the connection it rests on was lost".into()));
                        known.flows = false;
                    })
                    .await;
                }
                // What was ours went with the connection; the broker gives new names.
                sink.ours().queues.retain(|(of, _)| *of != vhost);
            }
            Err(refusal) => {
                let Refusal { text, next, refused } = refusal;
                let detail = format!(
                    "cannot connect to {}:{} as {} in virtual host {vhost:?}: {text}; without it queues are not sampled and no events are heard; {next}",
                    url.host(),
                    url.port(),
                    url.user()
                );
                sink.access(Way::Amqp, Some(&vhost), false, detail).await;
                if refused {
                    backoff = REFUSED_BACKOFF;
                }
            }
        }
        sink.pause(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1.max(backoff));
    }
}

struct Refusal {
    text: String,
    next: &'static str,
    /// By the broker, not by the network.
    refused: bool,
}

thread_local! {
    /// Connections that were begun in this thread and given up on: lapin may go on making them.
    static UNFINISHED: Cell<usize> = const { Cell::new(0) };
}

/// Whether lapin may still be making a connection that this thread began.
pub(super) fn is_connecting() -> bool {
    UNFINISHED.get() > 0
}

async fn connect(url: &BrokerUrl, vhost: &str) -> Result<Connection, Refusal> {
    if url.tls() {
        return Err(Refusal {
            text: "this version speaks no TLS".into(),
            next: "give the address of a listener without TLS with --broker",
            refused: true,
        });
    }
    let mut uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: url.user().to_owned(), password: url.password().to_owned() },
            host: url.host().to_owned(),
            port: url.port(),
        },
        vhost: vhost.to_owned(),
        ..AMQPUri::default()
    };
    uri.query.heartbeat = Some(10);
    uri.query.connection_timeout = Some(5_000);
    let properties = ConnectionProperties::default()
        .with_connection_name(PRODUCT.into())
        .with_client_property("product".into(), PRODUCT.into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    UNFINISHED.set(UNFINISHED.get() + 1);
    let connected = timeout(CONNECT_LIMIT, Connection::connect_uri(uri, properties)).await;
    if connected.is_ok() {
        UNFINISHED.set(UNFINISHED.get() - 1);
    }
    match connected {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let (code, text) = explain(&error);
            let next = match code {
                Some(403) => "check user and password given with --broker",
                Some(530) => "check the virtual host and the user's permissions in it",
                _ => "trying again",
            };
            Err(Refusal { text, next, refused: code.is_some() })
        }
        Err(_) => Err(Refusal {
            text: format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
            next: "trying again",
            refused: false,
        }),
    }
}

/// The reply code, when the broker answered, and what to tell.
fn explain(error: &Error) -> (Option<u16>, String) {
    match error.kind() {
        ErrorKind::ProtocolError(answer) => (
            Some(answer.get_id()),
            format!("{} {}", answer.get_id(), without_own_names(answer.get_message().as_str())),
        ),
        ErrorKind::IOError(error) => (None, error.to_string()),
        _ => (None, error.to_string()),
    }
}

/// The names the broker gives to our queues differ from one attempt to the next; what is wrong does not.
fn without_own_names(text: &str) -> String {
    let mut parts = text.split("amq.gen-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        format!("{text}amq.gen-*{rest}")
    })
}

/// Waits until the connection is gone, and says why.
async fn lost(connection: &Connection) -> String {
    let mut happened = std::pin::pin!(connection.events_listener());
    let mut why = "it ended".to_owned();
    loop {
        let news = timeout(Duration::from_millis(200), happened.next()).await;
        match news {
            // A channel that was closed is told here too: that is how a broker says no, and no loss.
            Ok(Some(lapin::Event::Error(error))) if !closes_channel(&error) => why = explain(&error).1,
            Ok(None) => return why,
            _ => {}
        }
        if !connection.status().connected() {
            return why;
        }
    }
}

fn closes_channel(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(answer) if matches!(answer.kind(), AMQPErrorKind::Soft(_)))
}

struct Session<'a> {
    sink: &'a Sink,
    connection: &'a Connection,
    vhost: &'a str,
    purposes: Purposes,
}

impl Session<'_> {
    /// Runs until the connection ends, which somebody else notices: then this is dropped.
    async fn run<T>(&self, queues: watch::Receiver<Queues>) -> T {
        let (ready, events_are_up) = watch::channel(!self.purposes.events);
        tokio::join!(
            self.declares(queues, events_are_up.clone()),
            self.events(ready),
            self.firehose(events_are_up)
        );
        std::future::pending().await
    }

    async fn declares(&self, queues: watch::Receiver<Queues>, mut after: watch::Receiver<bool>) {
        let _ = after.wait_for(|up| *up).await;
        let mut channel = None;
        let mut absent: BTreeMap<String, String> = BTreeMap::new();
        let mut every = tokio::time::interval(self.purposes.sample_every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u64.. {
            every.tick().await;
            let names: Vec<String> = {
                let queues = queues.borrow();
                queues
                    .iter()
                    .filter(|(vhost, _)| vhost == self.vhost)
                    .map(|(_, queue)| queue.clone())
                    .collect()
            };
            for queue in names {
                if absent.contains_key(&queue) && round % ABSENT_EVERY != 0 {
                    continue;
                }
                let open = match channel.take() {
                    Some(open) => open,
                    None => match self.connection.create_channel().await {
                        Ok(open) => open,
                        // The connection is gone, or has no channel left: then the next round tries again.
                        Err(error) => {
                            self.refuse_declares(&error).await;
                            break;
                        }
                    },
                };
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                let Ok(name) = lapin::types::ShortString::try_new(queue.clone()) else { continue };
                match open.queue_declare(name, options, FieldTable::default()).await {
                    Ok(answer) => {
                        absent.remove(&queue);
                        channel = Some(open);
                        self.declares_answer().await;
                        let counts = (answer.message_count(), answer.consumer_count());
                        self.sample(queue, Some(counts), None).await;
                    }
                    Err(error) => match explain(&error).0 {
                        // The broker has closed the channel: that is its way to say no.
                        Some(code @ (NOT_FOUND | LOCKED)) => {
                            self.declares_answer().await;
                            let state = if code == NOT_FOUND { "absent" } else { "exclusive" };
                            let before = absent.insert(queue.clone(), state.to_owned());
                            if before.as_deref() != Some(state) {
                                self.sample(queue, None, Some(state)).await;
                            }
                        }
                        _ => self.refuse_declares(&error).await,
                    },
                }
            }
        }
    }

    async fn declares_answer(&self) {
        let detail = "queues are asked with queue.declare, passive".to_owned();
        self.sink.access(Way::PassiveDeclare, Some(self.vhost), true, detail).await;
    }

    async fn refuse_declares(&self, error: &Error) {
        let (code, text) = explain(error);
        // A connection that is lost says so itself.
        if code.is_some() {
            let detail = format!(
                "queue.declare, passive, was answered: {text}; without it queues are sampled only through the management API"
            );
            self.sink.access(Way::PassiveDeclare, Some(self.vhost), false, detail).await;
        }
    }

    async fn sample(&self, queue: String, counts: Option<(u32, u32)>, state: Option<&str>) {
        let body = Body::QueueSample(QueueSample {
            published: None,
            delivered: None,
            vhost: self.vhost.to_owned(),
            queue,
            ready: counts.map(|(messages, _)| messages.into()),
            unacked: None,
            consumers: counts.map(|(_, consumers)| consumers.into()),
            state: state.map(str::to_owned),
            how: Way::PassiveDeclare,
            ours: false,
        });
        self.sink.send(body).await;
    }

    async fn events(&self, ready: watch::Sender<bool>) {
        if !self.purposes.events {
            return;
        }
        let mut translator = Translator::default();
        loop {
            let up = async || {
                let detail = "bound to amq.rabbitmq.event with #".to_owned();
                self.sink.access(Way::Events, Some(self.vhost), true, detail).await;
                ready.send_replace(true);
            };
            let take = async |delivery: &Delivery| {
                let Some(headers) = delivery.properties.headers() else { return };
                let bodies = translator.translate(delivery.routing_key.as_str(), headers, &self.sink.ours());
                for body in bodies {
                    self.sink.send(body).await;
                }
            };
            let error = self.tap("amq.rabbitmq.event", up, take).await;
            ready.send_replace(true);
            let (code, text) = error;
            let next = match code {
                Some(NOT_FOUND) => {
                    "enable the plugin: rabbitmq-plugins enable rabbitmq_event_exchange (it then stands in the virtual host that event_exchange.vhost names, / by default)"
                }
                Some(403) => {
                    "give the user the permission to read amq.rabbitmq.event and to configure and write amq.gen-.*"
                }
                _ => "trying again",
            };
            let detail = format!(
                "cannot consume from amq.rabbitmq.event: {text}; without it connections, consumers, alarms and authentication failures are seen only when the management API is asked; {next}"
            );
            self.sink.access(Way::Events, Some(self.vhost), false, detail).await;
            self.sink.pause(AGAIN).await;
        }
    }

    async fn firehose(&self, mut after: watch::Receiver<bool>) {
        if !self.purposes.firehose {
            return;
        }
        let _ = after.wait_for(|up| *up).await;
        loop {
            let up = async || self.sink.firehose(|known| known.bound = Some(Ok(()))).await;
            let mut flows = false;
            let take = async |delivery: &Delivery| {
                let Some(headers) = delivery.properties.headers() else { return };
                let message =
                    firehose::message(delivery.routing_key.as_str(), headers, self.vhost, &self.sink.ours());
                if !flows {
                    flows = true;
                    self.sink
                        .firehose(|known| known.flows = known.tracing.as_ref().is_none_or(Result::is_err))
                        .await;
                }
                if let Some(message) = message {
                    self.sink.send(Body::BrokerMessage(Box::new(message))).await;
                }
            };
            let (_, text) = self.tap("amq.rabbitmq.trace", up, take).await;
            let error = format!("cannot consume from amq.rabbitmq.trace: {text}");
            self.sink.firehose(|known| known.bound = Some(Err(error))).await;
            self.sink.pause(AGAIN).await;
        }
    }

    /// Consumes what an exchange gives, from a queue of our own on a channel of its own, until that fails.
    async fn tap(
        &self,
        exchange: &str,
        up: impl AsyncFnOnce(),
        mut take: impl AsyncFnMut(&Delivery),
    ) -> (Option<u16>, String) {
        let consume = async {
            let channel = self.connection.create_channel().await?;
            let options =
                QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
            let mut arguments = FieldTable::default();
            arguments.insert("x-max-length".into(), AMQPValue::LongInt(MOST_QUEUED));
            let queue = channel.queue_declare("".into(), options, arguments).await?.name().clone();
            self.sink.ours().queues.insert((self.vhost.to_owned(), queue.as_str().to_owned()));
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default);
            // Consuming before binding: so that it is heard by ourselves that the queue is bound, and nothing waits unseen.
            let consumer = channel.basic_consume(queue.clone(), PRODUCT.into(), options, none()).await?;
            channel
                .queue_bind(queue.clone(), exchange.into(), "#".into(), QueueBindOptions::default(), none())
                .await?;
            Ok((channel, queue, consumer))
        };
        let (channel, queue, mut consumer) = match consume.await {
            Ok(all) => all,
            Err(error) => return explain(&error),
        };
        up().await;
        let mut told = false;
        while let Some(delivery) = consumer.next().await {
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => return explain(&error),
            };
            take(&delivery).await;
            if delivery.delivery_tag % ACK_EVERY == 0 {
                let acked = delivery.acker.ack(BasicAckOptions { multiple: true }).await;
                if let Err(error) = acked {
                    return explain(&error);
                }
                if !told && delivery.delivery_tag % (64 * ACK_EVERY) == 0 {
                    told = self.overflowed(&channel, &queue, exchange).await;
                }
            }
        }
        (None, "the broker cancelled the consumer".into())
    }

    /// Whether our queue is so full that the broker drops from it; says so.
    async fn overflowed(
        &self,
        channel: &lapin::Channel,
        queue: &lapin::types::ShortString,
        exchange: &str,
    ) -> bool {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(queue.clone(), options, FieldTable::default()).await;
        let full = asked.is_ok_and(|queue| i64::from(queue.message_count()) >= i64::from(MOST_QUEUED));
        if full {
            let text = format!(
                "{exchange} gives more than can be recorded: its queue holds {MOST_QUEUED} messages, and older ones are dropped and missing here"
            );
            self.sink.note(NoteLevel::Warning, text).await;
        }
        full
    }
}
