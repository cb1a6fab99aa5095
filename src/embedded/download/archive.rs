//! An archive of Postgres' programs: where it lies, what it must hash to, and how it is unpacked.

use crate::error::deepest;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// The largest archive that is taken; the real ones are about 30 MB.
const ARCHIVE_BYTES_MAX: usize = 256 << 20;
/// How often a file is asked for, unless the answer is that it is not there.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The archive's address: `url` itself, or as the folder `url` has it.
pub(super) fn address(url: &str, version: &str) -> String {
    if url.ends_with(".tar.gz") {
        return url.to_owned();
    }
    let base = url.trim_end_matches('/');
    format!("{base}/{version}/postgresql-{version}-{}.tar.gz", target_tuple::TARGET)
}

/// The archive at `address`, which fits the checksum beside it.
pub(super) async fn get(address: &str) -> Result<Vec<u8>, String> {
    // rustls is built without a default provider; whoever installed one before us is right too.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client =
        reqwest::Client::builder().connect_timeout(CONNECT_MAX).build().map_err(|cause| deepest(&cause))?;
    let beside = format!("{address}.sha256");
    let said = file(&client, &beside).await?;
    let said = String::from_utf8_lossy(&said).to_lowercase();
    let said = said.split_whitespace().next().unwrap_or_default();
    let bytes = file(&client, address).await?;
    let found = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if found != said {
        return Err(format!("{address}: its SHA-256 is {found}, but {beside} says {said}"));
    }
    Ok(bytes)
}

async fn file(client: &reqwest::Client, address: &str) -> Result<Vec<u8>, String> {
    let mut tries = 1;
    loop {
        let (why, final_word) = match once(client, address).await {
            Ok(bytes) if bytes.len() <= ARCHIVE_BYTES_MAX => return Ok(bytes),
            Ok(_) => (format!("larger than {ARCHIVE_BYTES_MAX} bytes"), true),
            Err(cause) => (deepest(&cause), cause.status().is_some_and(|status| status.is_client_error())),
        };
        if final_word || tries == TRIES {
            return Err(format!("{address}: {why}"));
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The file, or so much of it as shows that it is too large.
async fn once(client: &reqwest::Client, address: &str) -> reqwest::Result<Vec<u8>> {
    let mut response = client.get(address).send().await?.error_for_status()?;
    let mut bytes = Vec::new();
    while bytes.len() <= ARCHIVE_BYTES_MAX {
        let Some(chunk) = response.chunk().await? else { break };
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Unpacks into `folder` what lies in the archive's one folder.
pub(super) fn unpack(archive: &[u8], folder: &Path) -> io::Result<()> {
    // Renamed when it is complete: a kill never leaves half of it under the name that is looked for.
    let unfinished = folder.with_file_name("download.unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    tar::Archive::new(flate2::read::GzDecoder::new(archive)).unpack(&unfinished)?;
    let top =
        fs::read_dir(&unfinished)?.next().ok_or_else(|| io::Error::other("the archive is empty"))??.path();
    super::open_to_all(&top)?;
    fs::rename(top, folder)?;
    fs::remove_dir_all(unfinished)
}
