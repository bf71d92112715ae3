//! The fields of the methods that carry secrets, read byte by byte. Knows nothing of frames.

/// The kinds of field that stand before and after a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A field table: 32-bit length.
    Table,
    /// The SASL mechanism, a short string.
    Mechanism,
    /// A long string to blank.
    Secret,
    /// Any other short string.
    Short,
}

pub(super) const START_OK: &[Field] = &[Field::Table, Field::Mechanism, Field::Secret, Field::Short];
pub(super) const SECURE_OK: &[Field] = &[Field::Secret];
pub(super) const UPDATE_SECRET: &[Field] = &[Field::Secret, Field::Short];

/// Progress through the fields of a method that carries a secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    /// The current field and those after it.
    rest: &'static [Field],
    /// The current field's length, while it is being read.
    length: u32,
    /// Bytes of the length still to come.
    length_left: u8,
    /// Bytes of the content still to come.
    pub(super) content_left: u64,
    /// How much of `PLAIN` the mechanism has matched; `PLAIN.len()` when it is PLAIN.
    plain: u8,
    /// NUL bytes seen in a PLAIN response whose user name is kept: 2 and the password begins.
    pub(super) separators: u8,
}

const PLAIN: &[u8] = b"PLAIN";

impl Fields {
    pub(super) fn new(rest: &'static [Field]) -> Self {
        let mut fields = Self { rest, length: 0, length_left: 0, content_left: 0, plain: 0, separators: 0 };
        fields.begin();
        fields
    }

    fn begin(&mut self) {
        self.length = 0;
        self.length_left = match self.rest.first() {
            Some(Field::Table | Field::Secret) => 4,
            Some(Field::Mechanism | Field::Short) => 1,
            None => 0,
        };
    }

    /// Ends the current field if nothing of it is left.
    pub(super) fn advance(&mut self) {
        if self.length_left == 0 && self.content_left == 0 {
            self.rest = self.rest.get(1..).unwrap_or_default();
            self.begin();
        }
    }

    /// Judges one content byte: is it to be blanked?
    fn is_secret(&mut self, byte: u8, keep_user_name: bool) -> bool {
        match self.rest.first() {
            Some(Field::Mechanism) => {
                let matches = PLAIN.get(usize::from(self.plain)) == Some(&byte);
                self.plain = if matches { self.plain + 1 } else { u8::MAX };
                false
            }
            Some(Field::Secret) => {
                if !keep_user_name || usize::from(self.plain) != PLAIN.len() || self.separators >= 2 {
                    return true;
                }
                match (byte, self.separators) {
                    (0, _) => self.separators += 1,
                    // Not the `\0user\0password` that everyone sends: nothing of it is safe to show.
                    (_, 0) => self.separators = 2,
                    _ => return false,
                }
                byte != 0
            }
            _ => false,
        }
    }
}

impl Fields {
    /// Takes one byte: is it to be blanked? `None` when the fields do not fit the frame, whose payload has `frame_left` bytes left.
    pub(super) fn step(&mut self, byte: u8, frame_left: u64, keep_user_name: bool) -> Option<bool> {
        if self.length_left > 0 {
            self.length = self.length << 8 | u32::from(byte);
            self.length_left -= 1;
            if self.length_left == 0 {
                self.content_left = u64::from(self.length);
                if self.content_left >= frame_left {
                    return None;
                }
            }
            self.advance();
            return Some(false);
        }
        let secret = self.content_left.checked_sub(1).map(|left| {
            self.content_left = left;
            self.is_secret(byte, keep_user_name)
        });
        self.advance();
        secret
    }
}
