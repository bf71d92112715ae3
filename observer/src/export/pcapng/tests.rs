//! Captures of hand-made sessions, read back.

use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;
use crate::{
    diagnose,
    event::{Address, Direction, Disconnect, Known},
    export::testing::{exported, session_of},
    model::{
        fixture::{HOSTILE, WORKER, at, inet},
        wire::{Wire, ack, body, deliver},
    },
};

/// A packet: from which port, sequence numbers, flags, payload, and what is said of it.
#[derive(Debug)]
struct Packet {
    at: Duration,
    from: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
    said: String,
}

struct Read {
    section: String,
    end: String,
    packets: Vec<Packet>,
}

fn captured(events: Vec<Event>) -> Read {
    let (_scratch, session) = session_of(events);
    let model = fold::fold(&session, &Filter::default(), None).unwrap();
    let ending = session.ending();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    let explanation = diagnose::explain(&case);
    let bytes = exported(|out, progress| {
        write(&session, &case, &explanation, out, progress)?;
        assert_eq!(progress.counter().load(std::sync::atomic::Ordering::Relaxed), super::events(&model));
        Ok(())
    });
    let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
    let text = |options: &[SectionHeaderOption<'_>]| {
        options.iter().find_map(|option| match option {
            SectionHeaderOption::Comment(text) => Some(text.to_string()),
            _ => None,
        })
    };
    let mut read =
        Read { section: text(&reader.section().options).unwrap(), end: String::new(), packets: Vec::new() };
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
            }
            Block::EnhancedPacket(packet) => read.packets.push(taken_apart(&packet)),
            Block::InterfaceStatistics(statistics) => {
                let InterfaceStatisticsOption::Comment(text) = &statistics.options[0] else { panic!() };
                read.end = text.to_string();
            }
            block => panic!("{block:?}"),
        }
    }
    read
}

fn taken_apart(packet: &EnhancedPacketBlock<'_>) -> Packet {
    let tcp = &packet.data[20..];
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let said = packet.options.iter().map(|option| match option {
        EnhancedPacketOption::Comment(text) => text.to_string(),
        option => panic!("{option:?}"),
    });
    assert_eq!(packet.original_len as usize, packet.data.len());
    Packet {
        at: packet.timestamp,
        from: u16::from_be_bytes([tcp[0], tcp[1]]),
        seq: number(4),
        ack: number(8),
        flags: tcp[13],
        payload: tcp[20..].to_vec(),
        said: said.collect(),
    }
}

fn conversation() -> (Vec<Event>, Wire) {
    let mut events = Vec::new();
    let mut wire = Wire::connect(&mut events, 1_000, 2, WORKER, 4715);
    wire.open(&mut events, 2_000);
    wire.consume(&mut events, 3_000, "default", 4);
    let message = deliver(1, "default", false, &body("default", "m-1", ""));
    wire.received(&mut events, 4_000, &message);
    (events, wire)
}

const CLIENT: u16 = 40_002;

