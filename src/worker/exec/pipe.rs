//! Reading what a command says, never more than a bound at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A pipe that ends when it is empty and `closing` has fired, though somebody may still hold its other end.
pub(super) struct Closing<R> {
    pipe: R,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<R> Closing<R> {
    pub(super) fn new(pipe: R, closing: &CancellationToken) -> Self {
        Self { pipe, closing: Box::pin(closing.clone().cancelled_owned()) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Closing<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.pipe).poll_read(cx, into) {
            Poll::Pending => self.closing.as_mut().poll(cx).map(Ok),
            ready => ready,
        }
    }
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its end.
    Line,
    /// The first `max` bytes of a line that is longer.
    Part,
    /// Nothing more comes.
    End,
}

/// Reads the next line into `into`, at most `max` bytes of it.
pub(super) async fn piece(
    from: &mut (impl AsyncBufRead + Unpin),
    into: &mut Vec<u8>,
    max: usize,
) -> io::Result<Piece> {
    into.clear();
    loop {
        let there = from.fill_buf().await?;
        if there.is_empty() {
            return Ok(if into.is_empty() { Piece::End } else { Piece::Line });
        }
        let room = (max - into.len()).min(there.len());
        if let Some(end) = there[..room].iter().position(|byte| *byte == b'\n') {
            into.extend_from_slice(&there[..end]);
            from.consume(end + 1);
            return Ok(Piece::Line);
        }
        let is_more = there.len() > room;
        let ends_here = is_more && there[room] == b'\n';
        into.extend_from_slice(&there[..room]);
        from.consume(room + usize::from(ends_here));
        if is_more {
            return Ok(if ends_here { Piece::Line } else { Piece::Part });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_or_in_parts_of_the_bound() {
        let mut from = io::Cursor::new(b"ab\n\nabcd\nabcdef\nz".to_vec());
        let mut got = Vec::new();
        let mut line = Vec::new();
        loop {
            let piece = piece(&mut from, &mut line, 4).await.unwrap();
            let end = piece == Piece::End;
            got.push((piece, String::from_utf8(line.clone()).unwrap()));
            if end {
                break;
            }
        }
        let text = |piece, text: &str| (piece, text.to_owned());
        let wanted = [
            text(Piece::Line, "ab"),
            text(Piece::Line, ""),
            text(Piece::Line, "abcd"),
            text(Piece::Part, "abcd"),
            text(Piece::Line, "ef"),
            text(Piece::Line, "z"),
            text(Piece::End, ""),
        ];
        assert_eq!(got, wanted);
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_holds_ends_when_it_is_empty() {
        let (mut held, pipe) = tokio::io::duplex(100);
        let closing = CancellationToken::new();
        closing.cancel();
        tokio::io::AsyncWriteExt::write_all(&mut held, b"rest").await.unwrap();
        let mut said = String::new();
        let mut pipe = Closing::new(pipe, &closing);
        tokio::io::AsyncReadExt::read_to_string(&mut pipe, &mut said).await.unwrap();
        assert_eq!(said, "rest");
        drop(held);
    }

    #[tokio::test]
    async fn a_line_that_comes_in_small_reads_is_one_line() {
        let bytes: &[u8] = b"hello\nworld";
        let mut from = tokio::io::BufReader::with_capacity(2, bytes);
        let mut line = Vec::new();
        assert_eq!(piece(&mut from, &mut line, 100).await.unwrap(), Piece::Line);
        assert_eq!(line, b"hello");
        assert_eq!(piece(&mut from, &mut line, 3).await.unwrap(), Piece::Part);
        assert_eq!(line, b"wor");
    }
}
