//! One place where settings are said: read, parsed, and held against what there is to be said. Knows nothing of the other places.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    util::nest,
    value::{Dict, Map, Value},
};

use super::{ConfigError, Origin, PREFIX, Sources, drop_ins};
use crate::{daemon::settings::Settings, session::blank};

/// A file that is larger holds no settings.
const MOST_BYTES: u64 = 1 << 20;

/// What one place says.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) origin: Origin,
    said: Dict,
    /// A file's text, to find lines in.
    text: Option<String>,
}

/// What a layer says, for figment; its name there is its index.
pub(super) struct Named(usize, Dict);

impl Provider for Named {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.1.clone()))
    }
}

/// All of them, the weakest first.
pub(super) fn all(sources: &Sources) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    guard_folder(sources)?;
    if let Some(text) = read(&sources.file, sources)? {
        layers.push(of_file(&sources.file, text)?);
    } else if sources.required {
        return Err(failed(&sources.file, io::ErrorKind::NotFound.into(), "name a file that is there"));
    }
    for path in drop_in_files(sources)? {
        // One that is gone by now says nothing.
        if let Some(text) = read(&path, sources)? {
            layers.push(of_file(&path, text)?);
        }
    }
    let ours = |(name, value): &(String, String)| {
        let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
        Some(of_word(Origin::Variable(name.clone()), &key, value))
    };
    let mut variables: Vec<_> = sources.variables.iter().collect();
    variables.sort();
    layers.extend(variables.into_iter().filter_map(ours));
    for flag in &sources.flags {
        let Some((key, value)) = flag.split_once('=') else {
            return Err(ConfigError::Wrong {
                place: format!("--set {}", blank(flag)),
                what: "there is no value".into(),
                next: "write --set KEY=VALUE, as in --set flight.ring=64MiB".into(),
            });
        };
        let key = key.trim();
        layers.push(of_word(Origin::Flag(key.to_owned()), key, value));
    }
    Ok(layers)
}

impl Layer {
    /// Whether anything is said of this.
    pub(super) fn says(&self, key: &str) -> bool {
        self.said.contains_key(key)
    }

    /// What is said, but for the lists, which are put together otherwise.
    pub(super) fn scalars(&self, index: usize) -> Named {
        let mut said = self.said.clone();
        said.retain(|key, _| key != "rules" && key != "hooks");
        Named(index, said)
    }

    /// The settings there would be if only this was said.
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        Figment::from(Named(0, self.said.clone())).extract().map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &figment::Error) -> ConfigError {
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind
            && path.last() == Some(name)
        {
            path.pop();
        }
        let key = dotted(&path);
        let inside = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        let help = || "see observer config --help".to_owned();
        let (what, next) = match &error.kind {
            Kind::UnknownField(name, known) => {
                (format!("there is no setting `{}`", inside(name)), nearest(name, known))
            }
            Kind::UnknownVariant(name, known) => {
                (format!("`{key}` cannot be \"{name}\""), nearest(name, known))
            }
            Kind::MissingField(name) => (format!("`{}` is missing", inside(name)), help()),
            Kind::InvalidType(actual, wanted) => {
                (format!("`{key}` is {}", named(actual)), format!("write {}", asked(wanted)))
            }
            Kind::Message(message) => match message.split_once("; ") {
                Some((what, next)) => (format!("`{key}`: {what}"), next.to_owned()),
                None => (format!("`{key}`: {message}"), help()),
            },
            other => (format!("`{key}`: {other}"), help()),
        };
        // The other parser stumbles over the same thing, and knows the line.
        let line = self.text.as_deref().and_then(|text| {
            let span = toml::from_str::<Settings>(text).err()?.span()?;
            Some(line_of(text, span.start))
        });
        wrong(&self.origin, line, what, next)
    }
}

fn of_file(path: &Path, text: String) -> Result<Layer, ConfigError> {
    let origin = Origin::File(path.to_owned());
    match toml::from_str::<Dict>(&text) {
        Ok(said) => Ok(Layer { origin, said, text: Some(text) }),
        Err(error) => {
            let line = error.span().map(|span| line_of(&text, span.start));
            let what = format!("this is no TOML: {}", error.message().replace('\n', ", "));
            Err(wrong(&origin, line, what, "`observer config --help` shows the grammar".into()))
        }
    }
}

