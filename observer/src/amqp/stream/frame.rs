//! What a decoder yields: frames, what stood where frames should, and what was not seen. Knows nothing of connections.

use crate::amqp::names::method_name;
use amq_protocol::{
    frame::{AMQPFrame, parsing::parse_frame},
    protocol::{AMQPClass, basic::AMQPProperties},
};

/// The end byte of every frame (AMQP 0-9-1, 4.2.3).
pub(super) const FRAME_END: u8 = 0xCE;
/// The bytes before a frame's payload: type, channel, size.
pub(super) const HEADER_BYTES: usize = 7;
/// How deep tables and arrays may nest. The parser recurses, and its input is hostile.
const DEEPEST_TABLE: usize = 32;

/// A piece of a stream with a meaning. `start` and `end` are stream offsets, `[start, end)`, of the whole frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset after its last byte.
    pub end: u64,
    /// What it is.
    pub content: Content<'a>,
}

/// What a piece of a stream is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// The protocol header `AMQP`, with the four bytes after it.
    ProtocolHeader {
        /// `[0, 0, 9, 1]` for AMQP 0-9-1; after any other nothing more comes from this stream.
        version: [u8; 4],
    },
    /// A method, with all its arguments.
    Method {
        /// Its channel; 0 is the connection.
        channel: u16,
        /// The method.
        method: AMQPClass,
    },
    /// A content header: what comes before a message's body.
    Header {
        /// Its channel.
        channel: u16,
        /// Length of the whole body.
        body_size: u64,
        /// The message's properties.
        properties: AMQPProperties,
    },
    /// A piece of a body frame. A frame that came in several chunks, or with a gap, comes in several pieces of the same `start`.
    Body {
        /// Its channel.
        channel: u16,
        /// Payload length of the whole frame.
        size: u32,
        /// Where in the payload this piece stands.
        at: u32,
        /// The piece, when it was captured.
        bytes: &'a [u8],
        /// How long it is when it was not.
        missing: u32,
    },
    /// A heartbeat.
    Heartbeat,
    /// A whole frame with a method that is neither AMQP 0-9-1 nor RabbitMQ's.
    UnknownMethod {
        /// Its channel.
        channel: u16,
        /// Its class id.
        class_id: u16,
        /// Its method id.
        method_id: u16,
    },
    /// A whole frame whose payload is not what its type and ids say.
    Malformed {
        /// Its channel.
        channel: u16,
        /// 1 for a method, 2 for a content header.
        frame_type: u8,
    },
    /// The stream is not AMQP. Nothing more comes from it.
    NotAmqp(Foreign),
    /// Not captured, or captured and impossible to place.
    Unseen,
}

/// Protocols that are met where AMQP was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// An HTTP request.
    HttpRequest,
    /// An HTTP answer.
    HttpResponse,
    /// A TLS handshake begun by a client.
    TlsClientHello,
    /// Any other TLS handshake record.
    TlsHandshake,
    /// A TLS alert, with its description (RFC 8446, 6).
    TlsAlert {
        /// The alert's number (70 is protocol_version).
        description: u8,
    },
    /// An SSH banner.
    Ssh,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HttpRequest => f.write_str("an HTTP request"),
            Self::HttpResponse => f.write_str("an HTTP answer"),
            Self::TlsClientHello => f.write_str("a TLS ClientHello"),
            Self::TlsHandshake => f.write_str("a TLS handshake"),
            Self::TlsAlert { description } => write!(f, "a TLS alert ({description})"),
            Self::Ssh => f.write_str("an SSH banner"),
        }
    }
}

/// Names the version in a protocol header, the four bytes after `AMQP`.
pub fn protocol_name(version: [u8; 4]) -> String {
    match version {
        [0, 0, 9, 1] => "AMQP 0-9-1".into(),
        [1, 1, 0, 10] => "AMQP 0-10".into(),
        [1, 1, 0, 9] => "AMQP 0-9".into(),
        [1, 1, 8, 0] => "AMQP 0-8".into(),
        [0, 1, 0, 0] => "AMQP 1.0".into(),
        [2, 1, 0, 0] => "AMQP 1.0 over TLS".into(),
        [3, 1, 0, 0] => "AMQP 1.0 with SASL".into(),
        [a, b, c, d] => format!("AMQP {a}.{b}.{c}.{d}"),
    }
}

/// What a stream's first bytes say.
pub(super) enum Opening {
    /// Not enough bytes yet.
    More,
    /// An AMQP protocol header.
    Amqp([u8; 4]),
    /// Another protocol.
    Foreign(Foreign),
    /// Nothing known: frames, or the middle of one.
    Unknown,
}

