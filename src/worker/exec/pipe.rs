//! Reading what a command says, never more than a bound at a time.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

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
