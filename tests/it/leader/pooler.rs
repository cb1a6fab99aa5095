//! A transaction pooler of one server connection: what PgBouncer does, in as few lines as show why nobody may
//! lead through it.

use super::{DEADLINE, Standing, candidate};
use crate::support::db::TestDb;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::io::Result;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Mutex;

/// The one connection to the server, and what it said when it was opened.
struct Backend {
    stream: Mutex<UnixStream>,
    greeting: Vec<u8>,
}

/// Reads one message: its type and all of its bytes.
async fn message(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut all = head.to_vec();
    all.resize(length + 1, 0);
    stream.read_exact(&mut all[5..]).await?;
    Ok((head[0], all))
}

/// Copies what the server says up to ReadyForQuery.
async fn answer(server: &mut UnixStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let (kind, bytes) = message(server).await?;
        all.extend(bytes);
        if kind == b'Z' {
            return Ok(all);
        }
    }
}

/// The message that opens a session.
async fn startup(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut all = length.to_be_bytes().to_vec();
    all.resize(length as usize, 0);
    stream.read_exact(&mut all[4..]).await?;
    Ok(all)
}

/// Each client has the server's connection for one query at a time.
async fn client(mut near: TcpStream, backend: Arc<Backend>) -> Result<()> {
    startup(&mut near).await?;
    near.write_all(&backend.greeting).await?;
    let mut sent = Vec::new();
    loop {
        let (kind, bytes) = message(&mut near).await?;
        sent.extend(bytes);
        match kind {
            b'X' => return Ok(()),
            b'Q' | b'S' => {
                let mut server = backend.stream.lock().await;
                server.write_all(&sent).await?;
                near.write_all(&answer(&mut server).await?).await?;
                sent.clear();
            }
            _ => (),
        }
    }
}

/// The pooler's address. The server's connection is opened as the first client opens its own.
async fn pooler(db: &TestDb) -> PgConnectOptions {
    let socket = db.options().get_socket().expect("the tests' server has a socket");
    let socket = socket.join(format!(".s.PGSQL.{}", db.options().get_port()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (user, database) = (db.options().get_username().to_owned(), db.name().to_owned());
    let (role, name) = (user.clone(), database.clone());
    tokio::spawn(async move {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let body = format!("\0\x03\0\0user\0{role}\0database\0{name}\0\0");
        stream.write_u32(u32::try_from(body.len()).unwrap() + 4).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let greeting = answer(&mut stream).await.unwrap();
        let backend = Arc::new(Backend { stream: Mutex::new(stream), greeting });
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(client(near, backend.clone()));
        }
    });
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    options.username(&user).database(&database).ssl_mode(PgSslMode::Disable)
}

#[tokio::test]
async fn nobody_leads_through_a_transaction_pooler() {
    let db = TestDb::new().await;
    let pooled = pooler(&db).await;
    assert!(divvy::store::lead::is_pooled(&pooled).await.unwrap());
    assert!(!divvy::store::lead::is_pooled(db.options()).await.unwrap());
    let mut candidate = candidate(&pooled, "pooled");
    let unfit = candidate.standing.wait_for(|standing| matches!(standing, Standing::Unfit { .. }));
    let Standing::Unfit { reason } = tokio::time::timeout(DEADLINE, unfit).await.unwrap().unwrap().clone()
    else {
        unreachable!()
    };
    assert!(reason.contains("transaction pooler") && reason.contains("DATABASE_DIRECT_URL"), "{reason}");
    assert_eq!(candidate.ends().await, 0);
    assert_eq!(super::terms(db.pool()).await, Vec::<String>::new());
}
