//! Where secrets stand: which names say that their value is one, and which parts of a text are. Pure functions on bytes; replaces
//! nothing and remembers nothing.

use std::{borrow::Cow, ops::Range};

use memchr::{memchr, memchr2_iter, memmem, memrchr};

/// Words that say "secret" wherever they stand in a word of a name (`PGPASSWORD`, `MYSECRETS`).
const INSIDE: [&str; 6] = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIAL", "APIKEY"];
/// Words that say it only as a whole (`SSH_AUTH`, but not `XAUTHORITY`; `DB_PASS`, but not `COMPASS`).
const WHOLE: [&str; 8] = ["PASS", "PW", "AUTH", "AUTHORIZATION", "COOKIE", "COOKIES", "JWT", "BEARER"];
/// What makes a `KEY` or `TOKENS` secret when it stands before it (`PRIVATE_KEY`, but not `PRIMARY_KEY`, `KEYBOARD` or `MAX_TOKENS`).
const KEYS: [&str; 8] = ["API", "PRIVATE", "ACCESS", "SESSION", "SIGNING", "ENCRYPTION", "MASTER", "FERNET"];
/// Last words that say the value is something *about* a secret: where it lies, how long it lives, whether to ask for it.
const ABOUT: [&str; 27] = [
    "SOCK",
    "SOCKET",
    "FILE",
    "PATH",
    "DIR",
    "URL",
    "URI",
    "HOST",
    "PORT",
    "TTL",
    "TIMEOUT",
    "EXPIRY",
    "EXPIRES",
    "METHOD",
    "TYPE",
    "MODE",
    "BACKEND",
    "ENABLED",
    "USER",
    "USERNAME",
    "NAME",
    "LENGTH",
    "ALGORITHM",
    "STDIN",
    "PROMPT",
    "HELPER",
    "DOMAIN",
];

/// Whether a variable, option or query parameter of this name holds a secret.
pub(super) fn named(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['_', '-', '.']).filter(|word| !word.is_empty()).collect();
    if words.first() == Some(&"NO") || words.last().is_some_and(|word| ABOUT.contains(word)) {
        return false;
    }
    let key = |pair: &[&str]| matches!(pair, [what, "KEY" | "KEYS" | "TOKENS"] if KEYS.contains(what));
    words.windows(2).any(key)
        || words.iter().any(|word| {
            WHOLE.contains(word) || word.ends_with("TOKEN") || INSIDE.iter().any(|part| word.contains(part))
        })
}

/// Whether a value is where a secret lies, whatever its name says: `GOOGLE_APPLICATION_CREDENTIALS=/etc/key.json`.
pub(super) fn names_file(value: &str) -> bool {
    let path = value.starts_with(['/', '~']) || value.starts_with("./");
    let ends = [".json", ".pem", ".key", ".crt", ".txt", ".toml", ".yaml", ".yml", ".conf", ".ini"];
    path && ends.iter().any(|end| value.ends_with(end))
}

/// Whether `text` can hold anything that [`ranges`] finds: a quick look, for the many texts that do not.
pub(super) fn possible(text: &[u8]) -> bool {
    memchr2_iter(b':', b'=', text).any(|at| match text[at] {
        b'=' => at > 0 && !text[at - 1].is_ascii_whitespace(),
        _ => text[at..].starts_with(b"://"),
    })
        // Every marker has a blank in it, and hardly any path does: paths are most of what comes.
        || memchr(b' ', text).is_some() && QUOTES.iter().any(|quote| memmem::find(text, quote.marker).is_some())
}

/// A text for the screen or the log, without its secrets: `amqp://guest:«redacted»@host`. What is told apart by marks is the redactor's.
pub fn blank(text: &str) -> Cow<'_, str> {
    let mut rest = 0;
    let mut out = Vec::new();
    for range in ranges(text.as_bytes(), false) {
        out.extend_from_slice(&text.as_bytes()[rest..range.start]);
        out.extend_from_slice("«redacted»".as_bytes());
        rest = range.end;
    }
    if rest == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text.as_bytes()[rest..]);
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The parts of `text` that are secrets, in order, without overlaps. `cut`: the text may go on elsewhere, so a URL that reaches its end
/// may have lost the `@` that tells its password.
pub(super) fn ranges(text: &[u8], cut: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    urls(text, cut, &mut found);
    parameters(text, &mut found);
    quotes(text, &mut found);
    found.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let mut end = 0;
    found.retain(|range| {
        let keep = range.start >= end && !already(&text[range.clone()]);
        if keep {
            end = range.end;
        }
        keep
    });
    found
}

