//! The AMQP conversations as packets that Wireshark dissects. Knows sessions and what was concluded; nothing of what is said in AMQP.
//!
//! What was recorded are reads and writes. The packets around them are made: real addresses and ports, sequence numbers by the offset in
//! the stream, one AMQP frame a packet. What was not recorded is not there: the sequence number jumps, and a comment says so.

mod cutter;
mod flow;
mod packet;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    io::{self, Write},
    ops::ControlFlow,
    time::Duration,
};

use flow::Flow;
use packet::Segment;
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{ExportError, Lost, Progress, started_at_ns, unseen};
use crate::{
    diagnose::{Explanation, case::Case, finding::Finding},
    event::{Body, Event, Pid, SocketId},
    fold,
    model::{Model, link::Link},
    session::{Filter, Session},
    words::{escape::escape, units},
};

const SCHEMA: &str = "observer.pcapng/1";
/// The kinds of events that are read.
const KINDS: [&str; 9] =
    ["socket", "connect", "connected", "accept", "data", "close", "disconnect", "lost", "gap"];
/// A comment's length has 16 bits.
const MOST_COMMENT_BYTES: usize = 60_000;

/// How many events of a session are read for this.
pub fn events(model: &Model) -> u64 {
    KINDS.iter().filter_map(|kind| model.counts.get(kind)).sum()
}

