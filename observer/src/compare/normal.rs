//! What is the same in two runs although it is written differently: ids, times, ports, temporary names, the folder a run was made in.
//! Knows texts only.

/// Makes paths of two runs comparable: what stands under a run's own folders is written relative to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Normal {
    /// Folder and what stands for it, the longest first.
    folders: Vec<(String, &'static str)>,
}

impl Normal {
    /// `site` is the folder of installed packages, `stdlib` that of the standard library, `prefix` the virtual environment's, `cwd` the working directory.
    pub(super) fn new(folders: impl IntoIterator<Item = (Option<String>, &'static str)>) -> Self {
        let mut folders: Vec<(String, &'static str)> = folders
            .into_iter()
            .filter_map(|(folder, name)| Some((folder?.trim_end_matches('/').to_owned(), name)))
            .filter(|(folder, _)| !folder.is_empty())
            .collect();
        folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
        Self { folders }
    }

    /// The path that compares as this one; `None` when it lies in none of the run's own folders.
    pub(super) fn whole(&self, normal: &str) -> Option<String> {
        self.folders.iter().find_map(|(folder, name)| {
            let rest = normal.strip_prefix(name)?;
            Some(format!("{folder}{rest}"))
        })
    }

    /// A path as it compares.
    pub(super) fn path(&self, path: &str) -> String {
        for (folder, name) in &self.folders {
            if let Some(rest) = path.strip_prefix(folder.as_str())
                && (rest.is_empty() || rest.starts_with('/'))
            {
                return format!("{name}{rest}");
            }
        }
        let parts: Vec<&str> = path.split('/').collect();
        let mut normal: Vec<String> = Vec::with_capacity(parts.len());
        for part in parts {
            let under = normal.last().map(String::as_str);
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            normal.push(match under {
                Some("proc" | "task" | "fd") if is_number => "N".to_owned(),
                Some("tmp") => "TMP".to_owned(),
                _ => part.to_owned(),
            });
        }
        normal.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_folders_ids_and_temporary_names_compare_equal() {
        let one = Normal::new([
            (Some("/home/a/app".to_owned()), "{cwd}"),
            (Some("/venv/one".to_owned()), "{prefix}"),
        ]);
        let two = Normal::new([
            (Some("/srv/app/".to_owned()), "{cwd}"),
            (Some("/venv/two".to_owned()), "{prefix}"),
        ]);
        for (a, b) in [
            ("/home/a/app/worker.py", "/srv/app/worker.py"),
            ("/venv/one/lib/x.py", "/venv/two/lib/x.py"),
            ("/proc/12/task/13/status", "/proc/99/task/4/status"),
            ("/tmp/pytest-12/x", "/tmp/abcd/x"),
        ] {
            assert_eq!(one.path(a), two.path(b));
        }
        assert_ne!(one.path("/home/a/app2/x"), two.path("/srv/app/x"));
    }
}
