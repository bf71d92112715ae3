//! The figures, for Prometheus and what reads its format. Knows how the service is, and not how that is found out.

mod serve;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::status::Status;
pub use serve::{Listen, Serving, serve};

/// The figures in the OpenMetrics text format, which Prometheus reads.
pub fn encode(status: &Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(status.clone())));
    let mut text = String::new();
    // Writing to a string cannot fail; were it to, half a page ends without the mark of its end, and is refused.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot(Status);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.0;
        let mut page = Page(&mut encoder);
        let rules = || status.rules.iter().map(|rule| (rule.as_str(), (0, 0)));
        // By rule, not by process: what is counted by must not grow with what is watched.
        let mut by_rule: BTreeMap<&str, (u64, u64)> = rules().collect();
        for recorded in &status.recordings {
            // What a user attached to by hand has no rule; no rule can have this name.
            let (all, consuming) = by_rule.entry(recorded.rule.as_deref().unwrap_or("")).or_default();
            *all += 1;
            *consuming += u64::from(recorded.consumes);
        }
        page.info("observer_build", "Version of the program", &[("version", &status.version)])?;
        page.gauge(
            "observer_uptime",
            "How long the service has run",
            Some(Unit::Seconds),
            status.uptime_ns as f64 / 1e9,
        )?;
        page.gauge("observer_rules", "Rules that hold", None, status.rules.len() as f64)?;
        let of = |pick: fn(&(u64, u64)) -> u64| {
            by_rule.iter().map(move |(rule, counts)| (*rule, pick(counts) as f64))
        };
        page.gauges(
            "observer_recordings",
            "Recordings under way, by rule; without one: attached by hand",
            "rule",
            of(|counts| counts.0),
        )?;
        page.gauges(
            "observer_recordings_consuming",
            "Recordings under way of which a worker consumes, by rule",
            "rule",
            of(|counts| counts.1),
        )?;
        page.counter("observer_recordings_begun", "Recordings begun", None, status.begun)?;
        page.counter(
            "observer_sessions_promoted",
            "Sessions kept because something failed",
            None,
            status.promoted,
        )?;
        page.counter("observer_events", "Events recorded", None, status.events)?;
        let lost = status.lost.iter().map(|(place, count)| (place.as_str(), *count as f64));
        page.counters("observer_events_lost", "Events lost, by where", None, "where", lost)?;
        let runs = status.programs.iter().map(|program| (program.name.as_str(), program.run_count as f64));
        page.counters(
            "observer_program_runs",
            "Runs of a program in the kernel; needs kernel.bpf_stats_enabled",
            None,
            "program",
            runs,
        )?;
        let took =
            status.programs.iter().map(|program| (program.name.as_str(), program.run_time_ns as f64 / 1e9));
        page.counters(
            "observer_program_run",
            "Time that a program in the kernel ran; needs kernel.bpf_stats_enabled",
            Some(Unit::Seconds),
            "program",
            took,
        )?;
        page.gauge(
            "observer_resident_memory",
            "Memory of the service",
            Some(Unit::Bytes),
            status.rss_bytes as f64,
        )?;
        page.counter("observer_cpu", "Processor time of the service", Some(Unit::Seconds), status.cpu_s)?;
        page.gauge("observer_sessions", "Finished sessions", None, status.sessions as f64)?;
        page.gauge(
            "observer_sessions_size",
            "What the finished sessions take",
            Some(Unit::Bytes),
            status.sessions_bytes as f64,
        )?;
        page.gauge(
            "observer_free",
            "What is free where the sessions are",
            Some(Unit::Bytes),
            status.free_bytes as f64,
        )?;
        page.gauge(
            "observer_stopped",
            "Whether nothing new is recorded (1) or it is (0)",
            None,
            f64::from(u8::from(status.stopped.is_some())),
        )?;
        page.gauge("observer_clients", "Clients connected", None, status.clients as f64)?;
        let hooks = status.hooks;
        let outcomes = [
            ("succeeded", hooks.succeeded),
            ("failed", hooks.failed),
            ("limited", hooks.limited),
            ("dropped", hooks.dropped),
        ];
        let outcomes = outcomes.into_iter().map(|(outcome, count)| (outcome, count as f64));
        page.counters(
            "observer_hooks",
            "Hooks that were due, by what became of them",
            None,
            "outcome",
            outcomes,
        )
    }
}

/// A label's value as the format wants it; `prometheus-client` (0.24) writes it as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Counts are whole numbers, and are written so.
trait Count {
    fn write(self, to: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result;
}

impl Count for u64 {
    fn write(self, to: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        ConstCounter::new(self).encode(to)
    }
}

impl Count for f64 {
    fn write(self, to: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        ConstCounter::new(self).encode(to)
    }
}

struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &String)]) -> fmt::Result {
        let labels: Vec<(String, String)> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), escaped(value))).collect();
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, value: f64) -> fmt::Result {
        let to = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        ConstGauge::new(value).encode(to)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: impl Count) -> fmt::Result {
        value.write(self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'l str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (said, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&[(label, escaped(said))])?)?;
        }
        Ok(())
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        label: &str,
        values: impl Iterator<Item = (&'l str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (said, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(label, escaped(said))])?)?;
        }
        Ok(())
    }
}
