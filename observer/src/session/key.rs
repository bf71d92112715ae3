//! The key of a state directory, and what it makes of a secret or a content: the same for the same, and nothing that leads back to it.
//! Knows one file and bytes.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::mark;

pub(super) const KEY_BYTES: usize = 32;

/// A state directory's key.
pub(super) struct Key(pub(super) [u8; KEY_BYTES]);

impl Key {
    /// Reads the key, or makes one. Written aside and linked into place, so that of two that come at once both use the same, and nobody
    /// ever reads half of one.
    pub(super) fn read_or_make(path: &Path, owner: (u32, u32)) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let aside = path.with_extension(format!("{:016x}", u64::from_ne_bytes(nonce)));
        let made = mark::create_new(&aside, owner, 0o600).and_then(|mut file| {
            file.write_all(&key)?;
            std::fs::hard_link(&aside, path)
        });
        // Not there when it could not be made: the error that counts is that one.
        drop(std::fs::remove_file(&aside));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Self::read(path),
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// What stands for a secret.
    pub(super) fn mark(&self, secret: &[u8]) -> String {
        match self.hash(secret) {
            Some([first, second, ..]) => format!("«redacted:{first:02x}{second:02x}»"),
            None => "«redacted»".to_owned(),
        }
    }

    /// What stands for a content: sixteen hexadecimal digits.
    pub(super) fn digest(&self, content: &[u8]) -> Option<String> {
        let [a, b, c, d, e, f, g, h, ..] = self.hash(content)?;
        Some(format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    fn hash(&self, bytes: &[u8]) -> Option<[u8; 32]> {
        // HMAC takes a key of any length.
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        hmac.update(bytes);
        Some(hmac.finalize().into_bytes().into())
    }
}
