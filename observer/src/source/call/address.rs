//! Socket addresses as programs give them to the kernel.

use super::{c_text, text};
use crate::event::{Address, Known};

/// A `sockaddr` as the program gave it.
pub(in crate::source) fn sockaddr(bytes: &[u8]) -> Known<Address> {
    let Some((family, rest)) = bytes.split_first_chunk::<2>() else { return Known::unknown() };
    let family = u16::from_ne_bytes(*family);
    let port = || rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    match family {
        1 => {
            let path = match rest.split_first() {
                Some((0, name)) => format!("@{}", text(name)),
                _ => c_text(rest),
            };
            Known::Is(Address::Unix { path })
        }
        2 => match (port(), rest.get(2..6).and_then(|ip| <[u8; 4]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        10 => match (port(), rest.get(6..22).and_then(|ip| <[u8; 16]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        number => Known::Is(Address::Other { number: number.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let mut v4 = vec![2, 0, 0x16, 0x28, 127, 0, 0, 1];
        v4.extend([0; 8]);
        assert_eq!(sockaddr(&v4), Known::Is(Address::Inet { ip: [127, 0, 0, 1].into(), port: 5672 }));
        assert_eq!(sockaddr(b"\x01\0/run/x\0junk"), Known::Is(Address::Unix { path: "/run/x".into() }));
        assert_eq!(sockaddr(b"\x01\0\0abstract"), Known::Is(Address::Unix { path: "@abstract".into() }));
        assert_eq!(sockaddr(b"\x02"), Known::unknown());
    }
}