/// Writes the AMQP conversations of a session, frame by frame in order of time. `case` and `explanation` are the session's.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn write(
    session: &Session,
    case: &Case<'_>,
    explanation: &Explanation,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<(), ExportError> {
    let mut capture = Capture::begin(case, explanation, out)?;
    let mut result = Ok(());
    let kinds = KINDS.map(str::to_owned).to_vec();
    fold::read_ahead(session, &Filter { kinds, ..Filter::default() }, |id, event| {
        progress.one();
        result = capture.take(id, &event);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    Ok(capture.finish()?)
}

/// A connection that was made: when it was begun and done.
type Made = (u64, u64);

/// The packets of a session, being written.
struct Capture<'a, W: Write> {
    packets: Packets<'a, &'a mut W>,
    /// Every connection, by the event of its first bytes.
    links: HashMap<u64, &'a Link>,
    sockets: HashSet<SocketId>,
    made: HashMap<SocketId, Made>,
    flows: HashMap<SocketId, (&'a Link, Flow)>,
    lost: Lost,
    last_ns: u64,
}

impl<'a, W: Write> Capture<'a, W> {
    fn begin(case: &'a Case<'a>, explanation: &Explanation, out: &'a mut W) -> io::Result<Self> {
        let links = || case.model.amqp.links();
        let ours: HashSet<_> = links().filter(|link| !link.accepted).filter_map(ends).collect();
        // Of a connection whose both ends are observed, the client's account is enough: twice would be retransmissions.
        let both = |link: &&Link| {
            link.accepted && ends(link).is_some_and(|(local, peer)| ours.contains(&(peer, local)))
        };
        let links: HashMap<u64, &Link> =
            links().filter(|link| !both(link)).map(|link| (link.opened.event, link)).collect();
        let ports: BTreeSet<u16> = links.values().map(|link| Flow::new(link).port()).collect();
        Ok(Self {
            packets: Packets::begin(case, explanation, &ports, out)?,
            sockets: links.values().map(|link| link.socket).collect(),
            links,
            made: HashMap::new(),
            flows: HashMap::new(),
            lost: Lost::default(),
            last_ns: case.header.started_ns,
        })
    }

    fn take(&mut self, id: u64, event: &Event) -> io::Result<()> {
        self.lost.add(event);
        self.last_ns = self.last_ns.max(event.at_ns);
        match &event.body {
            Body::Socket { socket, .. } => {
                self.made.remove(socket);
                return self.end(*socket);
            }
            Body::Connect { socket, errno: 0, duration_ns, .. }
            | Body::Connected { socket, errno: 0, duration_ns, .. }
                if self.sockets.contains(socket) =>
            {
                let made = (event.at_ns.saturating_sub(*duration_ns), event.at_ns);
                self.made.entry(*socket).or_insert(made);
            }
            Body::Accept { socket, .. } => {
                self.end(*socket)?;
                if self.sockets.contains(socket) {
                    self.made.insert(*socket, (event.at_ns, event.at_ns));
                }
            }
            Body::Data { socket, direction, offset, len, errno: 0, .. } if *len > 0 => {
                if let Some(link) = self.links.get(&id).copied() {
                    self.begin_flow(*socket, link)?;
                }
                let Some((link, flow)) = self.flows.get_mut(socket) else { return Ok(()) };
                let mut result = Ok(());
                let packets = &mut self.packets;
                let (at_ns, connection) = (event.at_ns, link.id.0);
                flow.last_ns = at_ns;
                flow.feed(*direction, *offset, &event.bytes, *len, &mut |segment, remark| {
                    if result.is_ok() {
                        let said = packets.about(id, event, connection, remark.as_deref());
                        result = packets.write(at_ns, segment, Some(said));
                    }
                });
                return result;
            }
            Body::Close { socket, .. } => {
                if let Some((link, flow)) = self.flows.get_mut(socket)
                    && link.opened.pid == event.pid
                {
                    flow.closed = true;
                    if flow.end.is_some() {
                        return self.end(*socket);
                    }
                }
            }
            Body::Disconnect { socket, how, .. } => {
                if let Some((_, flow)) = self.flows.get_mut(socket) {
                    flow.end.get_or_insert((*how, event.at_ns, id));
                    if flow.closed {
                        return self.end(*socket);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin_flow(&mut self, socket: SocketId, link: &'a Link) -> io::Result<()> {
        let made = self.made.remove(&socket);
        self.end(socket)?;
        let mut flow = Flow::new(link);
        if let Some((begun_ns, done_ns)) = made.filter(|_| !link.since_attach) {
            let packets = &mut self.packets;
            let (mut result, mut at_ns) = (Ok(()), begun_ns);
            flow.make(&mut |segment, remark| {
                if result.is_ok() {
                    result = packets.write(at_ns, segment, remark);
                    at_ns = done_ns;
                }
            });
            result?;
        }
        self.flows.insert(socket, (link, flow));
        Ok(())
    }

    fn end(&mut self, socket: SocketId) -> io::Result<()> {
        let Some((_, mut flow)) = self.flows.remove(&socket) else { return Ok(()) };
        // What had arrived before is read after it, and stands before it.
        let at_ns = flow.end.map_or(self.last_ns, |(_, at_ns, _)| at_ns.max(flow.last_ns));
        let packets = &mut self.packets;
        let mut result = Ok(());
        flow.finish(&mut |segment, remark| {
            if result.is_ok() {
                result = packets.write(at_ns, segment, remark);
            }
        });
        result
    }

    fn finish(mut self) -> io::Result<()> {
        let mut rest: Vec<_> = self.flows.iter().map(|(socket, (link, _))| (link.id, *socket)).collect();
        rest.sort_unstable_by_key(|(id, _)| *id);
        for (_, socket) in rest {
            self.end(socket)?;
        }
        let mut said = format!("{SCHEMA}: {}", self.lost.text());
        let left_out = self.packets.case.model.amqp.left_out;
        if left_out > 0 {
            let count = units::counted(left_out, "connection");
            said.push_str(&format!("\n{count} are not here: there were too many"));
        }
        self.packets.finish(self.last_ns, said)
    }
}

fn ends(link: &Link) -> Option<(crate::event::Address, crate::event::Address)> {
    Some((link.local.get()?.clone(), link.peer.get()?.clone()))
}

/// The file.
struct Packets<'a, W: Write> {
    writer: PcapNgWriter<W>,
    case: &'a Case<'a>,
    /// What is concluded of an event.
    findings: HashMap<u64, Vec<String>>,
    /// The part each process plays.
    roles: HashMap<Pid, &'static str>,
    /// Wall clock at the monotonic clock's zero, in nanoseconds.
    epoch_ns: i128,
    packet: Vec<u8>,
}

impl<'a, W: Write> Packets<'a, W> {
    fn begin(
        case: &'a Case<'a>,
        explanation: &Explanation,
        ports: &BTreeSet<u16>,
        out: W,
    ) -> io::Result<Self> {
        let header = case.header;
        let os = format!("Linux {}", header.kernel);
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::Comment(comment(about_session(case, explanation, ports))),
                SectionHeaderOption::OS(comment(os)),
                SectionHeaderOption::UserApplication(comment(format!(
                    "observer {}",
                    header.observer_version
                ))),
            ],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(out, section).map_err(io_error)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("observer")),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(
                    "reads and writes of the observed processes, as packets",
                )),
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        writer.write_pcapng_block(interface).map_err(io_error)?;
        let mut findings = HashMap::<u64, Vec<String>>::new();
        for finding in &explanation.findings {
            for evidence in &finding.evidence {
                let said = format!("{}: {}", named(finding), escape(&evidence.text));
                findings.entry(evidence.event).or_default().push(said);
            }
        }
        let epoch_ns = i128::from(started_at_ns(header)) - i128::from(header.started_ns);
        Ok(Self { writer, case, findings, roles: HashMap::new(), epoch_ns, packet: Vec::new() })
    }

    /// What is said of a packet: the process, the event, and what is concluded of it.
    fn about(&mut self, id: u64, event: &Event, connection: u64, remark: Option<&str>) -> String {
        let case = self.case;
        let role = *self.roles.entry(event.pid).or_insert_with(|| case.role(event.pid).name());
        let mut said = format!(
            "process {} ({role}), thread {}, connection {connection}, event {id}, {} s",
            event.pid,
            event.tid,
            units::moment(event.at_ns, case.header.started_ns)
        );
        let findings = self.findings.get(&id).into_iter().flatten().map(String::as_str);
        for line in remark.into_iter().chain(findings) {
            said.push('\n');
            said.push_str(line);
        }
        said
    }

    fn write(&mut self, at_ns: u64, segment: Segment<'_>, said: Option<String>) -> io::Result<()> {
        segment.packet(&mut self.packet);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(self.wall_ns(at_ns)),
            original_len: u32::try_from(self.packet.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&self.packet),
            options: said.map(|said| EnhancedPacketOption::Comment(comment(said))).into_iter().collect(),
        };
        self.writer.write_pcapng_block(block).map_err(io_error)?;
        Ok(())
    }

    fn wall_ns(&self, at_ns: u64) -> u64 {
        u64::try_from(self.epoch_ns + i128::from(at_ns)).unwrap_or(0)
    }

    fn finish(mut self, at_ns: u64, said: String) -> io::Result<()> {
        // As an EPB's: the upper half first (draft-ietf-opsawg-pcapng, 4.6), which the crate leaves to its caller.
        let timestamp = self.wall_ns(at_ns).rotate_left(32);
        let options = vec![InterfaceStatisticsOption::Comment(comment(said))];
        let block = InterfaceStatisticsBlock { interface_id: 0, timestamp, options };
        self.writer.write_pcapng_block(block).map_err(io_error)?;
        Ok(())
    }
}

fn named(finding: &Finding) -> String {
    let cause = finding.cause.map_or(String::new(), |cause| format!(" ({cause})"));
    format!("finding {}{cause}", finding.code.name())
}

fn about_session(case: &Case<'_>, explanation: &Explanation, ports: &BTreeSet<u16>) -> String {
    let header = case.header;
    let mut lines = vec![
        SCHEMA.to_owned(),
        format!("session {} ({}), {}", header.id, escape(&header.name), escape(&header.started_at)),
        format!("command {}", escape(&crate::words::command(&header.command))),
        format!("verdict {}: {}", explanation.verdict.code.name(), escape(&explanation.verdict.title)),
    ];
    for finding in &explanation.findings {
        let process =
            finding.process.map_or(String::new(), |one| format!(", process {} ({})", one.pid, one.role));
        lines.push(format!("{}{process}: {}", named(finding), escape(&finding.title)));
    }
    if case.model.troubles.lost() > 0 {
        lines.push(format!("{} lost", units::counted(case.model.troubles.lost(), "event")));
    }
    lines.extend(unseen(header).map(|text| format!("not seen: {}", escape(text))));
    for port in ports.iter().filter(|port| **port != 5672) {
        lines.push(format!("port {port} is not AMQP's: wireshark -d tcp.port=={port},amqp"));
    }
    lines.join("\n")
}

/// A text that fits into an option.
fn comment(mut text: String) -> Cow<'static, str> {
    if text.len() > MOST_COMMENT_BYTES {
        text.truncate(text.floor_char_boundary(MOST_COMMENT_BYTES));
        text.push('…');
    }
    Cow::Owned(text)
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests;
