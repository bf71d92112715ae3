//! Lines of text → tracebacks of CPython: frames, exception, chain, group. Knows the text's form only; nothing of events or processes.
//!
//! The form is that of `traceback.TracebackException.format` and of `PyErr_Display` (CPython 3.10 to 3.14: `Lib/traceback.py`,
//! `Python/pythonrun.c`). Text is the target's and may be anything: what does not have the form is passed over.

/// Of the frames of one traceback, so many are kept: the outermost eight and the innermost.
const MAX_FRAMES: usize = 64;
const OUTERMOST: usize = 8;
/// Of one text, so many characters.
const MAX_TEXT: usize = 500;
/// Lines of somebody else that may stand inside a traceback.
const MAX_FOREIGN: usize = 12;
/// Members of an exception group that are kept.
const MAX_MEMBERS: usize = 16;

const HEADER: &str = "Traceback (most recent call last):";
const CAUSE: &str = "The above exception was the direct cause of the following exception:";
const CONTEXT: &str = "During handling of the above exception, another exception occurred:";

/// One call in a traceback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The file, as Python named it.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The function, `<module>` for a module's top level; `None` for the place of a `SyntaxError`.
    pub function: Option<String>,
    /// The source line, when it was printed.
    pub source: Option<String>,
}

/// How an exception came of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chained {
    /// `raise … from`.
    Cause,
    /// Raised while the earlier one was being handled.
    Context,
}

/// An exception that was printed, and where it was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traceback {
    /// The calls, outermost first.
    pub frames: Vec<Frame>,
    /// The exception's type as printed: `KeyError`, `pika.exceptions.AMQPConnectionError`.
    pub kind: String,
    /// The first line of its text.
    pub message: String,
    /// The exception before it, and how this one came of it.
    pub earlier: Option<(Chained, Box<Self>)>,
    /// The members, when it is an exception group; those of nested groups among them.
    pub members: Vec<Self>,
    /// What stood before it in the same line, else the line before: a logger's message, `Exception in thread …`.
    pub heading: String,
}

impl Traceback {
    /// The type's own name, without its module.
    pub fn name(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or(&self.kind)
    }

    /// The innermost frame.
    pub fn innermost(&self) -> Option<&Frame> {
        self.frames.last()
    }

    /// Whether another text tells of the same exception; what stood above it may differ.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.message == other.message && self.frames == other.frames
    }

    /// It and those before it, the last one first.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |traceback| {
            traceback.earlier.as_ref().map(|(_, earlier)| &**earlier)
        })
    }
}

/// What a line was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// No part of a traceback.
    Other,
    /// A part of one.
    Part,
    /// The first line of one.
    First,
    /// The line that says which exception it was: the traceback is whole. A chained one holds those before it, which were handed out
    /// already.
    Last(Box<Traceback>),
}

/// Reads the lines of one writer.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    open: Option<Open>,
    /// The last one that was handed out, to which a chain may lead.
    last: Option<Box<Traceback>>,
    chained: Option<Chained>,
    /// The group that is being told, and how far its lines are indented.
    group: Option<(Box<Traceback>, usize)>,
    previous: String,
}

#[derive(Clone, Debug, Default)]
struct Open {
    traceback: Traceback,
    prefix: String,
    foreign: usize,
    /// It began with a frame: the form of a `SyntaxError` in the main script.
    headless: bool,
    is_group: bool,
}

impl Parser {
    /// Whether it is in the middle of a traceback.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the next line, without its newline.
    pub fn push(&mut self, line: &str) -> Line {
        let line = line.trim_end_matches('\r');
        if let Some(at) = line.find(HEADER) {
            self.begin(line.get(..at).unwrap_or_default());
            return Line::First;
        }
        match self.open.take() {
            Some(open) => self.go_on(open, line),
            None => self.between(line),
        }
    }

    /// A header was read; `before` stood before it in its line.
    fn begin(&mut self, before: &str) {
        let (before, is_group) = match before.strip_suffix("Exception Group ") {
            Some(before) => (before, true),
            None => (before, false),
        };
        // The first line of a group is marked with a plus where the others have a bar.
        let prefix = match before.strip_suffix("+ ") {
            Some(indent) if is_group => format!("{indent}| "),
            _ => before.to_owned(),
        };
        let heading = if before.trim_matches([' ', '|', '+']).is_empty() { &self.previous } else { before };
        if prefix_level(&prefix).is_none() {
            self.group = None;
        }
        let mut traceback = Traceback { heading: bounded(heading.trim()), ..Traceback::default() };
        if let (Some(how), Some(earlier)) = (self.chained.take(), self.last.take()) {
            traceback.earlier = Some((how, earlier));
        }
        self.open = Some(Open { traceback, prefix, is_group, ..Open::default() });
    }

