use super::*;
use crate::{
    event::{Fd, Known, Origin, Pid, Tid},
    source::broker::{BrokerConfig, BrokerSource, Told},
};
use tokio::sync::mpsc;

fn frame(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0];
    frame.extend((arguments.len() as u32 + 4).to_be_bytes());
    frame.extend(class.to_be_bytes());
    frame.extend(method.to_be_bytes());
    frame.extend(arguments);
    frame.push(0xCE);
    frame
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn login(user: &str, password: &str, vhost: &str, queue: &str) -> Vec<u8> {
    let response = format!("\0{user}\0{password}");
    let long = [&(response.len() as u32).to_be_bytes(), response.as_bytes()].concat();
    let start_ok = [vec![0, 0, 0, 0], short("PLAIN"), long, short("en_US")].concat();
    let tune_ok = [0, 0, 0, 1, 0, 0, 0, 60];
    let open = [short(vhost), vec![0, 0]].concat();
    let declare = [vec![0, 0], short(queue), vec![0], vec![0, 0, 0, 0]].concat();
    [
        PROTOCOL_HEADER.to_vec(),
        frame(10, 11, &start_ok),
        frame(10, 31, &tune_ok),
        frame(10, 40, &open),
        frame(50, 10, &declare),
    ]
    .concat()
}

fn event(body: Body, bytes: &[u8]) -> Event {
    Event { at_ns: 1, pid: Pid(1), tid: Tid(1), observed_from: Origin::Ebpf, body, bytes: bytes.to_vec() }
}

fn connected(socket: u64) -> Event {
    let peer = Known::Is(Address::Inet { ip: "::ffff:127.0.0.1".parse().unwrap(), port: 5673 });
    let socket = SocketId(socket);
    event(Body::Connected { socket, peer, local: Known::unknown(), errno: 0, duration_ns: 1 }, &[])
}

fn sent(socket: u64, offset: u64, len: usize, bytes: &[u8]) -> Event {
    let body = Body::Data {
        socket: SocketId(socket),
        fd: Fd(5),
        direction: Direction::Sent,
        offset,
        len: len as u64,
        syscall: "sendto".into(),
        errno: 0,
        since_attach: false,
        redacted: Vec::new(),
    };
    event(body, bytes)
}

fn watching() -> (FromWorker, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel(16);
    (FromWorker::new(BrokerHandle(tell), true), told)
}

fn all(told: &mut mpsc::Receiver<Told>) -> (Vec<BrokerUrl>, Vec<(String, String)>) {
    let (mut urls, mut queues) = (Vec::new(), Vec::new());
    while let Ok(news) = told.try_recv() {
        match news {
            Told::Broker(url) => urls.push(url),
            Told::Queue(queue) => queues.push(queue),
        }
    }
    (urls, queues)
}

#[test]
fn a_login_in_any_pieces_gives_address_credentials_vhost_and_queues() {
    let bytes = login("shop", "p@ss/w\u{f6}rd", "prod", "orders");
    for step in [1, 3, 7, 50, bytes.len()] {
        let (mut watching, mut told) = watching();
        watching.look(&connected(9));
        for (index, piece) in bytes.chunks(step).enumerate() {
            watching.look(&sent(9, (index * step) as u64, piece.len(), piece));
        }
        let (urls, queues) = all(&mut told);
        assert_eq!(urls, [BrokerUrl::from_parts("127.0.0.1", 5673, "shop", "p@ss/w\u{f6}rd", "prod")]);
        assert_eq!(queues, [("prod".to_owned(), "orders".to_owned())]);
    }
}

#[test]
fn the_broker_is_told_once_and_a_queue_once() {
    let (mut watching, mut told) = watching();
    for socket in [9, 10] {
        let bytes = login("shop", "secret", "/", "orders");
        watching.look(&connected(socket));
        watching.look(&sent(socket, 0, bytes.len(), &bytes));
    }
    let (urls, queues) = all(&mut told);
    assert_eq!((urls.len(), queues.len()), (1, 1));
}

#[test]
fn a_stream_with_a_hole_or_of_another_protocol_is_left_alone() {
    let bytes = login("shop", "secret", "/", "orders");
    let (mut watching, mut told) = watching();
    watching.look(&connected(9));
    watching.look(&sent(9, 0, bytes.len(), &bytes[..40]));
    watching.look(&connected(10));
    watching.look(&sent(10, 0, 40, &bytes[..40]));
    watching.look(&sent(10, 41, bytes.len() - 41, &bytes[41..]));
    watching.look(&connected(11));
    watching.look(&sent(11, 0, 14, b"GET / HTTP/1.1"));
    // Nobody saw whom this one connected to.
    watching.look(&sent(12, 0, bytes.len(), &bytes));
    let (urls, queues) = all(&mut told);
    assert_eq!((urls.len(), queues.len()), (0, 0));
    assert!(watching.streams.is_empty());
}

#[test]
fn without_room_for_the_news_it_is_told_again() {
    let (tell, mut told) = mpsc::channel(1);
    let mut watching = FromWorker::new(BrokerHandle(tell), true);
    let bytes = login("shop", "secret", "/", "orders");
    for socket in 9..12 {
        watching.look(&connected(socket));
        watching.look(&sent(socket, 0, bytes.len(), &bytes));
        let (urls, queues) = all(&mut told);
        assert_eq!(urls.len() + queues.len(), usize::from(socket < 11));
    }
}

#[test]
fn a_source_that_was_never_polled_ends_at_once() {
    let (source, handle) = BrokerSource::new(BrokerConfig::default());
    drop(source);
    assert!(!handle.queue("/", "q"));
}
