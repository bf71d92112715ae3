//! Name servers' messages (RFC 1035, 4.1): the name asked for, and the answer's code. Knows bytes; whoever calls knows that they went to
//! port 53.

use crate::event::{Body, SocketId};

/// Of the header: flags after two bytes, counts of questions and answers after four.
const HEADER_BYTES: usize = 12;
/// `QTYPE` of an address: A and AAAA.
const ADDRESSES: [u16; 2] = [1, 28];

/// Reads one message. `None` when it is none, or asks for no address.
pub(super) fn lookup(socket: SocketId, bytes: &[u8]) -> Option<Body> {
    let number = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (flags, questions, records) = (number(2)?, number(4)?, number(6)?);
    if questions != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Two high bits are a pointer, which a question's name has no use for.
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label));
        at += length;
    }
    if name.is_empty() || name.len() > 255 || !ADDRESSES.contains(&number(at)?) {
        return None;
    }
    let code = (flags & 0x8000 != 0).then_some((flags & 0xf) as u8);
    Some(Body::Lookup { socket, name, code, records: if code.is_some() { records } else { 0 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] =
        b"\x9a\x8b\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06rabbit\x07invalid\x00\x00\x01\x00\x01";

    #[test]
    fn a_question_and_its_answer() {
        let id = SocketId(7);
        let asked = |code, records| Body::Lookup { socket: id, name: "rabbit.invalid".into(), code, records };
        assert_eq!(lookup(id, QUESTION), Some(asked(None, 0)));
        let mut answer = QUESTION.to_vec();
        (answer[2], answer[3]) = (0x81, 0x83);
        assert_eq!(lookup(id, &answer), Some(asked(Some(3), 0)));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for end in 0..QUESTION.len() - 2 {
            assert_eq!(lookup(SocketId(7), &QUESTION[..end]), None, "{end}");
        }
        assert_eq!(lookup(SocketId(7), &[0xff; 64]), None);
    }
}
