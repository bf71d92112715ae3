//! What CPython imports, and with which interpreter. Part of the domain event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Body, Known};

/// CPython begins to find and load a module that is not loaded yet: what `-X importtime` measures (`import_find_and_load`,
/// Python/import.c). `importlib.import_module` is no such event: it is Python code, and what it loads shows in the files it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Import {
    /// The absolute name.
    pub module: Known<String>,
    /// The file whose code imports it (`co_filename`); absent for the interpreter's own start.
    pub importer: Known<String>,
    /// The function of that file (`co_name`): `<module>` for its top level.
    pub function: Known<String>,
    /// How many packages up from the importer's own the statement's name starts: 0 for `import x`, 1 for `from . import x`; `None`: not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// How many imports of the same thread it is inside of.
    pub depth: u32,
}

/// An import statement of a module that is loaded already, told once for each place (process, importer, function and module).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CachedImport {
    /// The name as it was written: relative when `level` is not 0, and empty for `from . import x`.
    pub module: Known<String>,
    /// See [`Import::level`].
    pub level: u32,
    /// See [`Import::importer`]; also absent in a thread that has loaded no module yet.
    pub importer: Known<String>,
    /// See [`Import::function`].
    pub function: Known<String>,
    /// See [`Import::depth`].
    pub depth: u32,
}

/// The import of a module that was not loaded has come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// The absolute name.
    pub module: Known<String>,
    /// When it began, on the same clock as `at_ns`.
    pub since_ns: u64,
    /// Whether there is a module; otherwise an exception was raised.
    pub loaded: bool,
    /// The type of that exception (`tp_name`): `ModuleNotFoundError`; `None`: there was none, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// How many imports of the same thread it was inside of.
    pub depth: u32,
}

/// How much is seen of a process's imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImportSight {
    /// All of modules that were not loaded yet.
    Seen,
    /// The same, but not from the beginning: its first imports are inferred from the files it opened.
    Late,
    /// None: all are inferred from the files it opened.
    Inferred,
}

/// A process runs this interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interpreter {
    /// The executable, links followed.
    pub executable: String,
    /// The file that holds its code: itself, or a library.
    pub holder: Option<String>,
    /// `3.12.1`; without the last part where only the name of the file tells.
    pub version: Option<String>,
    /// `sys.prefix`: the virtual environment, or the installation.
    pub prefix: Option<String>,
    /// `sys.base_prefix`: the installation.
    pub base_prefix: Option<String>,
    /// How much is seen of its imports.
    pub imports: ImportSight,
    /// Why not all.
    pub why: Option<String>,
}

/// What is installed in a directory of packages, as far as its modules were loaded by a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Distributions {
    /// The directory.
    pub site: String,
    /// What was found.
    pub found: Vec<Distribution>,
    /// Loaded top-level modules that belong to no distribution there.
    pub unclaimed: Vec<String>,
    /// Whether all that was to be looked at was.
    pub complete: bool,
}

/// An installed distribution, from its `dist-info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Its name as the directory spells it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its top-level modules that were loaded.
    pub modules: Vec<String>,
    /// The folder it is edited in, when it is installed so (PEP 610): its modules come from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub editable: Option<String>,
}

/// The directories of a process's module path, asked on disk after the fact for other modules by the names of those it imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleShadows {
    /// Modules that hide others.
    pub hiding: Vec<Hiding>,
    /// How many imported modules were asked for.
    pub asked: u64,
    /// Whether all that was to be looked at was.
    pub complete: bool,
}

/// A module, and what would have been imported in its place had it not been there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hiding {
    /// Its name.
    pub name: String,
    /// The directory of the module path it was found in.
    pub entry: String,
    /// Files of other modules of that name, in the directories that come after, in order.
    pub hidden: Vec<String>,
}

/// What stands in `sys.modules` of a process that ends, read from its memory. Python puts it away itself when it ends in order: this tells
/// of those that are ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedModules {
    /// The names, in the order in which they were put there.
    pub names: Vec<String>,
    /// Whether these are all.
    pub complete: bool,
}

impl Body {
    /// Every text of an event of this module that may be, or hold, a path; of other events none.
    pub fn python_paths(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Import(import) => {
                let Import { module, importer, function, .. } = &mut **import;
                [module, importer, function].into_iter().filter_map(Known::get_mut).for_each(each);
            }
            Self::CachedImport(import) => {
                let CachedImport { module, importer, function, .. } = &mut **import;
                [module, importer, function].into_iter().filter_map(Known::get_mut).for_each(each);
            }
            Self::Imported(import) => import.module.get_mut().into_iter().for_each(each),
            Self::Interpreter(interpreter) => {
                each(&mut interpreter.executable);
                let Interpreter { holder, why, prefix, base_prefix, .. } = &mut **interpreter;
                [holder, why, prefix, base_prefix].into_iter().flatten().for_each(each);
            }
            Self::Distributions(distributions) => {
                each(&mut distributions.site);
                distributions.found.iter_mut().filter_map(|one| one.editable.as_mut()).for_each(each);
            }
            Self::ModuleShadows(shadows) => {
                for hiding in &mut shadows.hiding {
                    each(&mut hiding.entry);
                    hiding.hidden.iter_mut().for_each(&mut *each);
                }
            }
            _ => {}
        }
    }
}
