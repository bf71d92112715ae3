//! `observer export --format parquet`: into a folder here, or into an object store. Knows where the files go, and nothing of what is in them.

use std::path::Path;

#[cfg(feature = "parquet")]
pub(super) use built::export;

use crate::session::Session;

/// Says how to get an observer that can.
#[cfg(not(feature = "parquet"))]
pub(super) fn export(_: &Session, _: Option<&Path>) -> anyhow::Result<()> {
    anyhow::bail!(
        "cannot export as parquet: this observer was built without it; take a release, or build it with: cargo install --path observer --features parquet"
    )
}

#[cfg(feature = "parquet")]
mod built {
    use std::path::PathBuf;

    use anyhow::{Context as _, bail};

    use super::{Path, Session};
    use crate::{
        cli::{
            export::{folder::Local, store::Store},
            progress,
        },
        export::{
            Progress,
            parquet::{self, Folder},
        },
        session::Invoker,
    };

    /// How often an event is read, about: as itself, in a table of its kind, and for the verdict.
    const PASSES: u64 = 3;

    /// Where a folder of files is to be.
    #[derive(Debug, PartialEq, Eq)]
    enum Place {
        Here(PathBuf),
        Bucket { bucket: String, prefix: String },
    }

    /// Writes a session's tables.
    ///
    /// # Errors
    /// When no place is named or it cannot be used, when the session cannot be read, or when the tables cannot be written.
    pub(in crate::cli::export) fn export(session: &Session, output: Option<&Path>) -> anyhow::Result<()> {
        let Some(output) = output else {
            bail!(
                "cannot write parquet to standard output: it is a folder of files; name one with -o, or an object store: -o s3://BUCKET/PREFIX"
            );
        };
        match place(output)? {
            Place::Here(path) => {
                let mut folder = Local::open(path, Invoker::current())?;
                written(session, &mut folder).and_then(|()| folder.finish())
            }
            Place::Bucket { bucket, prefix } => {
                let mut store = Store::open(bucket, prefix)?;
                written(session, &mut store).and_then(|()| store.finish())
            }
        }
        .with_context(|| format!("cannot export to {}", output.display()))
    }

    fn written(session: &Session, folder: &mut impl Folder) -> anyhow::Result<()> {
        let progress = Progress::default();
        let total = PASSES * session.newest_id();
        progress::while_counted("exporting", total, progress.counter(), || {
            parquet::write(session, folder, &progress)
        })?;
        Ok(())
    }

    /// Where an output is: a path, or a URL.
    fn place(output: &Path) -> anyhow::Result<Place> {
        let Some((scheme, rest)) = output.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(Place::Here(output.to_owned()));
        };
        match scheme {
            "file" if rest.starts_with('/') => {
                let path = object_store::path::Path::from_url_path(rest)
                    .with_context(|| format!("cannot export to {}", output.display()))?;
                Ok(Place::Here(Path::new("/").join(path.as_ref())))
            }
            "file" => bail!("cannot export to {}: write file:///PATH, or the path itself", output.display()),
            "s3" | "s3a" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    bail!(
                        "cannot export to {}: it names no bucket; write s3://BUCKET/PREFIX",
                        output.display()
                    );
                }
                if bucket.contains(['@', ':', '?']) {
                    // It may hold a secret: it is not repeated.
                    bail!(
                        "cannot export to this s3:// URL: its bucket is no name; credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, an endpoint in AWS_ENDPOINT_URL"
                    );
                }
                Ok(Place::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            _ => bail!(
                "cannot export to {scheme}://: only file:// and s3:// are known; export into a folder and copy it there"
            ),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_place_is_a_path_or_a_url() {
            let here = |text: &str| place(Path::new(text)).unwrap();
            assert_eq!(here("fleet"), Place::Here("fleet".into()));
            assert_eq!(here("file:///srv/a%20b"), Place::Here("/srv/a b".into()));
            let bucket = |prefix: &str| Place::Bucket { bucket: "b".to_owned(), prefix: prefix.to_owned() };
            assert_eq!((here("s3://b"), here("s3a://b/x/y/")), (bucket(""), bucket("x/y")));
            for (text, word) in [
                ("s3:///x", "names no bucket"),
                ("s3://key:s3cret@b/x", "credentials belong in"),
                ("gs://b/x", "only file:// and s3://"),
                ("file://srv", "file:///PATH"),
            ] {
                let error = place(Path::new(text)).unwrap_err().to_string();
                assert!(error.contains(word) && !error.contains("s3cret"), "{error}");
            }
        }
    }
}
