//! Tells whoever started the service how it is (`sd_notify(3)`): ready, reloading, stopping, alive. Says nothing when nobody asked; knows
//! not what the service does.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;

/// How long whoever does not read what they are told is waited for. Nobody who is to be answered waits for them.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who is told.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    /// `sd-notify` itself cannot send to an abstract socket.
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    ///
    /// # Errors
    /// When `NOTIFY_SOCKET` names no socket: a path, or `@` and an abstract name.
    pub fn from_environment() -> io::Result<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Ok(Self {
            socket: socket.as_deref().map(address).transpose()?,
            watchdog: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()),
        })
    }

    /// To this socket, with this watchdog.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn to(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        Ok(Self { socket: Some(address(socket)?), watchdog })
    }

    /// The service is up, or has finished reloading.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        // A new line would be another statement.
        self.send(&[NotifyState::Status(&crate::words::escape::escape(text))]);
    }

    /// The configuration is being read anew; [`Self::ready`] says that this is over.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            // Without the time systemd would not take it for the reload it asked for.
            Err(error) => {
                tracing::warn!("cannot read the monotonic clock: {error}; the reload is not announced")
            }
        }
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// The service is alive; to be said more often than [`Self::watchdog`].
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// After so long without [`Self::alive`] the service is killed: say it every half of that. `None` when nobody watches.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        let sent = UnixDatagram::unbound().and_then(|from| {
            from.set_write_timeout(Some(PATIENCE))?;
            from.send_to_addr(text.as_bytes(), socket)
        });
        if let Err(error) = sent {
            tracing::warn!("cannot tell the service manager {:?} at {socket:?}: {error}", text.trim_end());
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::other(format!(
            "NOTIFY_SOCKET={name:?} is neither a path nor an abstract socket (`@name`); start the service with Type=notify, or unset it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_listen_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str(), None).unwrap();
        let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // More than a socket holds.
            (0..most + 3).for_each(|_| notify.alive());
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(60)).expect("it comes back");
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn says_all(socket: &UnixDatagram, notify: &Notify) {
        notify.ready();
        assert_eq!(received(socket), "READY=1\n");
        notify.status("2 recorded\nREADY=0");
        assert_eq!(received(socket), "STATUS=2 recorded\\nREADY=0\n", "one statement, whatever is in it");
        notify.reloading();
        let text = received(socket);
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        let ago = i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
            - usec.parse::<i128>().unwrap();
        assert!((0..60_000_000).contains(&ago), "{ago} µs");
        notify.alive();
        assert_eq!(received(socket), "WATCHDOG=1\n");
        notify.stopping();
        assert_eq!(received(socket), "STOPPING=1\n");
    }

    #[test]
    fn a_socket_with_a_path_and_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        says_all(&socket, &Notify::to(path.as_os_str(), None).unwrap());

        let name = format!("observer-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify::to(OsStr::new(&format!("@{name}")), Some(Duration::from_secs(3))).unwrap();
        says_all(&socket, &notify);
        assert_eq!(notify.watchdog(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        Notify::default().ready();
        assert_eq!(Notify::default().watchdog(), None);
        assert!(Notify::to(OsStr::new("vsock:2:1234"), None).is_err());
    }
}