#[test]
fn a_conversation_is_a_handshake_then_a_frame_a_packet_with_the_numbers_of_tcp() {
    let (mut events, mut wire) = conversation();
    wire.sent(&mut events, 5_000, &ack(1, false));
    let gone = Body::Disconnect {
        socket: SocketId(2),
        how: Disconnect::ResetByPeer,
        errno: 104,
        peer: inet(5672),
        local: inet(CLIENT),
    };
    events.push(at(6_000, WORKER, 4715, gone));
    let read = captured(events);
    let flags: Vec<u8> = read.packets.iter().map(|packet| packet.flags).collect();
    let [made @ .., end] = flags.as_slice() else { panic!() };
    assert_eq!(made[..3], [packet::SYN, packet::SYN | packet::ACK, packet::ACK]);
    assert!(made[3..].iter().all(|flags| *flags == packet::PSH | packet::ACK));
    assert_eq!(*end, packet::RST | packet::ACK);
    assert_eq!(read.packets[3].payload, b"AMQP\0\0\x09\x01");
    // In each direction every packet begins where the one before ended, and acknowledges all that the other side said.
    let mut next = [0_u32; 2];
    for packet in &read.packets {
        let side = usize::from(packet.from != CLIENT);
        assert_eq!(packet.seq, next[side], "{packet:?}");
        assert!(packet.flags & packet::ACK == 0 || packet.ack == next[1 - side], "{packet:?}");
        next[side] += packet.payload.len() as u32 + u32::from(packet.flags & packet::SYN != 0);
        if packet.payload.len() > 8 {
            let size = u32::from_be_bytes(packet.payload[3..7].try_into().unwrap()) as usize;
            assert_eq!(packet.payload.len(), size + 8, "one whole frame");
        }
    }
    let ack = &read.packets[read.packets.len() - 2];
    assert!(ack.said.starts_with("process 4712 (") && ack.said.contains("thread 4715"), "{}", ack.said);
    // 2026-11-23T16:15:00Z, and 5 ms.
    assert_eq!(ack.at, Duration::from_nanos(1_795_450_500_005_000_000));
    assert!(read.section.starts_with("observer.pcapng/1\nsession 20261123-161500-3f9a (failing)"));
    assert!(read.section.contains("not seen: file calls made through io_uring"), "{}", read.section);
    assert_eq!(read.end, "observer.pcapng/1: no event was lost");
}

#[test]
fn what_was_not_recorded_is_a_jump_that_is_told_and_no_bytes() {
    let (mut events, mut wire) = conversation();
    let before = captured(events.clone()).packets.len();
    wire.missed(Direction::Received, 1_000);
    let late = deliver(9, "default", false, &body("default", "m-9", ""));
    wire.received(&mut events, 5_000, &late);
    let read = captured(events);
    // A frame can be told from noise when another follows it; the session's end tells the rest.
    let after = &read.packets[before..];
    let gap = after.iter().find(|packet| packet.payload.is_empty()).unwrap();
    assert!(gap.said.contains("1000 bytes of this direction were not recorded"), "{}", gap.said);
    let whole: Vec<u8> = after.iter().flat_map(|packet| packet.payload.clone()).collect();
    // All of it, but for the secret that the session does not hold.
    assert_eq!(whole.len(), late.len());
    let holds_secret = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"s3cret");
    assert!(holds_secret(&late) && !holds_secret(&whole));
    let last = read.packets[..before].iter().rfind(|packet| packet.from == 5672).unwrap();
    assert_eq!(gap.seq, last.seq + last.payload.len() as u32 + 1_000);
}

#[test]
fn a_connection_without_internet_addresses_gets_some_and_says_so() {
    let (mut events, _) = conversation();
    for event in &mut events {
        if let Body::Connect { peer, local, .. } = &mut event.body {
            *peer = Known::Is(Address::Unix { path: "/run/rabbit.sock".to_owned() });
            *local = Known::none();
        }
    }
    let read = captured(events);
    let first = &read.packets[0];
    assert!(first.said.contains("the other end is unix /run/rabbit.sock"), "{}", first.said);
    assert!(first.said.contains("made up"), "{}", first.said);
    assert!(read.packets.iter().any(|packet| packet.from == 5672), "Wireshark takes it for AMQP");
}

#[test]
fn losses_and_findings_are_told_and_nothing_steers_a_terminal() {
    let mut events = crate::model::fixture::events();
    events.insert(
        22,
        crate::model::fixture::output(6_500_900, WORKER, crate::event::OutputStream::Stderr, HOSTILE),
    );
    let read = captured(events);
    assert_eq!(read.end, "observer.pcapng/1: 12 events lost (file 12)");
    assert!(
        read.section.contains("\nverdict ") && read.section.contains("12 events lost"),
        "{}",
        read.section
    );
    let all = read.packets.iter().map(|packet| &packet.said).chain([&read.section, &read.end]);
    assert!(all.flat_map(|text| text.lines()).flat_map(str::chars).all(crate::words::escape::is_plain));
}
