//! Replaces secrets in events by a keyed hash, before anything reaches the disk. Knows events and strings; protocols that carry secrets
//! in frames have a filter of their own.
//!
//! Limits: a secret that a program writes in two calls is not put together again (a URL cut off at the end of a call is blanked
//! from its password on), and a secret nobody named as one is not recognised. A literal that was seen as a secret is looked for afterwards
//! in everything that is recorded, when it is at least six characters long; one of letters only may be an ordinary word (`shopdev`), so
//! it is looked for in arguments, output and messages, but not in paths and environment variables, where replacing it would hide which
//! files and variables the program saw.

use std::{borrow::Cow, collections::HashSet, ops::Range};

use super::{
    SessionError, StateDir,
    key::{KEY_BYTES, Key},
    secret,
};
use crate::event::{Address, Body, Event, Exec, FdTarget, Known};
use aho_corasick::{AhoCorasick, MatchKind};

/// Shorter literals stand in too many innocent places; longer ones are documents, and nobody prints them in one piece.
const LITERAL_BYTES: std::ops::RangeInclusive<usize> = 6..=4096;

/// Literals remembered: a program could hand us any number of variables that are named like secrets.
const MOST_LITERALS: usize = 512;

/// Passwords everybody knows. Looking for them everywhere would blank the names of programs and hosts, and protect nothing.
const EVERYDAY: [&str; 12] = [
    "dramatiq",
    "rabbitmq",
    "localhost",
    "postgres",
    "python",
    "password",
    "secret",
    "changeme",
    "default",
    "worker",
    "broker",
    "development",
];

/// Replaces secrets by `«redacted:3f9a»`: the same mark for the same secret within one state directory.
pub struct Redactor {
    key: Key,
    known: HashSet<Vec<u8>>,
    /// For paths and variables: literals that cannot be ordinary words.
    strange: Literals,
    /// For arguments, output and messages: all literals.
    all: Literals,
}

#[derive(Default)]
struct Literals {
    literals: Vec<Vec<u8>>,
    search: Option<AhoCorasick>,
}

impl Literals {
    /// Makes the search for what was added since the last time.
    fn build(&mut self) {
        if self.search.as_ref().map_or(0, AhoCorasick::patterns_len) == self.literals.len() {
            return;
        }
        // Leftmost-longest: of two secrets one of which begins the other, the longer one is replaced whole. Should a search not be
        // buildable (it is far below every limit), the old one stays.
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.literals);
        if let Ok(search) = built {
            self.search = Some(search);
        }
    }

    fn ranges(&self, text: &[u8]) -> Vec<Range<usize>> {
        self.search.iter().flat_map(|search| search.find_iter(text)).map(|found| found.range()).collect()
    }
}

impl Redactor {
    /// The redactor of a state directory; makes the directory's key when it has none.
    ///
    /// # Errors
    /// When the key can neither be read nor made.
    pub fn open(dir: &StateDir) -> Result<Self, SessionError> {
        let path = dir.path().join("key");
        Key::read_or_make(&path, dir.owner()).map(Self::holding).map_err(|source| SessionError::Io {
            attempted: "read or make the redaction key",
            path,
            source,
            next: "it must be a file of 32 bytes that you own; remove it to have a new one made",
        })
    }

    /// A redactor with a given key.
    pub fn with_key(key: [u8; KEY_BYTES]) -> Self {
        Self::holding(Key(key))
    }

    fn holding(key: Key) -> Self {
        Self { key, known: HashSet::new(), strange: Literals::default(), all: Literals::default() }
    }

