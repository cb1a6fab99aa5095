//! A wire to the server that can be cut: bytes are held back, no connection ends, and nobody is told.

use super::db::TestDb;
use sqlx::postgres::PgConnectOptions;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay before the tests' server.
pub struct Wire {
    url: String,
    whole: watch::Sender<bool>,
    relay: JoinHandle<()>,
}

impl Wire {
    /// A wire to this database's server.
    pub async fn to(db: &TestDb) -> Self {
        let socket = db.options().get_socket().expect("the tests' server has a socket");
        let socket = socket.join(format!(".s.PGSQL.{}", db.options().get_port()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let user = db.options().get_username();
        let url = format!("postgres://{user}@127.0.0.1:{port}/{}?sslmode=disable", db.name());
        let whole = watch::Sender::new(true);
        let relay = tokio::spawn(relay(listener, socket, whole.subscribe()));
        Self { url, whole, relay }
    }

    /// For programs: `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// For what connects itself.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.url).expect("it is a URL")
    }

    /// Nothing passes any more, in neither direction.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// What was held back passes, and all that follows.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(listener: TcpListener, socket: PathBuf, whole: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        let (socket, whole) = (socket.clone(), whole.clone());
        tokio::spawn(async move {
            if let Ok(far) = UnixStream::connect(socket).await {
                carry(near, far, whole).await;
            }
        });
    }
}

/// Both ends are closed when one is.
async fn carry(near: TcpStream, far: UnixStream, whole: watch::Receiver<bool>) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pass(near_in, far_out, whole.clone()) => (),
        () = pass(far_in, near_out, whole) => (),
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut whole: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if whole.wait_for(|whole| *whole).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // An end is news, too.
    whole.wait_for(|whole| *whole).await.ok();
}
