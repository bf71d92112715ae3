//! Answers `GET /metrics` on a Unix socket or loopback, and nothing else; nobody who connects can hold it up. Knows text, and not what is
//! in it.

use std::{
    convert::Infallible,
    fs::Permissions,
    future::Future,
    io,
    net::SocketAddr,
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nix::sys::stat::{Mode, fchmod};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener, UnixSocket},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Status, encode};
use crate::words::escape::{escape, is_plain};

/// A connection is over after this time, whatever became of it.
const LONGEST: Duration = Duration::from_secs(5);

/// So many at a time; others wait.
const MOST: usize = 16;

/// Connections the kernel keeps waiting.
const BACKLOG: u32 = 64;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Nowhere,
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a loopback address.
    Tcp(SocketAddr),
}

impl Listen {
    /// Reads `unix:/PATH`, `127.0.0.1:9464`, `[::1]:9464` or nothing.
    ///
    /// # Errors
    /// When it is none of these: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Nowhere);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            // 107 bytes and a zero: what `struct sockaddr_un` has room for.
            return match path.starts_with('/') && path.len() <= 107 && path.chars().all(is_plain) {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!("\"{}\" is no absolute path of up to 107 bytes", escape(path))),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            Ok(address) => Err(format!(
                "{} can be reached from elsewhere, and nobody is asked who they are",
                address.ip()
            )),
            Err(_) => Err(format!("\"{text}\" is neither unix:PATH nor an address of digits with a port")),
        }
    }
}

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Serving {
    address: Option<SocketAddr>,
    /// The socket's path, and which file that is.
    path: Option<(PathBuf, (u64, u64))>,
    end: Option<oneshot::Sender<()>>,
    worker: Option<JoinHandle<()>>,
}

impl Serving {
    /// The address that is listened at, when it is one.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
        if let Some((path, file)) = &self.path
            && identity(path).is_ok_and(|now| now == *file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Serves the figures at `listen` (see [`Listen::parse`]), from a thread of its own; `current` is asked there at every request.
///
/// # Errors
/// When it cannot be listened there: the path is something else than a socket nobody serves, or the port is taken.
pub fn serve(listen: &str, current: impl Fn() -> Status + Send + Sync + 'static) -> io::Result<Serving> {
    let attempted = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot serve figures at {listen}: {error}; choose another place with metrics.listen"),
        )
    };
    let place = Listen::parse(listen).map_err(io::Error::other).map_err(attempted)?;
    let mut serving = Serving { address: None, path: None, end: None, worker: None };
    if place == Listen::Nowhere {
        return Ok(serving);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let listener = match &place {
        Listen::Unix(path) => {
            let listener = bind(path).map_err(attempted)?;
            serving.path = Some((path.clone(), identity(path)?));
            Listener::Unix(listener)
        }
        Listen::Tcp(address) => {
            let listener = open(*address).map_err(attempted)?;
            serving.address = Some(listener.local_addr()?);
            Listener::Tcp(listener)
        }
        Listen::Nowhere => return Ok(serving),
    };
    drop(entered);
    let (end, ending) = oneshot::channel::<()>();
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                () = answer(listener, Arc::new(current)) => {}
                _ = ending => {}
            }
        });
    };
    serving.worker = Some(std::thread::Builder::new().name("observer-metrics".into()).spawn(work)?);
    serving.end = Some(end);
    Ok(serving)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Or a service that is started anew would have to wait for the connections of the one before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket for us and our group, in the place of one that nobody listens at any more.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if !about.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    // Linux makes the file with the mode of the socket, so at no moment may others connect. The umask may have taken more away.
    fchmod(socket.as_fd(), Mode::from_bits_truncate(0o660))?;
    socket.bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)
}

/// Which file a path is, by device and inode; a link is itself.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|about| (about.dev(), about.ino()))
}

async fn answer<F: Fn() -> Status + Send + Sync + 'static>(listener: Listener, current: Arc<F>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let current = Arc::clone(&current);
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    converse(stream, current).await;
                    drop(place);
                });
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    converse(stream, current).await;
                    drop(place);
                });
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!("cannot accept a connection for figures: {error}; trying again");
            // Out of descriptors, it would fail again at once.
            sleep(Duration::from_millis(200)).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One request, one answer.
fn converse<S, F>(stream: S, current: Arc<F>) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn() -> Status,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = respond(&request, &*current);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    // No timer of hyper's is needed: the whole conversation has one.
    http.keep_alive(false).header_read_timeout(None).max_buf_size(16 * 1024);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    async move {
        // Whoever talks nonsense, too slowly or not at all learns nothing, and it is no concern of ours.
        let _ = timeout(LONGEST, connection).await;
    }
}

fn respond(request: &Request<Incoming>, current: &dyn Fn() -> Status) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, OPEN_METRICS, encode(&current())),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, plain, "there is only /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
    }
    response
}
