//! Blanks the arguments of dramatiq messages in place. Knows JSON's grammar by the byte and dramatiq's member names; it must not know
//! what the other members mean.

/// Containers may nest this deep; beyond, everything is blanked.
const DEEPEST: u32 = 128;

/// The fields of `Message` (dramatiq 1.0 to 2.2, `dramatiq/message.py`). An object with any other member is no message: dramatiq itself
/// refuses to decode it.
const MEMBERS: [&[u8]; 7] =
    [b"queue_name", b"actor_name", b"args", b"kwargs", b"options", b"message_id", b"message_timestamp"];

/// Blanks the values of `args` and `kwargs` of a whole JSON body in place, and returns the blanked ranges `[start, end)`.
///
/// See [`BodyMasker`].
pub fn mask_body(body: &mut [u8]) -> Vec<(u64, u64)> {
    BodyMasker::new().mask(body)
}

/// Blanks the values of every `args` and `kwargs` in a JSON body: the message's own, and those of messages inside its options
/// (dramatiq's `pipe_target` and group callbacks).
///
/// The length stays the same and so does the JSON: a value becomes a string of `*` of its own length (`[1, 2]` → `"****"`), a bare
/// number or word becomes 0. What is not a JSON object is blanked whole, and so is everything after the first thing
/// that is not JSON, and from the first byte that no member of a dramatiq message is named by. An inner key with an escape in it
/// is taken for a secret's.
///
/// Options stay as they are, and with them the traceback of a retry, which says why it failed: a traceback that quotes an argument
/// (an exception's text often does) is not blanked.
#[derive(Clone, Debug, Default)]
pub struct BodyMasker {
    /// Offset of the next byte.
    at: u64,
    /// One bit a container, the innermost lowest: is it an object?
    objects: u128,
    depth: u32,
    state: State,
    key: Key,
    /// End of the last member of the outermost object that is known to be whole.
    member_end: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the outermost object.
    #[default]
    Start,
    /// Before a key, or the end of an object.
    BeforeKey,
    /// In a key.
    InKey { escaped: bool },
    /// Before the colon after a key.
    AfterKey,
    /// Before a value.
    BeforeValue,
    /// In a string value.
    InString { escaped: bool },
    /// In a bare value, or behind any value.
    Bare,
    /// In a secret string.
    SecretString { escaped: bool },
    /// In a secret array or object.
    SecretContainer { depth: u32, in_string: bool, escaped: bool },
    /// In a secret number or word.
    SecretBare,
    /// Behind the outermost object.
    Behind,
    /// Not JSON any more.
    Opaque,
}

/// The key being read or just read, as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Key {
    bytes: [u8; 7],
    len: usize,
    has_escape: bool,
    /// The [`MEMBERS`] it is still a beginning of, one bit each.
    members: u8,
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; 7], len: 0, has_escape: false, members: (1 << MEMBERS.len()) - 1 }
    }
}

impl Key {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.narrow(|member, at| member.get(at) == Some(&byte));
        self.len = self.len.saturating_add(1);
    }

    fn narrow(&mut self, fits: impl Fn(&[u8], usize) -> bool) {
        for (bit, member) in MEMBERS.iter().enumerate() {
            if !fits(member, self.len) {
                self.members &= !(1 << bit);
            }
        }
    }

    /// Ends it: it is a member's name only if it is the whole of one.
    fn end(&mut self) {
        self.narrow(|member, len| member.len() == len);
    }

    fn is_secret(&self) -> bool {
        self.has_escape || self.bytes.get(..self.len).is_some_and(|key| key == b"args" || key == b"kwargs")
    }
}

