//! Settings of dramatiq that cannot be used: environment variables that are to be numbers and are none.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends::{self, End},
    exits::exit_evidence,
    finding::{Evidence, Finding},
};
use crate::model::{dramatiq::Role, ladder::Rung, process::Process};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[setting_invalid];

/// Variables that dramatiq reads as whole numbers while its modules are imported (2.2 and 1.17: `worker.py`, `brokers/rabbitmq.py`,
/// `brokers/redis.py`, `middleware/prometheus.py`, `middleware/group_callbacks.py`), and the module of dramatiq that does. Those of
/// `worker` and what it imports are read by every process; the others only by who imports them.
const NUMBERS: &[(&str, &str)] = &[
    ("dramatiq_restart_delay", "worker"),
    ("dramatiq_queue_prefetch", "worker"),
    ("dramatiq_delay_queue_prefetch", "worker"),
    ("dramatiq_worker_timeout", "worker"),
    ("dramatiq_dead_message_ttl", "rabbitmq"),
    ("dramatiq_lua_max_stack", "redis"),
    ("dramatiq_prom_port", "prometheus"),
    ("dramatiq_group_callback_barrier_ttl", "group_callbacks"),
];