    fn between(&mut self, line: &str) -> Line {
        let text = line.trim_start_matches([' ', '|']);
        if text.trim().is_empty() {
            return Line::Other;
        }
        if self.last.is_some() && (text.ends_with(CAUSE) || text.ends_with(CONTEXT)) {
            self.chained = Some(if text.ends_with(CAUSE) { Chained::Cause } else { Chained::Context });
            return Line::Part;
        }
        // `+-+---------------- 1 ----------------` and `+------------------------------------`.
        if self.group.is_some()
            && text.starts_with("+-")
            && text.trim_matches(['+', '-', ' ']).parse::<u32>().is_ok()
        {
            return Line::Part;
        }
        if self.group.is_some() && text.starts_with("+---") {
            return Line::Part;
        }
        self.chained = None;
        if let Some(frame) = frame(line).filter(|frame| frame.function.is_none()) {
            let heading = bounded(self.previous.trim());
            let traceback = Traceback { frames: vec![frame], heading, ..Traceback::default() };
            self.open = Some(Open { traceback, headless: true, ..Open::default() });
            return Line::First;
        }
        self.previous = bounded(line);
        Line::Other
    }

    fn go_on(&mut self, mut open: Open, line: &str) -> Line {
        let text = without_prefix(line, &open.prefix);
        if let Some(frame) = frame(text) {
            if open.traceback.frames.len() >= MAX_FRAMES {
                open.traceback.frames.remove(OUTERMOST);
            }
            open.traceback.frames.push(frame);
            self.open = Some(open);
            return Line::Part;
        }
        if text.starts_with("    ") || text.starts_with("  [Previous line repeated ") {
            if let Some(frame) = open.traceback.frames.last_mut()
                && frame.source.is_none()
                && !text.trim_matches([' ', '^', '~']).is_empty()
            {
                frame.source = Some(bounded(text.trim()));
            }
            self.open = Some(open);
            return Line::Part;
        }
        if let Some((kind, message)) = exception(text)
            && (!open.headless || is_of_syntax(kind))
        {
            open.traceback.kind = bounded(kind);
            open.traceback.message = bounded(message);
            return Line::Last(Box::new(self.end(open)));
        }
        // Somebody else's line in between; a headless one has none.
        open.foreign += 1;
        if open.foreign <= MAX_FOREIGN && !open.headless {
            self.open = Some(open);
        }
        self.previous = bounded(line);
        Line::Other
    }

    /// The exception's own line was read.
    fn end(&mut self, open: Open) -> Traceback {
        self.previous.clear();
        let level = prefix_level(&open.prefix);
        let traceback = open.traceback;
        // A member of the group before it stands further in.
        if let Some((group, at)) = &mut self.group
            && level.is_some_and(|level| level > *at)
        {
            if group.members.len() < MAX_MEMBERS {
                group.members.push(traceback);
            }
            let group = (**group).clone();
            self.last = Some(Box::new(group.clone()));
            return group;
        }
        self.group = open.is_group.then(|| (Box::new(traceback.clone()), level.unwrap_or_default()));
        self.last = Some(Box::new(traceback.clone()));
        traceback
    }
}

/// How far in the lines of an exception group stand: `  | ` is 2. `None` for any other prefix.
fn prefix_level(prefix: &str) -> Option<usize> {
    let indent = prefix.strip_suffix("| ")?;
    indent.chars().all(|c| c == ' ').then_some(indent.len())
}

/// What stands after a prefix that was before the first line too. A prefix with a time in it changes; its length and its end do not.
fn without_prefix<'a>(line: &'a str, prefix: &str) -> &'a str {
    if prefix.is_empty() {
        return line;
    }
    if let Some(text) = line.strip_prefix(prefix) {
        return text;
    }
    let tail = prefix.get(prefix.len().saturating_sub(2)..).unwrap_or(prefix);
    match (line.get(..prefix.len()), line.get(prefix.len()..)) {
        (Some(before), Some(text)) if !tail.trim().is_empty() && before.ends_with(tail) => text,
        _ => line,
    }
}

/// `  File "x.py", line 3, in f`
fn frame(text: &str) -> Option<Frame> {
    let rest = text.trim_start().strip_prefix("File \"")?;
    if !text.starts_with(' ') {
        return None;
    }
    let (file, rest) = rest.rsplit_once("\", line ")?;
    let (line, function) = match rest.split_once(", in ") {
        Some((line, function)) => (line, Some(bounded(function))),
        None => (rest, None),
    };
    Some(Frame { file: bounded(file), line: line.trim().parse().ok()?, function, source: None })
}

/// `KeyError: 'URL'`, `pika.exceptions.AMQPConnectionError`: the type and the text.
fn exception(text: &str) -> Option<(&str, &str)> {
    let (kind, message) = match text.split_once(": ") {
        Some((kind, message)) => (kind, message),
        None => (text.trim_end().trim_end_matches(':'), ""),
    };
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>');
    let starts = kind.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    // A type's name begins with a capital wherever people follow PEP 8, and ends so in the standard library; a lone word without a
    // text could else be anything a program prints.
    let named = kind.rsplit('.').next().is_some_and(|name| name.chars().any(char::is_uppercase));
    (starts && kind.len() <= 200 && kind.chars().all(plain) && (named || !message.is_empty()))
        .then_some((kind, message))
}

