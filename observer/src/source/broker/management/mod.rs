//! The management API, asked again and again; what differs from the answer before becomes events. It reads only, except that it turns
//! tracing on and off again when that was asked for.

mod answers;
mod local;
#[cfg(test)]
mod tests;
mod tracing;

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use answers::{Connection, Consumer, Facts, Node, Overview, Queue, Whoami, list};
use local::Locals;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tracing::Traced;

use super::{sink::Sink, url::ManagementUrl};
use crate::event::{
    Body,
    broker::{BrokerEvent, Way},
};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// An answer that is longer is not read: a broker with so many queues must be asked otherwise.
const MOST_BYTES: usize = 64 << 20;
const LOST: &str = "without it connections with their peers, consumers, other queues, bindings, policies and alarms are not seen";

/// Whom to ask, and what for.
pub(super) struct Management {
    pub(super) sink: Rc<Sink>,
    pub(super) url: ManagementUrl,
    /// Where the firehose is wanted.
    pub(super) vhost: String,
    /// Whether tracing is to be turned on.
    pub(super) firehose: bool,
    pub(super) every: Duration,
}

/// Why there is no answer.
struct NoAnswer {
    status: Option<StatusCode>,
    text: String,
}

/// What was told before, by key.
#[derive(Default)]
struct Told {
    connections: BTreeMap<String, Body>,
    locals: Locals,
    consumers: BTreeMap<String, Body>,
    queues: BTreeMap<String, Body>,
    alarms: BTreeMap<String, Body>,
    bindings: BTreeMap<String, Body>,
    policies: BTreeMap<String, Body>,
}

impl Management {
    /// Asks until told to stop, then leaves tracing as it was.
    pub(super) async fn watch(self) {
        if self.url.tls() {
            let detail = format!("{} needs TLS, which this version does not speak; {LOST}", self.url);
            return self.sink.access(Way::Management, None, false, detail).await;
        }
        // No proxy is asked, whatever the environment says: the crate is built without.
        let client = match Client::builder().timeout(ANSWER_LIMIT).user_agent(super::PRODUCT).build() {
            Ok(client) => client,
            Err(error) => {
                let detail = format!("cannot make an HTTP client: {error}; {LOST}");
                return self.sink.access(Way::Management, None, false, detail).await;
            }
        };
        let mut told = Told::default();
        let mut traced = Traced::default();
        while !self.sink.is_stopped() {
            tokio::select! {
                () = self.ask(&client, &mut told, &mut traced) => {}
                () = self.sink.stopped() => break,
            }
            self.sink.pause(self.every).await;
        }
        if traced.by_us {
            self.turn_off(&client).await;
        }
    }

    async fn ask(&self, client: &Client, told: &mut Told, traced: &mut Traced) {
        // Statistics of the whole broker are not needed, and dear to it.
        let overview = match self.get(client, "overview?disable_stats=true").await {
            Ok(overview) => serde_json::from_value::<Overview>(overview).unwrap_or_default(),
            Err(error) => return self.missing(&error, traced).await,
        };
        let whoami = self.get(client, "whoami").await.ok();
        let tags = whoami
            .and_then(|answer| serde_json::from_value::<Whoami>(answer).ok())
            .unwrap_or_default()
            .tags();
        let mut refused = Vec::new();
        self.tracing(client, traced, &mut refused).await;

        // Connections first: by them we know which consumers are our own.
        if let Some(answer) = self.part(client, "connections", &mut refused).await {
            let mut all: Vec<_> =
                list::<Connection>(answer).into_iter().filter_map(Connection::into_event).collect();
            told.locals.name(&mut all).await;
            self.sink.ours().connections = all
                .iter()
                .filter(|connection| connection.ours)
                .map(|connection| connection.name.clone())
                .collect();
            let now = all
                .into_iter()
                .map(|one| (one.name.clone(), Body::BrokerConnection(Box::new(one))))
                .collect();
            self.tell(&mut told.connections, now).await;
        }
        if let Some(answer) = self.part(client, "consumers", &mut refused).await {
            let all: Vec<_> = {
                let own = self.sink.ours();
                list::<Consumer>(answer)
                    .into_iter()
                    .filter_map(|consumer| consumer.into_event(&own))
                    .collect()
            };
            let key = |one: &crate::event::broker::BrokerConsumer| {
                format!("{:?} {:?} {}", one.connection, one.channel, one.consumer_tag)
            };
            let now = all.into_iter().map(|one| (key(&one), Body::BrokerConsumer(one))).collect();
            self.tell(&mut told.consumers, now).await;
        }
        let columns = "queues?columns=name,vhost,messages_ready,messages_unacknowledged,consumers,state,message_stats.publish,message_stats.deliver_get";
        if let Some(answer) = self.part(client, columns, &mut refused).await {
            let all: Vec<_> = {
                let own = self.sink.ours();
                list::<Queue>(answer).into_iter().filter_map(|queue| queue.into_event(&own)).collect()
            };
            let now =
                all.into_iter().map(|one| (format!("{} {}", one.vhost, one.queue), Body::QueueSample(one)));
            self.tell(&mut told.queues, now.collect()).await;
        }
        if let Some(answer) =
            self.part(client, "nodes?columns=name,mem_alarm,disk_free_alarm", &mut refused).await
        {
            let all = list::<Node>(answer).into_iter().flat_map(Node::alarms);
            let now =
                all.map(|one| (format!("{} {}", one.node, one.resource), Body::BrokerAlarm(one))).collect();
            self.tell(&mut told.alarms, now).await;
        }
        for (what, name) in [("bindings", "binding"), ("policies", "policy")] {
            let Some(answer) = self.part(client, what, &mut refused).await else { continue };
            let now =
                list::<Facts>(answer).into_iter().filter_map(|facts| fact(name, facts, &self.sink)).collect();
            let before = if name == "binding" { &mut told.bindings } else { &mut told.policies };
            self.tell(before, now).await;
        }
        let version = overview.product_version.or(overview.rabbitmq_version).unwrap_or_else(|| "?".into());
        let all_seen = tags.iter().any(|tag| tag == "monitoring" || tag == "administrator");
        let mut detail = format!(
            "{} answers: RabbitMQ {version}, user {} ({})",
            self.url,
            self.url.user(),
            tags.join(", ")
        );
        if !all_seen {
            detail.push_str(
                "; only this user's own connections and virtual hosts are shown: give it the tag monitoring",
            );
        }
        if !refused.is_empty() {
            detail.push_str(&format!("; not answered: {}", refused.join(", ")));
        }
        self.sink.access(Way::Management, None, true, detail).await;
    }

