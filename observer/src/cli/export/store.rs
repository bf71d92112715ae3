//! A folder of files in an object store: nothing of it is seen before all is there. Knows S3 and its environment, and nothing of what is in
//! the files.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use object_store::{
    Error, MultipartUpload, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use tokio::runtime::{Builder, Runtime};

use crate::export::parquet::Folder;

/// Bytes sent at once: S3 takes 10,000 such parts of an object, and none under 5 MiB but the last.
const PART_BYTES: usize = 8 << 20;
/// Any of these says who we are; without them the machine itself is asked.
const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const ENDPOINTS: [&str; 4] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT"];
const NO_CREDENTIALS: &str = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (from ~/.aws, which is not read: eval \"$(aws configure export-credentials --format env)\")";

/// A place in an object store, and the files that are being sent there.
#[derive(Debug)]
pub(super) struct Store {
    runtime: Arc<Runtime>,
    store: AmazonS3,
    bucket: String,
    prefix: String,
    /// Sent, and not yet seen.
    done: Vec<Upload>,
}

impl Store {
    /// Opens a place in a bucket, by what the environment (`AWS_*`) says of where it is and who we are.
    pub(super) fn open(bucket: String, prefix: String) -> anyhow::Result<Self> {
        let set = |names: &[&str]| {
            names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        };
        if !set(&ENDPOINTS) && !set(&REGIONS) {
            bail!(
                "cannot export to s3://{bucket}: no region; set AWS_REGION to the bucket's, or AWS_ENDPOINT_URL for a store that is not Amazon's"
            );
        }
        if set(&["AWS_ACCESS_KEY_ID"]) && !set(&["AWS_SECRET_ACCESS_KEY"]) {
            bail!(
                "cannot export to s3://{bucket}: AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"
            );
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&bucket);
        if !set(&CREDENTIALS) {
            // Where no machine answers, that is soon to be said.
            let retry_timeout = Duration::from_secs(10);
            builder =
                builder.with_retry(RetryConfig { max_retries: 1, retry_timeout, ..RetryConfig::default() });
        }
        let store = builder.build().with_context(|| format!("cannot export to s3://{bucket}"))?;
        let runtime =
            Builder::new_current_thread().enable_all().build().context("cannot start the uploader")?;
        Ok(Self { runtime: Arc::new(runtime), store, bucket, prefix, done: Vec::new() })
    }

    /// All files are sent: each is shown, in the order they were written.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let all = self.done.len();
        for (shown, mut file) in self.done.drain(..).enumerate() {
            let completed = file.runtime.block_on(file.upload.complete());
            file.is_over = completed.is_ok();
            completed.map_err(|error| explained(&file.url, error)).with_context(|| {
                format!("{shown} of {all} tables are shown already; export again to complete them")
            })?;
        }
        Ok(())
    }
}

impl Folder for Store {
    type File = Upload;

    fn create(&mut self, path: &str) -> io::Result<Upload> {
        let key = format!("{}/{path}", self.prefix);
        let url = format!("s3://{}/{}", self.bucket, key.trim_start_matches('/'));
        let key = Path::parse(&key).map_err(io::Error::other)?;
        let upload = self.runtime.block_on(self.store.put_multipart(&key));
        let upload = upload.map_err(|error| explained(&url, error))?;
        let runtime = Arc::clone(&self.runtime);
        Ok(Upload { runtime, upload, url, buffer: Vec::new(), is_over: false })
    }

    fn close(&mut self, mut file: Upload) -> io::Result<()> {
        file.send()?;
        self.done.push(file);
        Ok(())
    }
}

/// A file being sent. Dropped before it is shown, what was sent of it is removed.
#[derive(Debug)]
pub(super) struct Upload {
    runtime: Arc<Runtime>,
    upload: Box<dyn MultipartUpload>,
    url: String,
    /// Not yet sent.
    buffer: Vec<u8>,
    is_over: bool,
}

impl Upload {
    fn send(&mut self) -> io::Result<()> {
        let part = self.upload.put_part(std::mem::take(&mut self.buffer).into());
        self.runtime.block_on(part).map_err(|error| explained(&self.url, error))
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Some stores want all parts but the last of one size.
        let taken = bytes.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PART_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over
            && let Err(error) = self.runtime.block_on(self.upload.abort())
        {
            tracing::warn!("cannot remove what was sent of {}: {error}", self.url);
        }
    }
}

/// What the store answered, and what to do next.
fn explained(url: &str, error: Error) -> io::Error {
    let text = error.to_string();
    let has = |word: &str| text.contains(word);
    let next = match &error {
        Error::NotFound { .. } => "there is no such bucket: make it, or correct the URL",
        Error::Unauthenticated { .. } => {
            "these credentials are not accepted: correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are for a while, AWS_SESSION_TOKEN"
        }
        Error::PermissionDenied { .. } => {
            "these credentials may not, or are wrong: it takes s3:PutObject and s3:AbortMultipartUpload on this bucket"
        }
        _ if has("169.254.") || has("latest/api/token") || has("security-credentials") => NO_CREDENTIALS,
        // That is all that reqwest says of a URL it may not use.
        _ if has("builder error") => "an endpoint without TLS is used only with AWS_ALLOW_HTTP=true",
        _ if has("redirect") || has("region") => "the bucket is in another region: correct AWS_REGION",
        _ => "is the endpoint right (AWS_ENDPOINT_URL, AWS_REGION), and reachable?",
    };
    io::Error::other(format!("{url}: {text}; {next}"))
}