    /// Replaces the secrets in an event, and remembers them.
    pub fn redact_event(&mut self, event: &mut Event) {
        match &mut event.body {
            Body::Exec(exec) => self.exec(exec),
            Body::ExecFailed { path, .. } => self.path(path),
            Body::Signal { sender, .. } => {
                if let Some(sender) = sender.get_mut() {
                    self.text(&mut sender.name);
                    if let Some(cmdline) = sender.cmdline.get_mut() {
                        let mut words: Vec<String> = cmdline.split(' ').map(str::to_owned).collect();
                        self.redact_command(&mut words);
                        *cmdline = words.join(" ");
                    }
                }
            }
            Body::Open(call)
            | Body::Stat(call)
            | Body::Access(call)
            | Body::Readlink(call)
            | Body::Scan(call)
            | Body::Chdir(call) => {
                self.path(&mut call.path);
                self.path(&mut call.resolved);
            }
            Body::Connect { peer, local, .. }
            | Body::Connected { peer, local, .. }
            | Body::Accept { peer, local, .. }
            | Body::Disconnect { peer, local, .. } => {
                self.address(peer);
                self.address(local);
            }
            Body::Bind { address, .. } | Body::Listen { address, .. } => self.address(address),
            Body::Stuck { on, .. } => self.path(on),
            Body::ModuleSearch(search) => {
                self.text(&mut search.name);
                search.absent.iter_mut().for_each(|entry| self.text(entry));
                for near in &mut search.near {
                    self.text(&mut near.root);
                    self.text(&mut near.path);
                }
            }
            Body::SourceLook(look) => self.text(&mut look.path),
            Body::FileLook(look) => {
                self.text(&mut look.path);
                // What a file says is nobody's business: only whether two say the same.
                let content = std::mem::take(&mut event.bytes);
                look.digest = (!content.is_empty()).then(|| self.key.digest(&content)).flatten();
            }
            Body::Note { text, .. } | Body::Gap { why: text, .. } | Body::Lookup { name: text, .. } => {
                self.text(text)
            }
            Body::Output { .. } => {
                if let Cow::Owned(clean) = self.clean(&event.bytes, true, &self.all) {
                    event.bytes = clean;
                }
            }
            body => {
                if let Body::BrokerConnection(connection) = body {
                    let (own, parent) = (&mut connection.local_command, &mut connection.local_parent_command);
                    own.iter_mut().chain(parent).for_each(|words| self.redact_command(words));
                }
                body.broker_texts(&mut |text| self.text(text));
                body.python_paths(&mut |path| self.string(path, false, &self.strange));
            }
        }
    }

    /// The secrets of a variable, each with the mark that stands for it in this state directory's sessions: for who holds the secret
    /// already and has to put it back where it stood.
    pub fn marks(&self, name: &str, value: &str) -> Vec<(String, String)> {
        let whole = secret::named(name) && !secret::names_file(value);
        let ranges = secret::ranges(value.as_bytes(), false);
        let parts = ranges.into_iter().filter_map(|range| value.get(range));
        let secrets = whole.then_some(value).into_iter().chain(parts);
        secrets.map(|secret| (self.key.mark(secret.as_bytes()), secret.to_owned())).collect()
    }

