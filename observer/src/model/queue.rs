//! Queues as the observed processes speak of them: who declared them how, who publishes to them, what became of what they held. Knows
//! AMQP; nothing of the broker's own account.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    amqp::Mark,
    message::{Life, Passage, Settled},
};
use crate::{
    amqp::{method::Method, table::Table},
    event::Pid,
};

/// Beyond this many queues, and routes to other exchanges, new ones are only counted.
const MAX_QUEUES: usize = 10_000;

/// One queue of one virtual host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Queue {
    /// How it was declared last.
    pub declared: Option<Declared>,
    /// Messages published to it through the default exchange, by process.
    pub published: BTreeMap<Pid, u64>,
    /// Messages delivered from it, by process.
    pub delivered: BTreeMap<Pid, u64>,
    /// Deliveries among them that were not the first of their message.
    pub redelivered: u64,
    /// Deliveries by how they were settled.
    pub settled: BTreeMap<Settled, u64>,
}

/// A declaration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Declared {
    /// By whom.
    pub by: Mark,
    /// Only asked whether it is there.
    pub passive: bool,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// For this connection only.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Table,
    /// The server's answer.
    pub answer: Option<Answer>,
}

/// What the server said to a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is there.
    Ok {
        /// When it said so.
        mark: Mark,
        /// Messages ready then.
        messages: u32,
        /// Consumers then.
        consumers: u32,
    },
    /// The channel was closed instead.
    Refused {
        /// When it said so.
        mark: Mark,
        /// Reply code.
        code: u16,
        /// Reply text.
        text: String,
    },
}

/// A virtual host, where known, and a queue's name.
pub type QueueKey = (Option<String>, String);

/// All queues.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    all: BTreeMap<QueueKey, Queue>,
    /// Messages published to other exchanges than the default one: by virtual host, exchange, routing key and process.
    routes: BTreeMap<(Option<String>, String, String, Pid), u64>,
    /// Queues and routes that were not kept because there were too many.
    pub left_out: u64,
}

impl Queues {
    /// Every queue, by virtual host and name.
    pub fn iter(&self) -> impl Iterator<Item = (&QueueKey, &Queue)> {
        self.all.iter()
    }

    /// A queue.
    pub fn get(&self, vhost: Option<&str>, queue: &str) -> Option<&Queue> {
        self.all.get(&(vhost.map(str::to_owned), queue.to_owned()))
    }

    /// Messages published to other exchanges than the default one: virtual host, exchange, routing key, process, how many.
    pub fn routes(&self) -> impl Iterator<Item = (Option<&str>, &str, &str, Pid, u64)> {
        self.routes
            .iter()
            .map(|((vhost, exchange, key, pid), count)| (vhost.as_deref(), &**exchange, &**key, *pid, *count))
    }

    fn entry(&mut self, vhost: Option<String>, queue: &str) -> Option<&mut Queue> {
        let key = (vhost, queue.to_owned());
        if !self.all.contains_key(&key) && self.all.len() >= MAX_QUEUES {
            self.left_out += 1;
            return None;
        }
        Some(self.all.entry(key).or_default())
    }

    pub(super) fn declare(&mut self, vhost: Option<String>, name: &str, mark: Mark, method: &Method) {
        let Method::QueueDeclare { passive, durable, exclusive, auto_delete, arguments, .. } = method else {
            return;
        };
        if let Some(queue) = self.entry(vhost, name) {
            queue.declared = Some(Declared {
                by: mark,
                passive: *passive,
                durable: *durable,
                exclusive: *exclusive,
                auto_delete: *auto_delete,
                arguments: arguments.clone(),
                answer: None,
            });
        }
    }

    pub(super) fn declared(
        &mut self,
        vhost: Option<String>,
        name: &str,
        mark: Mark,
        messages: u32,
        consumers: u32,
    ) {
        if let Some(queue) = self.entry(vhost, name)
            && let Some(declared) = &mut queue.declared
        {
            declared.answer = Some(Answer::Ok { mark, messages, consumers });
        }
    }

    pub(super) fn refused(&mut self, vhost: Option<String>, name: &str, mark: Mark, code: u16, text: &str) {
        if let Some(queue) = self.entry(vhost, name)
            && let Some(declared) = &mut queue.declared
        {
            declared.answer = Some(Answer::Refused { mark, code, text: text.to_owned() });
        }
    }

    pub(super) fn published(&mut self, vhost: Option<&str>, exchange: &str, key: &str, pid: Pid) {
        let vhost = vhost.map(str::to_owned);
        // The default exchange's routing key is the queue's name (AMQP 0-9-1, 3.1.3.1).
        if exchange.is_empty() {
            if let Some(queue) = self.entry(vhost, key) {
                *queue.published.entry(pid).or_default() += 1;
            }
            return;
        }
        let route = (vhost, exchange.to_owned(), key.to_owned(), pid);
        if self.routes.contains_key(&route) || self.routes.len() < MAX_QUEUES {
            *self.routes.entry(route).or_default() += 1;
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn delivered(&mut self, vhost: Option<&str>, name: &str, pid: Pid, redelivered: bool) {
        if let Some(queue) = self.entry(vhost.map(str::to_owned), name) {
            *queue.delivered.entry(pid).or_default() += 1;
            queue.redelivered += u64::from(redelivered);
        }
    }

    pub(super) fn settled(&mut self, life: &Life, passage: &Passage, how: Settled) {
        if let Some(name) = &passage.queue
            && let Some(queue) = self.entry(life.vhost.clone(), name)
        {
            *queue.settled.entry(how).or_default() += 1;
        }
    }
}
