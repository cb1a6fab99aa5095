//! What `serve` and `worker` are told of requests to receivers.

use crate::worker::{Network, PushAccess};
use crate::{Error, ErrorKind, Result};

/// Where requests may go, and where callbacks come in.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Networks besides the public internet that URLs may lead to, such as 127.0.0.1 or 10.0.0.0/8; repeatable
    #[arg(long, env = "DIVVY_ALLOW_HTTP", value_name = "NETWORK", value_delimiter = ',')]
    allow_http: Vec<String>,
    /// The address under which receivers reach the HTTP API, for callbacks [default: they are told the path alone]
    #[arg(long, env = "DIVVY_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
}

impl PushArgs {
    /// # Errors
    /// Config when a network is none.
    pub(super) fn access(&self) -> Result<PushAccess> {
        let named = self.allow_http.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        let allowed = named
            .map(|text| {
                text.parse::<Network>()
                    .map_err(|why| Error::new(ErrorKind::Config, format!("--allow-http: {why}")))
            })
            .collect::<Result<_>>()?;
        Ok(PushAccess { allowed, public_url: self.public_url.clone().filter(|url| !url.is_empty()) })
    }
}
