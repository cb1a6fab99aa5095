//! A body that is written as it comes; whoever makes it hears when the reader has gone.

use axum::body::{Body, Bytes};
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// How much may wait for a slow reader.
const PIECES_MAX: usize = 16;

struct Flow(mpsc::Receiver<Bytes>);

impl http_body::Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A body and the end that fills it.
pub(super) fn flow() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (sender, Body::new(Flow(receiver)))
}
