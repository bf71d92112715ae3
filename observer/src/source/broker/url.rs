//! Where a broker is and how to log in there. It keeps the password in memory and never lets it be printed; it opens no connection.

use std::fmt;

use reqwest::Url;

/// A broker's address, with the credentials and the virtual host to use there.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
    vhost: String,
}

/// Why a URL cannot be used. It never quotes the URL: part of it may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("cannot use it as a broker's address: {0}; write amqp://user:password@host:port/vhost")]
    Malformed(String),
    /// Neither `amqp` nor `amqps`.
    #[error("cannot use it as a broker's address: its scheme is not amqp or amqps")]
    Scheme,
    /// A reserved character where it has a meaning of its own.
    #[error(
        "cannot use it as a broker's address: a character of the user name or password must be percent-encoded (@ %40, / %2F, : %3A, # %23, ? %3F)"
    )]
    Unescaped,
}

impl BrokerUrl {
    /// Reads `amqp://user:password@host:port/vhost` or `host:port`. What is left out is RabbitMQ's default: guest, guest, 5672 (5671 for
    /// amqps) and `/`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("amqp://{text}") };
        // Its texts are fixed ones (`invalid port number`): they quote nothing.
        let url = Url::parse(&with_scheme).map_err(|error| UrlError::Malformed(error.to_string()))?;
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UrlError::Scheme),
        };
        // `amqp://user:12/34@host`: read as a URL, the host would be the user name and the virtual host half of the password.
        if url.path().contains('@')
            || url.query().is_some_and(|query| query.contains('@'))
            || url.fragment().is_some()
        {
            return Err(UrlError::Unescaped);
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| UrlError::Malformed("it names no host".into()))?;
        let vhost = match url.path() {
            "" => "/".to_owned(),
            // `amqp://host/` is the virtual host without a name for some clients, the default one for others (pika): nobody has one
            // without a name.
            "/" => "/".to_owned(),
            path => unescape(path.strip_prefix('/').unwrap_or(path)),
        };
        let given = |part: &str| if part.is_empty() { "guest".to_owned() } else { unescape(part) };
        Ok(Self {
            tls,
            host: unescape(host.trim_start_matches('[').trim_end_matches(']')),
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            user: given(url.username()),
            password: given(url.password().unwrap_or_default()),
            vhost,
        })
    }

    /// Of its parts, for credentials that were never written as a URL.
    pub fn from_parts(host: &str, port: u16, user: &str, password: &str, vhost: &str) -> Self {
        let [host, user, password, vhost] = [host, user, password, vhost].map(str::to_owned);
        Self { tls: false, host, port, user, password, vhost }
    }

    /// Whether it asks for TLS.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host: a name or an address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The AMQP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

/// Without the password.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let host = bracketed(&self.host);
        write!(f, "{scheme}://{}@{host}:{}/{}", escape(&self.user), self.port, escape(&self.vhost))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// Where the management API is. The credentials are those of the URL, else the broker's.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagementUrl {
    /// Without credentials, ending in `/`.
    base: Url,
    user: String,
    password: String,
}

impl ManagementUrl {
    /// RabbitMQ's default for this broker: HTTP, ten thousand ports above AMQP.
    pub fn of(broker: &BrokerUrl) -> Option<Self> {
        let port = broker.port.checked_add(10_000)?;
        let scheme = if broker.tls { "https" } else { "http" };
        let base = Url::parse(&format!("{scheme}://{}:{port}/", bracketed(&broker.host))).ok()?;
        Some(Self { base, user: broker.user.clone(), password: broker.password.clone() })
    }

    /// Reads `http://host:port`, with or without credentials and a path prefix.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn parse(text: &str, broker: &BrokerUrl) -> Result<Self, UrlError> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut base = Url::parse(&with_scheme).map_err(|error| UrlError::Malformed(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(UrlError::Malformed("the scheme of a management API is http or https".into()));
        }
        if base.path().contains('@') || base.fragment().is_some() {
            return Err(UrlError::Unescaped);
        }
        let own = (!base.username().is_empty()).then(|| unescape(base.username()));
        let password = base.password().map(unescape);
        let path = base.path().trim_end_matches('/').trim_end_matches("/api").to_owned();
        base.set_path(&format!("{path}/"));
        base.set_query(None);
        // Fails only for URLs without a host, which http has not.
        let _ = (base.set_username(""), base.set_password(None));
        Ok(match own {
            Some(user) => Self { base, user, password: password.unwrap_or_default() },
            None => Self { base, user: broker.user.clone(), password: broker.password.clone() },
        })
    }

    pub(super) fn tls(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// The URL of something under `/api/`, its path segments already escaped.
    pub(super) fn api(&self, path: &str) -> Option<Url> {
        self.base.join("api/").ok()?.join(path).ok()
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Display for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)
    }
}

impl fmt::Debug for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagementUrl({self})")
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Everything but unreserved characters as `%2F`.
pub(super) fn escape(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn unescape(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = if *first == b'%' { digit(tail.first()).zip(digit(tail.get(1))) } else { None };
        rest = match escaped {
            Some((high, low)) => {
                plain.push((high * 16 + low) as u8);
                tail.get(2..).unwrap_or_default()
            }
            None => {
                plain.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{BrokerUrl, ManagementUrl, UrlError};

    fn parse(text: &str) -> BrokerUrl {
        BrokerUrl::parse(text).unwrap()
    }

    #[test]
    fn what_is_left_out_is_rabbitmqs_default() {
        assert_eq!(parse("lab"), BrokerUrl::from_parts("lab", 5672, "guest", "guest", "/"));
        assert_eq!(parse("amqp://lab:1/"), BrokerUrl::from_parts("lab", 1, "guest", "guest", "/"));
        assert_eq!(parse("amqp://[::1]/a%2Fb"), BrokerUrl::from_parts("::1", 5672, "guest", "guest", "a/b"));
        assert_eq!(parse("amqps://lab").port(), 5671);
    }

    #[test]
    fn percent_encoding_is_undone() {
        let url = parse("amqp://us%40er:p%2Fw%23@lab:5673/%2Fshop?heartbeat=5");
        assert_eq!(url, BrokerUrl::from_parts("lab", 5673, "us@er", "p/w#", "/shop"));
    }

    #[test]
    fn no_password_is_ever_printed() {
        let url = parse("amqp://shop:hunter2@lab/v");
        let management = ManagementUrl::of(&url).unwrap();
        let own = ManagementUrl::parse("http://admin:hunter2@lab:1/prefix/api", &url).unwrap();
        let text = format!("{url} {url:?} {management} {management:?} {own} {own:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("amqp://shop@lab:5672/v"), "{text}");
        assert!(text.contains("http://lab:15672/"), "{text}");
        assert!(text.contains("http://lab:1/prefix/"), "{text}");
        assert_eq!(own.api("vhosts/%2F").unwrap().as_str(), "http://lab:1/prefix/api/vhosts/%2F");
    }

    #[test]
    fn a_password_with_a_bare_reserved_character_is_refused_and_not_quoted() {
        for text in [
            "amqp://u:12/hunter2@lab",
            "amqp://u:hunter2/x@lab",
            "amqp://u:12?hunter2@lab",
            "amqp://u:1#hunter2@lab",
        ] {
            let error = BrokerUrl::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert_eq!(BrokerUrl::parse("http://lab"), Err(UrlError::Scheme));
        assert!(matches!(BrokerUrl::parse("amqp://lab:x"), Err(UrlError::Malformed(_))));
        assert!(matches!(BrokerUrl::parse("amqp://"), Err(UrlError::Malformed(_))));
    }
}