    /// Replaces the secrets in the words of a command, and remembers them.
    pub fn redact_command(&mut self, words: &mut [String]) {
        let mut value_of_secret = false;
        for word in words.iter_mut() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let option = name.strip_prefix("--");
            // `--password=x`, and `PASSWORD=x` as `env` takes it. A blank: that is text (`-c 'password = x'`), not a name.
            let secret = !name.contains(char::is_whitespace) && secret::named(option.unwrap_or(name));
            let next_is_value = option.is_some() && secret && value.is_none();
            let replaced = match value {
                _ if value_of_secret && option.is_none() => Some(self.replace(word)),
                Some(value) if secret => Some(format!("{name}={}", self.replace(value))),
                _ => None,
            };
            if let Some(replaced) = replaced {
                *word = replaced;
            }
            value_of_secret = next_is_value;
        }
        for word in words.iter() {
            self.learn(word);
        }
        self.build();
        for word in words.iter_mut() {
            self.string(word, true, &self.all);
        }
    }

    fn exec(&mut self, exec: &mut Exec) {
        // The environment first: what it calls secret may stand in the arguments.
        if let Some(env) = exec.env.get_mut() {
            self.environment(env);
        }
        if let Some(argv) = exec.argv.get_mut() {
            self.redact_command(argv);
        }
        self.path(&mut exec.path);
        self.path(&mut exec.cwd);
        self.path(&mut exec.tty);
        if let Some(exe) = exec.exe.get_mut() {
            self.path(&mut exe.path);
        }
        for target in exec.stdio.iter_mut().filter_map(Known::get_mut) {
            let FdTarget { path, other_end, .. } = target;
            self.path(path);
            for holder in other_end.get_mut().into_iter().flatten() {
                self.text(&mut holder.name);
            }
        }
    }

    fn environment(&mut self, env: &mut [String]) {
        for variable in env.iter_mut() {
            match variable.split_once('=') {
                Some((name, value)) if secret::named(name) => {
                    let replaced = self.replace(value);
                    *variable = format!("{name}={replaced}");
                }
                _ => self.learn(variable),
            }
        }
        self.build();
        for variable in env {
            // The last one may be cut off, and then it has lost the `@` that tells a password.
            self.string(variable, true, &self.strange);
        }
    }

    fn address(&self, address: &mut Known<Address>) {
        if let Some(Address::Unix { path }) = address.get_mut() {
            self.string(path, false, &self.strange);
        }
    }

    fn path(&self, path: &mut Known<String>) {
        if let Some(path) = path.get_mut() {
            self.string(path, false, &self.strange);
        }
    }

    fn text(&self, text: &mut String) {
        self.string(text, false, &self.all);
    }

    fn string(&self, text: &mut String, cut: bool, literals: &Literals) {
        if let Cow::Owned(clean) = self.clean(text.as_bytes(), cut, literals) {
            *text = String::from_utf8_lossy(&clean).into_owned();
        }
    }

    /// Borrowed when there is nothing to replace.
    fn clean<'a>(&self, text: &'a [u8], cut: bool, literals: &Literals) -> Cow<'a, [u8]> {
        let known = literals.ranges(text);
        let mut found = if secret::possible(text) { secret::ranges(text, cut) } else { Vec::new() };
        if known.is_empty() && found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.extend(known);
        found.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
        let mut clean = Vec::with_capacity(text.len() + 16 * found.len());
        let mut done = 0;
        for range in found {
            // Where two overlap, what is left of the second goes too.
            if range.end > done {
                let start = range.start.max(done);
                clean.extend_from_slice(&text[done..start]);
                if range.start >= done {
                    clean.extend_from_slice(self.key.mark(&text[range.clone()]).as_bytes());
                }
                done = range.end;
            }
        }
        clean.extend_from_slice(&text[done..]);
        Cow::Owned(clean)
    }

    /// A whole value that is a secret.
    fn replace(&mut self, value: &str) -> String {
        if secret::already(value.as_bytes()) || secret::names_file(value) {
            return value.to_owned();
        }
        self.remember(value.as_bytes());
        self.key.mark(value.as_bytes())
    }

    /// Remembers the secrets that stand in a text.
    fn learn(&mut self, text: &str) {
        if !secret::possible(text.as_bytes()) {
            return;
        }
        for range in secret::ranges(text.as_bytes(), true) {
            let (before, value) = (&text.as_bytes()[..range.start], &text.as_bytes()[range]);
            // `amqp://shop:shop@…`: a password equal to its user's name hides nothing, and would blank the name everywhere.
            if !before.strip_suffix(b":").is_some_and(|user| user.ends_with(value)) {
                self.remember(value);
                self.remember(&unescaped(value));
            }
        }
    }

    fn remember(&mut self, value: &[u8]) {
        let everyday = EVERYDAY.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(value));
        let room = LITERAL_BYTES.contains(&value.len()) && self.known.len() < MOST_LITERALS;
        if !room || everyday || !self.known.insert(value.to_owned()) {
            return;
        }
        if !value.iter().all(u8::is_ascii_alphabetic) {
            self.strange.literals.push(value.to_owned());
        }
        self.all.literals.push(value.to_owned());
    }

    fn build(&mut self) {
        self.strange.build();
        self.all.build();
    }
}

/// With `%23` as `#`: how the program itself knows a password that was escaped in a URL.
fn unescaped(value: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = if *first == b'%' { digit(tail.first()).zip(digit(tail.get(1))) } else { None };
        rest = match escaped {
            Some((high, low)) => {
                plain.push((high * 16 + low) as u8);
                &tail[2..]
            }
            None => {
                plain.push(*first);
                tail
            }
        };
    }
    plain
}
