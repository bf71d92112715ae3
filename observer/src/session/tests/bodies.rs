//! One of each kind of event.

use crate::event::{broker::*, *};

fn file_call() -> FileCall {
    FileCall {
        syscall: "openat".into(),
        path: Known::Partial { partial: "lib/\"ü\u{1b}".into(), missing_bytes: Some(3) },
        resolved: Known::Is("/srv/lib/x.py".into()),
        dirfd: Some(Fd(-100)),
        flags: u64::MAX,
        result: Some(5),
        errno: 0,
        duration_ns: 1_234,
    }
}

fn exec() -> Exec {
    Exec {
        path: Known::Is("/usr/bin/python3".into()),
        // A list of one word that is also the name of a reason for absence must stay a list.
        argv: Known::Is(vec!["none".into()]),
        env: Known::Partial { partial: vec!["A=1".into(), "B==2".into()], missing_bytes: None },
        cwd: Known::Is("/srv".into()),
        exe: Known::Is(Executable { path: Known::unknown(), device: "8:1".into(), inode: 7 }),
        ppid: Pid(1),
        caller: Tid(12),
        user: Known::Is(User { uid: 1, euid: 2, gid: 3, egid: 4, groups: Known::Is(vec![3, 4]) }),
        umask: Known::Is(0o22),
        limits: Known::Is(vec![Limit { name: "NOFILE".into(), soft: Some(1024), hard: None }]),
        tty: Known::none(),
        stdio: vec![
            Known::Is(FdTarget {
                what: FdKind::Pipe,
                path: Known::none(),
                inode: 9,
                other_end: Known::Is(vec![Holder { pid: Pid(2), name: "tee".into() }]),
            }),
            Known::not_collected(),
        ],
        cgroup: Known::Is("/system.slice/worker.service".into()),
        rule: None,
        dumpable: None,
    }
}

/// One of each; a new variant of [`Body`] must be added to `complete` below to compile.
pub(super) fn all() -> Vec<Body> {
    let inet = || Known::Is(Address::Inet { ip: "::1".parse().unwrap(), port: 5672 });
    let unix = || Known::Is(Address::Unix { path: "@x".into() });
    let (socket, fd) = (SocketId(u64::MAX), Fd(3));
    let bodies = vec![
        Body::Fork { child: Pid(20) },
        Body::Thread { child: Tid(21) },
        Body::Exec(Box::new(exec())),
        Body::ExecFailed { path: Known::unknown(), errno: 2 },
        Body::ExitCall { code: -1, group: true },
        Body::ThreadExit { code: None, signal: Some(9) },
        Body::Exit { code: Some(3), signal: None, core_dumped: false },
        Body::Signal {
            signal: 15,
            code: 0,
            sender: Known::Is(Sender {
                pid: Pid(1),
                name: "kill".into(),
                cmdline: Known::Is("kill 10".into()),
            }),
            group: true,
            queued: true,
        },
        Body::SignalDelivered { signal: 15, handled: true },
        Body::OomVictim,
        Body::Open(file_call()),
        Body::Stat(file_call()),
        Body::Access(file_call()),
        Body::Readlink(file_call()),
        Body::Scan(file_call()),
        Body::Chdir(file_call()),
        Body::Socket { socket, fd, family: 2, socket_type: 1, protocol: 6 },
        Body::SocketFailed { family: 2, errno: 24 },
        Body::Connect { socket, fd, peer: inet(), local: Known::none(), errno: 115, duration_ns: 5 },
        Body::Connected { socket, peer: inet(), local: inet(), errno: 0, duration_ns: 6 },
        Body::Bind { socket, fd, address: unix(), errno: 0 },
        Body::Listen { socket, fd, address: Known::Is(Address::Other { number: 16 }), errno: 0 },
        Body::Accept { socket, fd, peer: inet(), local: inet() },
        Body::Close { socket, fd },
        Body::Disconnect { socket, how: Disconnect::ResetByPeer, errno: 104, peer: inet(), local: inet() },
        Body::Data {
            socket,
            fd,
            direction: Direction::Sent,
            offset: 8,
            len: 4,
            syscall: "sendto".into(),
            errno: 0,
            since_attach: true,
            redacted: vec![(8, 9)],
        },
        Body::Lookup { socket, name: "rabbit.invalid".into(), code: Some(3), records: 0 },
        Body::Output { stream: OutputStream::Stderr, fd, inode: 4, len: 3, piece_offset: 0, errno: 0 },
        Body::Stuck { syscall: "futex".into(), since_ns: 1, on: Known::unknown(), args: [u64::MAX; 6] },
        Body::Unstuck { syscall: "futex".into(), since_ns: 1, result: Known::Is(-4) },
        Body::State { state: 'T' },
        Body::Lost { hop: Hop::Ring, what: "file".into(), cpu: Some(1), count: 17 },
        Body::Gap { since_ns: 5, gone: vec![Pid(20)], why: "«killed»\n".into() },
        Body::Note { level: NoteLevel::Warning, text: "«note»\n".into() },
    ];
    let bodies: Vec<Body> = bodies.into_iter().chain(brokers()).collect();
    assert!(bodies.iter().all(complete));
    let kinds: std::collections::HashSet<_> = bodies.iter().map(Body::kind).collect();
    assert_eq!(kinds.len(), bodies.len(), "one of each");
    bodies
}