    /// Says what is new, different or gone since the last time.
    async fn tell(&self, before: &mut BTreeMap<String, Body>, now: BTreeMap<String, Body>) {
        for (key, body) in &now {
            // An alarm that was never set is no news.
            let quiet = matches!(body, Body::BrokerAlarm(alarm) if !alarm.set) && !before.contains_key(key);
            if !quiet && before.get(key) != Some(body) {
                self.sink.send(body.clone()).await;
            }
        }
        for (key, body) in std::mem::replace(before, now) {
            if !before.contains_key(&key)
                && let Some(gone) = gone(body)
            {
                self.sink.send(gone).await;
            }
        }
    }

    async fn missing(&self, error: &NoAnswer, traced: &mut Traced) {
        let next = match error.status {
            Some(StatusCode::UNAUTHORIZED) => {
                "check the credentials, and that the user has one of the tags management, monitoring or administrator"
            }
            Some(_) => "is this the management API of RabbitMQ? name it with --management",
            None => {
                "enable the plugin (rabbitmq-plugins enable rabbitmq_management), or name it with --management"
            }
        };
        let detail = format!("cannot ask {}: {}; {LOST}; {next}", self.url, error.text);
        self.sink.access(Way::Management, None, false, detail).await;
        // A broker that restarts has tracing off.
        traced.seen = false;
        let text = error.text.clone();
        self.sink.firehose(|known| known.tracing = Some(Err(text))).await;
    }

    async fn part(&self, client: &Client, path: &str, refused: &mut Vec<String>) -> Option<Value> {
        match self.get(client, path).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                let name = path.split('?').next().unwrap_or(path);
                refused.push(format!("{name} ({})", error.text));
                None
            }
        }
    }

    async fn get(&self, client: &Client, path: &str) -> Result<Value, NoAnswer> {
        let bytes = self.request(client, Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).map_err(|error| NoAnswer {
            status: Some(StatusCode::OK),
            text: format!("the answer is not JSON: {error}"),
        })
    }

    async fn request(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, NoAnswer> {
        let none = |text: String| NoAnswer { status: None, text };
        let url = self.url.api(path).ok_or_else(|| none("it is no URL".into()))?;
        let mut request = client.request(method, url).basic_auth(self.url.user(), Some(self.url.password()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut answer = request.send().await.map_err(|error| none(innermost(&error.without_url())))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(NoAnswer { status: Some(status), text: status.to_string() });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| none(innermost(&error.without_url())))? {
            if bytes.len() + chunk.len() > MOST_BYTES {
                return Err(NoAnswer {
                    status: Some(status),
                    text: format!("the answer is longer than {MOST_BYTES} bytes"),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// A binding or a policy as an event; none for the default exchange's bindings, which every queue has.
fn fact(name: &str, mut facts: Facts, sink: &Sink) -> Option<(String, Body)> {
    if name == "binding" && facts.get("source").is_some_and(|source| source == "") {
        return None;
    }
    facts.remove("properties_key");
    let text = |name: &str| facts.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours = sink.ours().queues.contains(&(text("vhost"), text("destination")));
    let key = match name {
        "policy" => format!("{} {}", text("vhost"), text("name")),
        _ => serde_json::to_string(&facts).ok()?,
    };
    let name = format!("{name}.present");
    Some((key, Body::BrokerEvent(BrokerEvent { name, facts, how: Way::Management, ours })))
}

/// What to say of something that is no longer listed.
fn gone(body: Body) -> Option<Body> {
    Some(match body {
        Body::BrokerConnection(mut one) => {
            one.present = false;
            Body::BrokerConnection(one)
        }
        Body::BrokerConsumer(mut one) => {
            one.present = false;
            Body::BrokerConsumer(one)
        }
        Body::QueueSample(mut one) => {
            (one.ready, one.unacked, one.consumers) = (None, None, None);
            one.state = Some("absent".into());
            Body::QueueSample(one)
        }
        Body::BrokerEvent(mut one) => {
            one.name = one.name.replace(".present", ".absent");
            Body::BrokerEvent(one)
        }
        _ => return None,
    })
}

/// The cause at the bottom says what the system answered; those above say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
