//! Programs looked for in vain: a shell asks for `DIRECTORY/NAME` in each directory of PATH before it tries to execute one. Knows file
//! calls; nothing of what a missing program means.

use std::collections::BTreeMap;

use super::{files, mark::Mark};
use crate::event::{Body, Event, Pid};

/// Processes whose last search is kept.
const MAX_PROCESSES: usize = 10_000;
/// Directories of one search that are kept.
const MAX_DIRECTORIES: usize = 64;

/// A name that was looked for in one directory after the other and not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// Where it was looked for, in order.
    pub directories: Vec<String>,
    /// The last try.
    pub last: Mark,
}

/// The last search of every process.
#[derive(Clone, Debug, Default)]
pub struct Searches {
    by_pid: BTreeMap<Pid, Lookup>,
}

impl Searches {
    /// What a process looked for last, and did not find.
    pub fn of(&self, pid: Pid) -> Option<&Lookup> {
        self.by_pid.get(&pid)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        match &event.body {
            Body::Stat(call) | Body::Access(call) => {
                let Some((directory, name)) = files::path_of(call).and_then(|path| path.rsplit_once('/'))
                else {
                    return;
                };
                let same = self.by_pid.get(&event.pid).is_some_and(|lookup| lookup.name == name);
                match (same, files::is_missing(call.errno)) {
                    (true, true) => self.again(event.pid, directory, Mark::new(id, event)),
                    (false, true) => self.begin(event.pid, directory, name, Mark::new(id, event)),
                    // Found after all.
                    (true, false) => drop(self.by_pid.remove(&event.pid)),
                    (false, false) => {}
                }
            }
            Body::Exec(_) => drop(self.by_pid.remove(&event.pid)),
            Body::Fork { child } => drop(self.by_pid.remove(child)),
            _ => {}
        }
    }

    fn again(&mut self, pid: Pid, directory: &str, last: Mark) {
        let Some(lookup) = self.by_pid.get_mut(&pid) else { return };
        lookup.last = last;
        if lookup.directories.len() < MAX_DIRECTORIES
            && !lookup.directories.iter().any(|known| known == directory)
        {
            lookup.directories.push(directory.to_owned());
        }
    }

    fn begin(&mut self, pid: Pid, directory: &str, name: &str, last: Mark) {
        if self.by_pid.len() < MAX_PROCESSES || self.by_pid.contains_key(&pid) {
            let (name, directories) = (name.to_owned(), vec![directory.to_owned()]);
            self.by_pid.insert(pid, Lookup { name, directories, last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{WORKER, at, file};

    fn stat(path: &str, result: Result<i64, i32>) -> Event {
        at(1, WORKER, WORKER, Body::Stat(file("newfstatat", path, result)))
    }

    #[test]
    fn a_search_along_path_is_one_lookup_and_ends_when_it_is_found() {
        let mut searches = Searches::default();
        searches.add(1, &stat("/etc/ld.so.cache", Ok(0)));
        searches.add(2, &stat("/usr/bin/pyhton", Err(2)));
        searches.add(3, &stat("/bin/pyhton", Err(2)));
        searches.add(4, &stat("/bin/pyhton", Err(2)));
        let lookup = searches.of(Pid(WORKER)).unwrap();
        assert_eq!((lookup.name.as_str(), lookup.directories.len(), lookup.last.event), ("pyhton", 2, 4));
        searches.add(5, &stat("/sbin/pyhton", Ok(0)));
        assert_eq!(searches.of(Pid(WORKER)), None);
    }
}
