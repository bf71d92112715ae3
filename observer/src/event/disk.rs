//! What was found on disk, after the fact, of modules. Part of the domain event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a module is, that a process could not import or may have mistaken for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleSearch {
    /// Its name, as given: `app.tasks`; a path where a path was given.
    pub name: String,
    /// Where it was found near the working directory and the entries of the module path.
    pub near: Vec<Near>,
    /// Where the installed module of its top-level name is, when there is one.
    pub installed: Option<String>,
    /// Entries of `PYTHONPATH` and `--path` that are no directories.
    pub absent: Vec<String>,
    /// Directory entries that were looked at.
    pub entries: u64,
    /// Whether all that was to be searched was; the search is bounded.
    pub complete: bool,
}

/// A module that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Near {
    /// The directory that would have to be on the module path.
    pub root: String,
    /// The module's file, or its package's.
    pub path: String,
}

/// What the source of a module that was imported says of actors and brokers: line numbers and names of modules, none of its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceLook {
    /// The file.
    pub path: String,
    /// Lines that declare an actor.
    pub actors: Vec<u32>,
    /// Those of them that name a broker.
    pub with_broker: Vec<u32>,
    /// Lines that set the broker.
    pub set_broker: Vec<u32>,
    /// Those of them that are inside a function.
    pub set_broker_later: Vec<u32>,
    /// What it imports: line, and module.
    pub imports: Vec<(u32, String)>,
    /// Whether all of it was read.
    pub complete: bool,
}

/// What a text that a program read was: a file of configuration, or a module's source. Its text is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileLook {
    /// The file, as the call resolved it that opened it first; for a cached module its source.
    pub path: String,
    /// Its length in bytes when it was looked at.
    pub len_bytes: u64,
    /// A keyed hash of its content: the same for the same content within one state directory. Absent for installed modules (their
    /// distribution's version says it) and for empty files.
    pub digest: Option<String>,
    /// Variables of the program's environment that it names in quotes, and in which line first.
    pub variables: Vec<(u32, String)>,
    /// Variables that one of its words stands for otherwise: `queue_name` for `QUEUE_NAME` or `SHOP_QUEUE_NAME`, `"SHOP_"` for all that
    /// begin so.
    pub alike: Vec<(u32, String)>,
}