/// Judges a stream's first bytes.
pub(super) fn opening(first: &[u8]) -> Opening {
    match *first {
        [b'A', b'M', b'Q', b'P', a, b, c, d, ..] => return Opening::Amqp([a, b, c, d]),
        [0x15, 3, _, 0, 2, _, description, ..] => return Opening::Foreign(Foreign::TlsAlert { description }),
        [0x16, 3, _, _, _, 1, ..] => return Opening::Foreign(Foreign::TlsClientHello),
        [0x16, 3, _, _, _, _, ..] => return Opening::Foreign(Foreign::TlsHandshake),
        [0x15 | 0x16] => return Opening::More,
        [0x15 | 0x16, 3, ..] if first.len() < HEADER_BYTES => return Opening::More,
        _ => {}
    }
    const KNOWN: [(&[u8], Foreign); 10] = [
        (b"HTTP/", Foreign::HttpResponse),
        (b"GET ", Foreign::HttpRequest),
        (b"PUT ", Foreign::HttpRequest),
        (b"POST ", Foreign::HttpRequest),
        (b"HEAD ", Foreign::HttpRequest),
        (b"PATCH ", Foreign::HttpRequest),
        (b"DELETE ", Foreign::HttpRequest),
        (b"OPTIONS ", Foreign::HttpRequest),
        (b"CONNECT ", Foreign::HttpRequest),
        (b"SSH-", Foreign::Ssh),
    ];
    if let Some((_, foreign)) = KNOWN.iter().find(|(known, _)| first.starts_with(known)) {
        return Opening::Foreign(*foreign);
    }
    let more = KNOWN.iter().any(|(known, _)| known.starts_with(first));
    let amqp = b"AMQP".starts_with(first) || first.starts_with(b"AMQP");
    if more || amqp { Opening::More } else { Opening::Unknown }
}

/// A frame's seven-byte header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) frame_type: u8,
    pub(super) channel: u16,
    pub(super) size: u32,
}

impl FrameHeader {
    /// Reads a header; `None` when one like it cannot be. `bytes` has at least [`HEADER_BYTES`].
    pub(super) fn read(bytes: &[u8], largest: u32) -> Option<Self> {
        let [frame_type, c1, c2, a, b, c, d, ..] = *bytes else { return None };
        let (channel, size) = (u16::from_be_bytes([c1, c2]), u32::from_be_bytes([a, b, c, d]));
        let possible = match frame_type {
            // Buffered whole, so bounded by more than the connection's frame_max.
            1 | 2 => size <= largest.min(LARGEST_METHOD),
            3 => size <= largest && channel != 0,
            8 => size == 0 && channel == 0,
            _ => false,
        };
        possible.then_some(Self { frame_type, channel, size })
    }

    /// The frame's whole length, end byte included.
    pub(super) fn frame_len(self) -> usize {
        HEADER_BYTES + self.size as usize + 1
    }
}

/// No method or content header is larger: RabbitMQ's own limit is frame_max, 128 KiB by default.
const LARGEST_METHOD: u32 = 1 << 20;

/// Decodes a whole method, header or heartbeat frame, its end byte already checked.
pub(super) fn decode<'a>(header: FrameHeader, frame: &[u8]) -> Content<'a> {
    let channel = header.channel;
    let payload = frame.get(HEADER_BYTES..).unwrap_or_default();
    if !nests_too_deep(payload) {
        match parse_frame(frame) {
            Ok((_, AMQPFrame::Method(channel, method))) => return Content::Method { channel, method },
            Ok((_, AMQPFrame::Header(channel, header))) => {
                return Content::Header {
                    channel,
                    body_size: header.body_size,
                    properties: header.properties,
                };
            }
            Ok((_, AMQPFrame::Heartbeat)) => return Content::Heartbeat,
            _ => {}
        }
    }
    match *payload {
        [c1, c2, m1, m2, _, ..] if header.frame_type == 1 => {
            let (class_id, method_id) = (u16::from_be_bytes([c1, c2]), u16::from_be_bytes([m1, m2]));
            if method_name(class_id, method_id).is_some() {
                Content::Malformed { channel, frame_type: 1 }
            } else {
                Content::UnknownMethod { channel, class_id, method_id }
            }
        }
        _ => Content::Malformed { channel, frame_type: header.frame_type },
    }
}

/// Whether tables and arrays in this payload may nest deeper than the parser's stack should bear.
///
/// Counts everything that looks like a table or array and fits; so it may be wrong about a payload made to look nested, never about
/// one that is.
fn nests_too_deep(payload: &[u8]) -> bool {
    let mut open: Vec<usize> = Vec::new();
    for (at, window) in payload.windows(5).enumerate() {
        let [b'F' | b'A', a, b, c, d] = *window else { continue };
        let end = (at + 5).saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        if end > payload.len() {
            continue;
        }
        while open.last().is_some_and(|open_end| *open_end <= at) {
            open.pop();
        }
        open.push(end);
        if open.len() > DEEPEST_TABLE {
            return true;
        }
    }
    false
}
