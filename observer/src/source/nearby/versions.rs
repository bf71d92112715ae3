//! Which distributions the loaded modules of a directory of packages belong to, and their versions: from `dist-info` and `egg-info`
//! (PEP 376, PEP 427). Reads file names, `top_level.txt`, `direct_url.json` (PEP 610) and the beginning of `RECORD`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use crate::{
    event::{Distribution, Distributions},
    python,
};

/// Entries of the directory, and bytes of one file, that are read.
const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: u64 = 256 << 10;

/// `own` are the directories that own modules were loaded from.
pub(super) fn look(site: &str, loaded: &BTreeSet<String>, own: &BTreeSet<String>) -> Distributions {
    let mut unclaimed: Vec<String> = loaded.iter().cloned().collect();
    let mut found = Vec::new();
    let mut seen = 0;
    let entries = fs::read_dir(site);
    let readable = entries.is_ok();
    let mut installed = BTreeMap::new();
    for entry in entries.into_iter().flatten().flatten().take(MAX_ENTRIES) {
        seen += 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info")) else {
            continue;
        };
        if let Some((name, version)) = stem.split_once('-') {
            // An egg's directory goes on with the Python version.
            let version = version.split("-py").next().unwrap_or(version);
            installed.insert(entry.path(), (name.to_owned(), version.to_owned()));
        }
    }
    for (path, (name, version)) in installed {
        let modules: Vec<String> =
            top_level(&path).into_iter().filter(|module| loaded.contains(module)).collect();
        let editable =
            editable(&path).filter(|folder| own.iter().any(|one| Path::new(one).starts_with(folder)));
        if !modules.is_empty() || editable.is_some() {
            unclaimed.retain(|module| !modules.contains(module));
            found.push(Distribution { name, version, modules, editable });
        }
    }
    Distributions { site: site.to_owned(), found, unclaimed, complete: readable && seen < MAX_ENTRIES }
}

/// The folder a distribution is edited in.
fn editable(path: &Path) -> Option<String> {
    let told: serde_json::Value = serde_json::from_str(&read(&path.join("direct_url.json"))).ok()?;
    let is_editable = told.pointer("/dir_info/editable") == Some(&serde_json::Value::Bool(true));
    let url = told.get("url")?.as_str().filter(|_| is_editable)?;
    url.strip_prefix("file://").map(str::to_owned)
}

/// The top-level modules a distribution brings.
fn top_level(path: &Path) -> BTreeSet<String> {
    let text = read(&path.join("top_level.txt"));
    if !text.trim().is_empty() {
        // A namespace is told with its part (`google/cloud`).
        return text.lines().map(|line| line.split('/').next().unwrap_or(line).trim().to_owned()).collect();
    }
    let record = read(&path.join("RECORD"));
    let files = record.lines().filter_map(|line| line.split(',').next());
    files
        .filter(|file| !file.starts_with('.') && !file.contains(".dist-info/"))
        .filter_map(|file| match file.split_once('/') {
            Some((top, _)) => Some(top.to_owned()),
            None => match python::owner(&format!("/site-packages/{file}")) {
                python::Owner::Package(top) => Some(top),
                _ => None,
            },
        })
        .collect()
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).map(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_module_leads_to_its_distribution() {
        let site = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = site.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("dramatiq-2.2.1.dist-info/RECORD", "dramatiq/__init__.py,sha256=x,7\n../../../bin/dramatiq,,\n");
        put("PyYAML-6.0.dist-info/top_level.txt", "_yaml\nyaml\n");
        put("six-1.16.0.dist-info/RECORD", "six.py,sha256=x,7\n");
        put("unused-1.dist-info/RECORD", "unused/__init__.py,,\n");
        put(
            "mine-0.1.dist-info/direct_url.json",
            r#"{"dir_info": {"editable": true}, "url": "file:///home/me/mine"}"#,
        );
        let loaded = ["dramatiq", "yaml", "six", "mine"].map(str::to_owned).into();
        let told = look(site.path().to_str().unwrap(), &loaded, &["/home/me/mine/src".to_owned()].into());
        let found: Vec<_> = told.found.iter().map(|one| (one.name.as_str(), one.version.as_str())).collect();
        assert_eq!(found, [("PyYAML", "6.0"), ("dramatiq", "2.2.1"), ("mine", "0.1"), ("six", "1.16.0")]);
        assert_eq!(told.found[2].editable.as_deref(), Some("/home/me/mine"));
        assert_eq!(told.unclaimed, ["mine"]);
        assert!(told.complete);
    }
}