/// Nothing, a mask, or what we put there ourselves.
pub(super) fn already(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'*') || value.starts_with("«redacted:".as_bytes())
}

const fn ends_word(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control()
}

/// `scheme://user:password@host`, for passwords as people write them: with `#`, `/`, `?` or `@` in them, unescaped.
fn urls(text: &[u8], cut: bool, found: &mut Vec<Range<usize>>) {
    let marks: Vec<usize> = memmem::find_iter(text, b"://").collect();
    for (index, mark) in marks.iter().enumerate() {
        let scheme = scheme_before(text, *mark);
        let start = mark + 3;
        // Up to the next URL's scheme, a blank, or the quote that was opened before this one.
        let limit = marks.get(index + 1).map_or(text.len(), |next| scheme_before(text, *next).max(start));
        let quote = scheme.checked_sub(1).map(|at| text[at]).and_then(closing);
        let ends = |byte: &u8| ends_word(*byte) || Some(*byte) == quote;
        let end = text[start..limit].iter().position(ends).map_or(limit, |at| start + at);
        let web = matches!(&text[scheme..*mark], b"http" | b"https" | b"ws" | b"wss" | b"ftp");
        found.extend(password(text, start..end, web, cut && end == text.len()));
    }
}

fn scheme_before(text: &[u8], mark: usize) -> usize {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text[..mark].iter().rposition(|byte| !part(byte)).map_or(0, |at| at + 1)
}

const fn closing(opening: u8) -> Option<u8> {
    match opening {
        b'"' | b'\'' | b'`' => Some(opening),
        b'<' => Some(b'>'),
        _ => None,
    }
}

/// The password in what follows `://`. In web addresses an `@` is common after the host, elsewhere it ends the password.
fn password(text: &[u8], token: Range<usize>, web: bool, cut: bool) -> Option<Range<usize>> {
    let url = &text[token.clone()];
    let authority = url.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(url.len());
    let colon = memchr(b':', &url[..authority]);
    let only_hosts = url[..authority].split(|byte| *byte == b',').all(is_host);
    let at = match memrchr(b'@', &url[..authority]) {
        Some(at) if web => Some(at),
        // `http://host:8080/@scope`: a port, not a password that begins with one.
        None if web && only_hosts => None,
        _ => memrchr(b'@', url),
    };
    let absolute = |range: Range<usize>| token.start + range.start..token.start + range.end;
    match (colon, at) {
        (Some(colon), Some(at)) if colon < at => Some(absolute(colon + 1..at)),
        // A bare token in the user's place, as code hosts have it.
        (None, Some(at)) if web && at >= 20 => Some(absolute(0..at)),
        (Some(colon), None) if cut && !only_hosts => Some(absolute(colon + 1..url.len())),
        _ => None,
    }
}

/// `host`, `host:5672`, `[::1]:5672`.
fn is_host(text: &[u8]) -> bool {
    let bracket = if text.starts_with(b"[") { memchr(b']', text) } else { None };
    let rest = &text[bracket.map_or(0, |at| at + 1)..];
    memchr(b':', rest).is_none_or(|colon| rest[colon + 1..].iter().all(u8::is_ascii_digit))
}

/// `?password=…` and `&sslpassword=…` in queries, `password=…` in connection strings, `PASSWORD=…` among words.
fn parameters(text: &[u8], found: &mut Vec<Range<usize>>) {
    for equals in memchr::memchr_iter(b'=', text) {
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let start = text[..equals].iter().rposition(|byte| !part(byte)).map_or(0, |at| at + 1);
        let Ok(name) = std::str::from_utf8(&text[start..equals]) else { continue };
        if name.is_empty() || !named(name) {
            continue;
        }
        let value = equals + 1;
        let quote = text.get(value).copied().and_then(closing);
        let value = value + usize::from(quote.is_some());
        let rest = text.get(value..).unwrap_or_default();
        let ends = |byte: &u8| match quote {
            Some(quote) => *byte == quote,
            None => ends_word(*byte) || matches!(byte, b'&' | b'"' | b'\'' | b',' | b';' | b')'),
        };
        let end = rest.iter().position(ends).map_or(text.len(), |at| value + at);
        // Not text: then it is no path either.
        if !std::str::from_utf8(&text[value..end]).is_ok_and(names_file) {
            found.push(value..end);
        }
    }
}