/// A key with dots and its value, written as in TOML; what is no TOML is text.
fn of_word(origin: Origin, key: &str, value: &str) -> Layer {
    let parsed = toml::from_str::<Dict>(&format!("v = {value}")).ok();
    let value = parsed.and_then(|mut parsed| parsed.remove("v")).unwrap_or_else(|| Value::from(value));
    // `nest` takes an empty part of a key for its end.
    let said = nest(key, value.clone()).into_dict().filter(|_| !key.split('.').any(str::is_empty));
    let said = said.unwrap_or_else(|| Dict::from([(key.to_owned(), value)]));
    Layer { origin, said, text: None }
}

/// `rules[0].for`, as one would say it.
fn dotted(path: &[String]) -> String {
    let mut key = String::new();
    for part in path {
        match part.parse::<usize>() {
            Ok(index) => key.push_str(&format!("[{index}]")),
            Err(_) if key.is_empty() => key.push_str(part),
            Err(_) => key.push_str(&format!(".{part}")),
        }
    }
    key
}

/// A value of the wrong type, as people call it.
fn named(actual: &Actual) -> String {
    match actual {
        Actual::Unsigned(number) => format!("the number {number}"),
        Actual::Signed(number) => format!("the number {number}"),
        Actual::Str(text) => format!("the text {text:?}"),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// What is wanted instead; serde calls tables after our own types.
fn asked(wanted: &str) -> &str {
    match wanted {
        "a sequence" => "a list, such as [\"…\"]",
        "a string" => "a text, in quotes",
        _ if wanted.starts_with("struct ") => "a table, with settings of its own",
        _ => wanted,
    }
}

/// What may have been meant.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    let score = |known: &str| (strsim::normalized_damerau_levenshtein(name, known) * 1000.0) as u64;
    let near = known.iter().max_by_key(|known| score(known)).filter(|near| score(near) >= 600);
    let all = known.join(", ");
    match near {
        Some(near) => format!("did you mean `{near}`? There are: {all}"),
        None => format!("there are: {all}"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn wrong(origin: &Origin, line: Option<usize>, what: String, next: String) -> ConfigError {
    let place = line.map_or_else(|| origin.to_string(), |line| format!("{origin}, line {line}"));
    ConfigError::Wrong { place, what: blank(&what).into_owned(), next: blank(&next).into_owned() }
}

fn failed(path: &Path, source: io::Error, next: &'static str) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source, next }
}

/// A file's text, or nothing when there is no such file.
fn read(path: &Path, sources: &Sources) -> Result<Option<String>, ConfigError> {
    // A pipe without a writer must not hold us up.
    let file = match File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, error, "the service must be able to read it")),
    };
    guard(&file, path, sources)?;
    let regular = file.metadata().is_ok_and(|about| about.is_file() && about.len() <= MOST_BYTES);
    if !regular {
        let error = io::Error::other("it is no file, or larger than 1 MiB");
        return Err(failed(path, error, "write the settings into a regular file"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| failed(path, error, "it must be a text in UTF-8"))?;
    Ok(Some(text))
}

/// The drop-ins in the order of their names, like other programs' without those that are hidden.
fn drop_in_files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = drop_ins(&sources.file);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&folder, error, "the service must be able to list it")),
    };
    let opened =
        File::open(&folder).map_err(|error| failed(&folder, error, "the service must be able to list it"))?;
    guard(&opened, &folder, sources)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path =
            entry.map_err(|error| failed(&folder, error, "the service must be able to list it"))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whoever can write in the main file's folder can put another in its place.
fn guard_folder(sources: &Sources) -> Result<(), ConfigError> {
    let folder = match sources.file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match File::open(folder) {
        Ok(opened) => guard(&opened, folder, sources),
        // So there is no file either, or we are told why when it is opened.
        Err(_) => Ok(()),
    }
}

fn guard(file: &File, path: &Path, sources: &Sources) -> Result<(), ConfigError> {
    let about = file.metadata().map_err(|error| failed(path, error, "try again"))?;
    let mode = about.mode() & 0o7777;
    // In a sticky folder such as /tmp nobody can replace a file of root's, and what is not root's is refused by itself.
    let shut = mode & 0o022 == 0 || about.is_dir() && mode & 0o1000 != 0;
    match !sources.guarded || about.uid() == 0 && shut {
        true => Ok(()),
        false => Err(ConfigError::Unguarded { path: path.to_owned(), uid: about.uid(), mode }),
    }
}
