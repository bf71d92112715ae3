use serde_json::json;

use super::{super::sink::Ours, answers::Vhost, *};
use crate::event::broker::{BrokerConnection, BrokerConsumer, QueueSample};

/// Answers of RabbitMQ 3.10.8, as it gave them.
macro_rules! answer {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("rabbitmq-3.10/", $name, ".json"))).unwrap()
    };
}

fn connections(answer: Value) -> Vec<BrokerConnection> {
    list::<Connection>(answer).into_iter().filter_map(Connection::into_event).collect()
}

fn consumers(answer: Value, own: &Ours) -> Vec<BrokerConsumer> {
    list::<Consumer>(answer).into_iter().filter_map(|one| one.into_event(own)).collect()
}

fn queues(answer: Value, own: &Ours) -> Vec<QueueSample> {
    list::<Queue>(answer).into_iter().filter_map(|one| one.into_event(own)).collect()
}

#[test]
fn rabbitmq_3_10_tells_connections_with_both_ends_and_properties() {
    let all = connections(answer!("connections"));
    assert_eq!(all.len(), 3);
    let worker =
        all.iter().find(|one| one.client_properties.get("connection_name").is_some_and(|name| name == "w1"));
    let worker = worker.unwrap();
    assert_eq!(worker.peer_host.as_deref(), Some("127.0.0.1"));
    assert!(worker.name.starts_with(&format!("127.0.0.1:{} -> ", worker.peer_port.unwrap())));
    assert_eq!((worker.port, worker.channels), (Some(19372), Some(1)));
    assert_eq!(worker.client_properties["product"], "Pika Python Client Library");
    assert_eq!(worker.state.as_deref(), Some("running"));
    assert!(all.iter().all(|one| !one.ours));
}

#[test]
fn rabbitmq_3_10_tells_consumers_and_queues() {
    let mut own = Ours::default();
    let all = consumers(answer!("consumers"), &own);
    let worker = all.iter().find(|one| one.consumer_tag == "ct1").unwrap();
    assert_eq!((worker.queue.as_str(), worker.vhost.as_str()), ("shop", "/"));
    assert_eq!((worker.prefetch, worker.ack_required, worker.channel), (Some(7), Some(true), Some(1)));
    own.connections.insert(worker.connection.clone().unwrap());
    let ours = consumers(answer!("consumers"), &own).into_iter().filter(|one| one.ours).count();
    assert_eq!(ours, 1);
    own.queues.insert(("/".into(), "shop".into()));
    let all = queues(answer!("queues"), &own);
    let shop = all.iter().find(|one| one.queue == "shop").unwrap();
    assert_eq!((shop.ready, shop.unacked, shop.consumers), (Some(0), Some(2), Some(1)));
    assert!(shop.ours && all.iter().filter(|one| one.ours).count() == 1);
}

#[test]
fn rabbitmq_3_10_tells_the_rest() {
    assert_eq!(
        serde_json::from_value::<Overview>(answer!("overview")).unwrap().product_version.unwrap(),
        "3.10.8"
    );
    assert_eq!(serde_json::from_value::<Whoami>(answer!("whoami")).unwrap().tags(), ["administrator"]);
    assert_eq!(serde_json::from_value::<Vhost>(answer!("vhost")).unwrap().tracing, Some(true));
    let alarms: Vec<_> = list::<Node>(answer!("nodes")).into_iter().flat_map(Node::alarms).collect();
    assert_eq!(
        alarms.iter().map(|one| (one.resource.as_str(), one.set)).collect::<Vec<_>>(),
        [("memory", false), ("disk", false)]
    );
    assert_eq!(list::<Facts>(answer!("policies"))[0]["definition"]["max-length"], 100);
    assert_eq!(list::<Facts>(answer!("bindings")).len(), 5);
}

/// RabbitMQ 4 answers in pages when asked to, leaves statistics out, and has fields of its own.
#[test]
fn fields_of_rabbitmq_4_that_are_new_missing_or_of_another_type_cost_only_themselves() {
    let page = |items: Value| json!({"filtered_count": 1, "item_count": 1, "page": 1, "page_count": 1, "items": items});
    let all = connections(page(json!([
        {"name": "10.0.0.1:5 -> 10.0.0.2:5672", "peer_host": "10.0.0.1", "peer_port": "unknown", "port": 5672,
         "protocol": {"AMQP": [1, 0]}, "container_id": "shop", "client_properties": [], "channels": "undefined",
         "connected_at": 1_795_454_663_757_u64, "user": "shop", "vhost": "/"},
        {"peer_host": "a connection that is just being opened has no name"},
        "nonsense",
    ])));
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].peer_port, all[0].port, all[0].channels), (None, Some(5672), None));
    assert_eq!(all[0].user.as_deref(), Some("shop"));
    assert!(all[0].client_properties.is_empty());

    let own = Ours::default();
    let all = consumers(
        json!([
            {"consumer_tag": "t", "channel_details": [], "queue": {"name": "q", "vhost": "/"}, "prefetch_count": 2,
             "consumer_timeout": "undefined", "activity_status": "single_active"},
            {"consumer_tag": "t", "queue": []},
        ]),
        &own,
    );
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].connection.as_ref(), all[0].prefetch, all[0].ack_required), (None, Some(2), None));

    let all = queues(
        page(json!([
            {"name": "q", "vhost": "/", "type": "quorum", "leader": "rabbit@a", "members": ["rabbit@a"],
             "delivery_limit": 20, "messages": 3},
        ])),
        &own,
    );
    assert_eq!((all[0].ready, all[0].unacked, all[0].consumers), (None, None, None));
    let alarms = list::<Node>(json!([{"name": "rabbit@a", "mem_alarm": true, "being_drained": false}]));
    assert_eq!(alarms.into_iter().flat_map(Node::alarms).count(), 1);
    let whoami = json!({"name": "shop", "tags": "monitoring,policymaker", "is_internal_user": true});
    assert_eq!(serde_json::from_value::<Whoami>(whoami).unwrap().tags(), ["monitoring", "policymaker"]);
    assert_eq!(
        serde_json::from_value::<Vhost>(json!({"protected_from_deletion": false})).unwrap().tracing,
        None
    );
}