impl BodyMasker {
    /// A masker at the beginning of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Blanks the next piece of the body in place, and returns the blanked ranges as `[start, end)` offsets in the body.
    pub fn mask(&mut self, piece: &mut [u8]) -> Vec<(u64, u64)> {
        let (mut blanked, base) = (Vec::<(u64, u64)>::new(), self.at);
        self.mask_with(piece, |start, end| {
            let (start, end) = (base + start as u64, base + end as u64);
            match blanked.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => blanked.push((start, end)),
            }
        });
        blanked
    }

    /// As [`Self::mask`], telling the blanked ranges as they come, as offsets in `piece`; adjoining ones are not joined.
    pub(in crate::amqp) fn mask_with(&mut self, piece: &mut [u8], mut blanked: impl FnMut(usize, usize)) {
        let mut at = 0;
        while let Some(rest) = piece.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let (run, secret) = self.run(rest);
            let taken = run.max(1);
            if run > 0 && secret {
                rest[..run].fill(b'*');
                blanked(at, at + run);
            } else if run == 0
                && let Some(blank) = self.step(rest[0])
            {
                rest[0] = blank;
                blanked(at, at + 1);
            }
            at += taken;
            self.at += taken as u64;
        }
    }

    /// Goes on behind a piece that was not seen: what follows cannot be judged.
    pub(in crate::amqp) fn lose(&mut self) {
        self.state = State::Opaque;
    }

    /// How many of the next bytes change nothing, and whether they are secret: most of a body is the inside of strings.
    fn run(&self, rest: &[u8]) -> (usize, bool) {
        let in_string = || memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        match self.state {
            State::Opaque => (rest.len(), true),
            State::InString { escaped: false } => (in_string(), false),
            State::SecretString { escaped: false }
            | State::SecretContainer { in_string: true, escaped: false, .. } => (in_string(), true),
            State::SecretContainer { in_string: false, .. } => {
                let mark = |byte: &u8| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}');
                (rest.iter().position(mark).unwrap_or(rest.len()), true)
            }
            _ => (0, false),
        }
    }

    /// Takes one byte; answers what it is overwritten with, if it is.
    fn step(&mut self, byte: u8) -> Option<u8> {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let (next, blank) = match (self.state, byte) {
            (State::Opaque, _) => (State::Opaque, Some(b'*')),
            (
                state @ (State::Start
                | State::BeforeKey
                | State::AfterKey
                | State::BeforeValue
                | State::Behind),
                _,
            ) if space => (state, None),
            (State::Start, b'{') => (self.open(true), None),
            (State::BeforeKey, b'"') => {
                self.key = Key::default();
                (State::InKey { escaped: false }, None)
            }
            (State::BeforeKey | State::Bare, b'}') => return self.close(true),
            (State::BeforeValue | State::Bare, b']') => return self.close(false),
            (State::InKey { escaped: false }, b'"') => {
                self.key.end();
                if self.is_foreign() { (State::Opaque, Some(b'*')) } else { (State::AfterKey, None) }
            }
            (State::InKey { escaped }, _) => {
                self.key.push(byte);
                self.key.has_escape |= byte == b'\\';
                if self.is_foreign() {
                    self.state = State::Opaque;
                    return Some(b'*');
                }
                (State::InKey { escaped: !escaped && byte == b'\\' }, None)
            }
            (State::AfterKey, b':') => (State::BeforeValue, None),
            (State::BeforeValue, _) if self.in_object() && self.key.is_secret() => match byte {
                b'"' => (State::SecretString { escaped: false }, Some(b'"')),
                b'[' | b'{' => {
                    (State::SecretContainer { depth: 1, in_string: false, escaped: false }, Some(b'"'))
                }
                b',' | b'}' | b':' => (State::Opaque, Some(b'*')),
                _ => (State::SecretBare, Some(b'0')),
            },
            (State::BeforeValue, b'{') => (self.open(true), None),
            (State::BeforeValue, b'[') => (self.open(false), None),
            (State::BeforeValue, b'"') => (State::InString { escaped: false }, None),
            (State::BeforeValue, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => (State::Bare, None),
            (State::InString { escaped: false }, b'"') => (State::Bare, None),
            (State::InString { escaped }, _) => {
                (State::InString { escaped: !escaped && byte == b'\\' }, None)
            }
            (State::Bare, b',') => (self.comma(), None),
            (State::Bare, _)
                if space || matches!(byte, b'-' | b'+' | b'.') || byte.is_ascii_alphanumeric() =>
            {
                (State::Bare, None)
            }
            (State::SecretString { escaped: false }, b'"') => (State::Bare, Some(b'"')),
            (State::SecretString { escaped }, _) => {
                (State::SecretString { escaped: !escaped && byte == b'\\' }, Some(b'*'))
            }
            (State::SecretContainer { depth, in_string, escaped }, _) => {
                secret(depth, in_string, escaped, byte)
            }
            (State::SecretBare, b',') => (self.comma(), None),
            (State::SecretBare, b'}') => return self.close(true),
            (State::SecretBare, _) => (State::SecretBare, Some(b' ')),
            _ => (State::Opaque, Some(b'*')),
        };
        self.state = next;
        blank
    }

    /// Whether the key is one that no dramatiq message has.
    fn is_foreign(&self) -> bool {
        self.depth == 1 && self.key.members == 0
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) -> State {
        if self.depth == DEEPEST {
            return State::Opaque;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if object { State::BeforeKey } else { State::BeforeValue }
    }

    fn close(&mut self, object: bool) -> Option<u8> {
        if self.in_object() != object || self.depth == 0 {
            self.state = State::Opaque;
            return Some(b'*');
        }
        self.depth -= 1;
        self.objects >>= 1;
        self.state = if self.depth == 0 { State::Behind } else { State::Bare };
        None
    }

    fn comma(&mut self) -> State {
        if self.depth == 1 {
            self.member_end = self.at;
        }
        if self.in_object() { State::BeforeKey } else { State::BeforeValue }
    }
}

/// One byte of a secret array or object.
fn secret(depth: u32, in_string: bool, escaped: bool, byte: u8) -> (State, Option<u8>) {
    let inside =
        |depth, in_string, escaped| (State::SecretContainer { depth, in_string, escaped }, Some(b'*'));
    match byte {
        b'"' if !escaped => inside(depth, !in_string, false),
        _ if in_string => inside(depth, true, !escaped && byte == b'\\'),
        b'[' | b'{' => inside(depth.saturating_add(1), false, false),
        b']' | b'}' if depth == 1 => (State::Bare, Some(b'"')),
        b']' | b'}' => inside(depth - 1, false, false),
        _ => inside(depth, false, false),
    }
}

/// How much of a cut-off body, an object, holds whole members.
pub(super) fn whole_members(body: &[u8]) -> u64 {
    let mut masker = BodyMasker::new();
    for byte in body {
        masker.step(*byte);
        masker.at += 1;
    }
    masker.member_end
}