fn brokers() -> [Body; 17] {
    let (vhost, queue) = ("/".to_owned(), "shop\u{1b}".to_owned());
    let connection = "127.0.0.1:5 -> 127.0.0.1:5672".to_owned();
    let facts: std::collections::BTreeMap<_, _> =
        [("kind".into(), 1.into()), ("none".into(), ().into())].into();
    [
        Body::QueueSample(QueueSample {
            published: Some(9),
            delivered: None,
            vhost: vhost.clone(),
            queue: queue.clone(),
            ready: Some(3),
            unacked: None,
            consumers: Some(0),
            state: Some("running".into()),
            how: Way::PassiveDeclare,
            ours: false,
        }),
        Body::BrokerConnection(Box::new(BrokerConnection {
            name: connection.clone(),
            present: true,
            user: Some("shop".into()),
            vhost: Some(vhost.clone()),
            peer_host: Some("127.0.0.1".into()),
            peer_port: Some(5),
            port: None,
            client_properties: [("product".into(), "observer".into())].into(),
            state: None,
            channels: Some(1),
            connected_at_ms: Some(u64::MAX),
            node: None,
            local_pid: Some(Pid(9)),
            local_command: Some(vec!["python".into(), "rival.py".into()]),
            local_parent_command: Some(vec!["bash".into()]),
            how: Way::Events,
            ours: true,
        })),
        Body::BrokerConsumer(BrokerConsumer {
            connection: Some(connection.clone()),
            channel: Some(1),
            vhost: vhost.clone(),
            queue: queue.clone(),
            consumer_tag: "t".into(),
            present: false,
            prefetch: Some(4),
            ack_required: Some(true),
            how: Way::Management,
            ours: false,
        }),
        Body::BrokerEvent(BrokerEvent { name: "policy.set".into(), facts, how: Way::Events, ours: false }),
        Body::BrokerMessage(Box::new(BrokerMessage {
            passage: Passage::Delivered,
            vhost: vhost.clone(),
            exchange: String::new(),
            queue: Some(queue),
            routed_queues: vec![],
            routing_keys: vec!["shop".into()],
            message_id: None,
            dramatiq_message_id: None,
            node: None,
            connection: Some(connection),
            channel: Some(1),
            user: None,
            redelivered: Some(true),
        })),
        Body::BrokerAlarm(BrokerAlarm {
            node: "rabbit@lab".into(),
            resource: "memory".into(),
            set: true,
            how: Way::Events,
        }),
        Body::BrokerAccess(BrokerAccess {
            way: Way::Firehose,
            vhost: Some(vhost),
            available: false,
            detail: "tracing is off".into(),
        }),
        Body::ModuleSearch(ModuleSearch {
            name: "app.tasks".into(),
            near: vec![Near { root: "/srv".into(), path: "/srv/app/tasks.py".into() }],
            installed: None,
            absent: vec!["/srv/lib".into()],
            entries: 12,
            complete: true,
        }),
        Body::SourceLook(SourceLook {
            path: "/srv/app/tasks.py".into(),
            actors: vec![7],
            imports: vec![(1, "dramatiq".into())],
            complete: true,
            ..SourceLook::default()
        }),
        Body::FileLook(FileLook {
            path: "/srv/app/.env".into(),
            len_bytes: 211,
            digest: None,
            variables: vec![(3, "SHOP_REGION".into())],
            alike: vec![(4, "QUEUE_NAME".into())],
        }),
        Body::Import(Box::new(Import {
            module: Known::Is("app.tasks".into()),
            importer: Known::Is("/srv/app/main.py".into()),
            function: Known::none(),
            level: Some(0),
            depth: 1,
        })),
        Body::CachedImport(Box::new(CachedImport {
            module: Known::Is(String::new()),
            level: 1,
            importer: Known::Is("/srv/app/main.py".into()),
            function: Known::Is("later".into()),
            depth: 0,
        })),
        Body::Imported(Imported {
            module: Known::Is("app.tasks".into()),
            since_ns: 7,
            loaded: false,
            exception: Some("ModuleNotFoundError".into()),
            depth: 1,
        }),
        Body::Interpreter(Box::new(Interpreter {
            executable: "/usr/bin/python3.11".into(),
            holder: Some("/usr/bin/python3.11".into()),
            version: Some("3.11.2".into()),
            prefix: Some("/usr".into()),
            base_prefix: None,
            imports: ImportSight::Late,
            why: Some("not probed before it began".into()),
        })),
        Body::Distributions(Distributions {
            site: "/venv/lib/python3.12/site-packages".into(),
            found: vec![Distribution {
                name: "pika".into(),
                version: "1.4.4".into(),
                modules: vec!["pika".into()],
                editable: Some("/home/me/pika".into()),
            }],
            unclaimed: Vec::new(),
            complete: true,
        }),
        Body::LoadedModules(LoadedModules { names: vec!["sys".into(), "app.tasks".into()], complete: true }),
        Body::ModuleShadows(ModuleShadows {
            hiding: vec![Hiding {
                name: "queue".into(),
                entry: "/srv".into(),
                hidden: vec!["/usr/lib/python3.11/queue.py".into()],
            }],
            asked: 3,
            complete: true,
        }),
    ]
}