/// An error message of CPython that quotes what it took for something else in a URL.
struct Quote {
    marker: &'static [u8],
    /// Whether the quoted text stands before the marker.
    before: bool,
    /// What a harmless quoted text consists of.
    harmless: fn(u8) -> bool,
}

/// CPython 3.9–3.13, `urllib.parse` and `ipaddress`: with a `#`, `/`, `?` or `[` in the password, the part before it is read as the
/// port, as the host or as an address, and quoted.
const QUOTES: [Quote; 3] = [
    Quote {
        marker: b"Port could not be cast to integer value as ",
        before: false,
        harmless: |byte| byte.is_ascii_digit(),
    },
    Quote {
        marker: b" does not appear to be an IPv4 or IPv6 address",
        before: true,
        harmless: |byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'%' | b'/'),
    },
    Quote {
        marker: b" contains invalid characters under NFKC normalization",
        before: true,
        harmless: |_| false,
    },
];

fn quotes(text: &[u8], found: &mut Vec<Range<usize>>) {
    for quote in &QUOTES {
        for at in memmem::find_iter(text, quote.marker) {
            let line = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let range = match quote.before {
                true => quoted_before(text, line, at),
                false => quoted_after(text, at + quote.marker.len()),
            };
            if !text[range.clone()].iter().all(|byte| (quote.harmless)(*byte)) {
                found.push(range);
            }
        }
    }
}

/// Python's `repr` of a string that starts here, without its quotes; to the line's end when it is not closed.
fn quoted_after(text: &[u8], start: usize) -> Range<usize> {
    let line_end = memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at);
    match text.get(start).copied().and_then(closing) {
        // The last one of its kind: an escaped quote may stand inside.
        Some(quote) => {
            let inside = start + 1;
            let end = memrchr(quote, text.get(inside..line_end).unwrap_or_default());
            inside.min(line_end)..end.map_or(line_end, |at| inside + at)
        }
        None => start..line_end,
    }
}