fn is_of_syntax(kind: &str) -> bool {
    matches!(kind, "SyntaxError" | "IndentationError" | "TabError")
}

fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Traceback> {
        let mut parser = Parser::default();
        let mut found: Vec<Traceback> = Vec::new();
        for line in text.lines() {
            if let Line::Last(traceback) = parser.push(line) {
                let replaces = found.last().is_some_and(|last| {
                    traceback.earlier.as_ref().is_some_and(|(_, earlier)| earlier.is_same(last))
                        || (!traceback.members.is_empty() && traceback.is_same(last))
                });
                if replaces {
                    found.pop();
                }
                found.push(*traceback);
            }
        }
        found
    }

    fn places(traceback: &Traceback) -> Vec<(&str, u32, Option<&str>)> {
        traceback.frames.iter().map(|f| (f.file.as_str(), f.line, f.function.as_deref())).collect()
    }

    const PLAIN: &str = r#"Traceback (most recent call last):
  File "/app/worker.py", line 3, in <module>
    x = os.environ["URL"]
        ~~~~~~~~~~^^^^^^^
  File "<frozen os>", line 679, in __getitem__
KeyError: 'URL'
"#;

    #[test]
    fn frames_and_exception_are_read() {
        let found = parse(PLAIN);
        assert_eq!(found.len(), 1);
        assert_eq!(
            places(&found[0]),
            [("/app/worker.py", 3, Some("<module>")), ("<frozen os>", 679, Some("__getitem__"))]
        );
        assert_eq!(found[0].frames[0].source.as_deref(), Some("x = os.environ[\"URL\"]"));
        assert_eq!((found[0].kind.as_str(), found[0].message.as_str()), ("KeyError", "'URL'"));
    }

    #[test]
    fn a_chain_holds_what_came_before() {
        let text = format!(
            "{PLAIN}\n{CONTEXT}\n\n{PLAIN}\n{CAUSE}\n\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\nlib.errors.Setup\n"
        );
        let found = parse(&text);
        assert_eq!(found.len(), 1);
        let chain: Vec<_> = found[0].chain().map(|t| t.kind.as_str()).collect();
        assert_eq!(chain, ["lib.errors.Setup", "KeyError", "KeyError"]);
        assert_eq!(found[0].earlier.as_ref().unwrap().0, Chained::Cause);
        assert_eq!(found[0].name(), "Setup");
    }

    #[test]
    fn a_syntax_error_has_a_place_without_a_function() {
        let text = "Traceback (most recent call last):\n  File \"<frozen importlib._bootstrap>\", line 241, in _call\n  File \"/app/w.py\", line 2\n    def f(:\n          ^\nSyntaxError: invalid syntax\n";
        let found = parse(text);
        assert_eq!(found[0].innermost().map(|f| (f.line, f.function.is_none())), Some((2, true)));
        let (_, bare) = text.split_once("_call\n").unwrap();
        assert_eq!(places(&parse(bare)[0]), [("/app/w.py", 2, None)]);
    }

    #[test]
    fn lines_of_others_and_prefixes_do_not_disturb() {
        let mut lines: Vec<String> = PLAIN.lines().map(str::to_owned).collect();
        lines.insert(2, "[2026-11-25 10:00:00,000] [PID 7] [INFO] something else".into());
        assert!(parse(&lines.join("\n"))[0].is_same(&parse(PLAIN)[0]));
        let prefixed: String =
            PLAIN.lines().enumerate().map(|(n, line)| format!("10:00:0{n} web | {line}\n")).collect();
        assert!(parse(&prefixed)[0].is_same(&parse(PLAIN)[0]));
        let logged = format!("[CRITICAL] failed\n{PLAIN}");
        assert_eq!(parse(&logged)[0].heading, "[CRITICAL] failed");
    }

    #[test]
    fn members_of_a_group_are_its_own() {
        let text = r#"  + Exception Group Traceback (most recent call last):
  |   File "/app/w.py", line 9, in <module>
  |     raise ExceptionGroup("two", [a, b])
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/w.py", line 4, in <module>
    |     1 / 0
    | ZeroDivisionError: division by zero
    +---------------- 2 ----------------
    | ValueError: plain
    +------------------------------------
done
"#;
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, "ExceptionGroup");
        let members: Vec<_> = found[0].members.iter().map(|t| t.kind.as_str()).collect();
        assert_eq!(members, ["ZeroDivisionError"]);
    }

    #[test]
    fn what_only_looks_like_one_is_passed_over() {
        for text in [
            "/app/w.py:3: DeprecationWarning: old\n  import imp\n",
            "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File \"a.py\", line 3 in f\n",
            "  File \"a.py\", line 3\nall is well\nSyntaxError: no\n",
            "Traceback (most recent call last):\n",
            "ValueError: nothing before it\n",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
    }
}
