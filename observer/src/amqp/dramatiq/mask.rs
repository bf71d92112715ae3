//! Blanks the arguments of dramatiq messages in place. Knows JSON's grammar by the byte; nothing of what the other members mean.

/// Containers may nest this deep; beyond, everything is blanked.
const DEEPEST: u32 = 128;

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
/// that is not JSON. A key with an escape in it is taken for a secret's.
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
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    bytes: [u8; 7],
    len: usize,
    has_escape: bool,
}

impl Key {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len = self.len.saturating_add(1);
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
        let mut blanked: Vec<(u64, u64)> = Vec::new();
        for byte in piece {
            if let Some(blank) = self.step(*byte) {
                *byte = blank;
                match blanked.last_mut() {
                    Some(last) if last.1 == self.at => last.1 += 1,
                    _ => blanked.push((self.at, self.at + 1)),
                }
            }
            self.at += 1;
        }
        blanked
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
            (State::InKey { escaped: false }, b'"') => (State::AfterKey, None),
            (State::InKey { escaped }, _) => {
                self.key.push(byte);
                self.key.has_escape |= byte == b'\\';
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