fn quoted_before(text: &[u8], line: usize, end: usize) -> Range<usize> {
    let Some(quote) = end.checked_sub(1).filter(|at| *at > line).map(|at| text[at]).and_then(closing) else {
        return end..end;
    };
    // The first one of its kind on the line: an escaped quote may stand inside.
    let start = memchr(quote, &text[line..end - 1]).map_or(line, |at| line + at + 1);
    start..end - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        assert!(
            ranges(text.as_bytes(), false).is_empty() || possible(text.as_bytes()),
            "missed early: {text}"
        );
        ranges(text.as_bytes(), false).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn names_that_say_secret() {
        for name in [
            "PASSWORD",
            "PGPASSWORD",
            "DB_PASS",
            "RABBITMQ_DEFAULT_PASS",
            "db-password",
            "MYSQL_ROOT_PASSWORD",
            "SECRET_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "GITHUB_TOKEN",
            "token",
            "APIKEY",
            "STRIPE_API_KEY",
            "SSH_PRIVATE_KEY",
            "AUTH",
            "HTTP_AUTH",
            "COOKIE",
            "ERLANG_COOKIE",
            "SESSION_KEY",
            "GOOGLE_CREDENTIALS",
            "sslpassword",
            "access_token",
        ] {
            assert!(named(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_sound_like_it() {
        for name in [
            "KEYBOARD",
            "SSH_AUTH_SOCK",
            "XAUTHORITY",
            "PWD",
            "OLDPWD",
            "PATH",
            "PRIMARY_KEY",
            "KEY",
            "TOKENIZERS_PARALLELISM",
            "PASSWORD_FILE",
            "DB_PASSWORD_PATH",
            "COMPASS",
            "MAX_TOKENS",
            "GIT_CREDENTIAL_HELPER",
            "MAX_TOKENS",
            "GIT_CREDENTIAL_HELPER",
            "AUTHOR",
            "SUDO_ASKPASS",
            "TOKEN_TTL",
            "no-password",
            "AUTH_METHOD",
            "DBUS_SESSION_BUS_ADDRESS",
            "HOME",
            "DATABASE_URL",
            "BROKER_URL",
            "SENTRY_DSN",
            "",
            "_",
        ] {
            assert!(!named(name), "{name}");
        }
    }

    #[test]
    fn passwords_in_urls() {
        assert_eq!(found("amqp://user:hunter2@rabbit:5672/vh"), ["hunter2"]);
        assert_eq!(found("redis://:hunter2@cache"), ["hunter2"]);
        assert_eq!(found("x='amqp://u:p1@a', y=\"amqp://u:p2@b\""), ["p1", "p2"]);
        assert_eq!(found("amqp://u:p1@a;amqp://u:p2@b,amqp://u:p3@c"), ["p1", "p2", "p3"]);
        assert_eq!(found("https://ghp_0123456789abcdefghij@github.com/x"), ["ghp_0123456789abcdefghij"]);
    }

    #[test]
    fn passwords_that_should_have_been_escaped() {
        assert_eq!(found("amqp://user:pa#ss@host"), ["pa#ss"]);
        assert_eq!(found("amqp://user:pa/ss@host"), ["pa/ss"]);
        assert_eq!(found("amqp://user:12/34@host"), ["12/34"]);
        assert_eq!(found("amqp://user:p@ss@host"), ["p@ss"]);
        assert_eq!(found("amqp://user:a@c/d?@host/vh"), ["a@c/d?"]);
        assert_eq!(found("https://user:pa/ss@host"), ["pa/ss"]);
    }

    #[test]
    fn urls_without_a_password() {
        for text in [
            "amqp://guest@localhost/",
            "http://localhost:15672/#/queues",
            "https://host:8080/@scope/package",
            "file:///etc/x",
            "https://example.org/a@b",
            "see http://a/ and mail x@y",
            "amqp://localhost:5672",
            "://",
            "a://:@",
            "ssh://git@github.com",
            "https://[::1]:8080/@x",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_url_that_is_cut_off_may_have_lost_its_at_sign() {
        let text = b"amqp://user:hunt";
        assert_eq!(ranges(text, true).first(), Some(&(12..16)));
        assert!(ranges(text, false).is_empty());
        for hosts in
            ["amqp://host:5672", "redis://[::1]:6379", "redis-sentinel://a:26379,b:26379/0", "http://[::1]/"]
        {
            assert!(ranges(hosts.as_bytes(), true).is_empty(), "{hosts}: those are ports");
        }
        assert!(ranges(b"amqp://user:hunt more", true).is_empty(), "that one ended");
    }

    #[test]
    fn parameters_in_queries_and_connection_strings() {
        assert_eq!(found("amqps://h/v?sslpassword=geheim&x=1"), ["geheim"]);
        assert_eq!(found("host=db user=me password=geheim dbname=x"), ["geheim"]);
        assert_eq!(found("connect(host='h', password='ge heim')"), ["ge heim"]);
        assert_eq!(found("PASSWORD=geheim"), ["geheim"]);
        assert_eq!(found("a=b keyboard=us x == y"), [""; 0]);
    }

    #[test]
    fn messages_of_python_that_quote_parts_of_a_url() {
        assert_eq!(found("ValueError: Port could not be cast to integer value as 'pa'\n"), ["pa"]);
        assert_eq!(found("ValueError: Port could not be cast to integer value as \"p'a\"\n"), ["p'a"]);
        assert_eq!(found("Port could not be cast to integer value as 'p\\'a\"'\nrest 'x'"), ["p\\'a\""]);
        assert_eq!(found("ValueError: 'geheim' does not appear to be an IPv4 or IPv6 address"), ["geheim"]);
        assert_eq!(found("ValueError: '10.0.0.300' does not appear to be an IPv4 or IPv6 address"), [""; 0]);
        let netloc =
            "ValueError: netloc 'user:p℀ss@host' contains invalid characters under NFKC normalization";
        assert_eq!(found(netloc), ["user:p℀ss@host"]);
        assert_eq!(found("Port could not be cast to integer value as "), [""; 0]);
    }

    #[test]
    fn what_was_replaced_stays_as_it_is() {
        assert_eq!(found("amqp://u:«redacted:3f9a»@h amqp://u:***@h ?password= "), [""; 0]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200), cut: bool) {
            for range in ranges(&text, cut) {
                proptest::prop_assert!(range.start <= range.end && range.end <= text.len());
            }
        }

        #[test]
        fn no_mixture_of_its_own_words_makes_it_panic(words in proptest::collection::vec(proptest::sample::select(vec![
            "://", "a", ":", "@", "/", "'", "\"", "password=", "=", "\n", " ", "Port could not be cast to integer value as ",
            " does not appear to be an IPv4 or IPv6 address", " contains invalid characters under NFKC normalization", "é",
        ]), 0..12), cut: bool) {
            let text = words.concat();
            for range in ranges(text.as_bytes(), cut) {
                proptest::prop_assert!(text.get(range).is_some(), "{text:?}");
            }
        }
    }
}
