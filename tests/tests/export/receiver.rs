//! A receiver of OTLP over HTTP that answers as it is told. It keeps what it was sent, and understands nothing of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A running one; it ends with the test.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Receiver {
    /// One that answers the request of each number, from 0, with a status line, headers and a body: `503 Busy`, `Retry-After: 0\r\n`.
    pub(crate) fn start(answer: impl Fn(usize) -> (&'static str, String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let kept = Arc::clone(&sent);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                while let Some(request) = read(&mut reader) {
                    let number = {
                        let mut kept = kept.lock().unwrap();
                        kept.push(request);
                        kept.len() - 1
                    };
                    let (status, headers, body) = answer(number);
                    let head =
                        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
                    let written = reader.get_mut().write_all(&[head.as_bytes(), &body].concat());
                    if written.is_err() {
                        break;
                    }
                }
            }
        });
        Self { address, sent }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent until now.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }
}

/// The next request of a connection; `None` when there is none.
fn read(reader: &mut impl BufRead) -> Option<Sent> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        Some(line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Sent { path, headers, body })
}