const fn complete(body: &Body) -> bool {
    match body {
        Body::Fork { .. }
        | Body::Thread { .. }
        | Body::Exec(_)
        | Body::ExecFailed { .. }
        | Body::ExitCall { .. } => true,
        Body::ThreadExit { .. } | Body::Exit { .. } | Body::Signal { .. } | Body::SignalDelivered { .. } => {
            true
        }
        Body::OomVictim
        | Body::Open(_)
        | Body::Stat(_)
        | Body::Access(_)
        | Body::Readlink(_)
        | Body::Scan(_) => true,
        Body::Chdir(_) | Body::Socket { .. } | Body::SocketFailed { .. } | Body::Connect { .. } => true,
        Body::Connected { .. }
        | Body::Bind { .. }
        | Body::Listen { .. }
        | Body::Accept { .. }
        | Body::Close { .. } => true,
        Body::Disconnect { .. }
        | Body::Data { .. }
        | Body::Lookup { .. }
        | Body::Output { .. }
        | Body::Stuck { .. }
        | Body::Unstuck { .. } => true,
        Body::State { .. } | Body::Lost { .. } | Body::Gap { .. } | Body::Note { .. } => true,
        Body::QueueSample(_)
        | Body::BrokerConnection(_)
        | Body::BrokerConsumer(_)
        | Body::BrokerEvent(_)
        | Body::BrokerMessage(_)
        | Body::BrokerAlarm(_)
        | Body::BrokerAccess(_)
        | Body::ModuleSearch(_)
        | Body::SourceLook(_)
        | Body::FileLook(_)
        | Body::Import(_)
        | Body::CachedImport(_)
        | Body::Imported(_)
        | Body::Interpreter(_)
        | Body::Distributions(_)
        | Body::ModuleShadows(_)
        | Body::LoadedModules(_) => true,
    }
}
