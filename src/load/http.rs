//! HTTP/1.1 responses as bytes arrive: the head, then the body without its framing.
//!
//! Pure and incremental. It never buffers a body; a head that is split over reads is kept by the
//! caller. Whatever is too large or does not parse is an error, never a guess.
//!
//! Invariant: how the bytes are split over reads changes nothing in what comes out.

use memchr::memmem;

/// Heads beyond this are not answers of an inference server.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// A chunk-size line with its extensions, or one trailer line.
const MAX_LINE: usize = 4 * 1024;
const MAX_HEADERS: usize = 64;

/// Why bytes are no HTTP answer. Each message completes "not a valid answer: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the response head is longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    #[error("the response head is not HTTP ({0})")]
    Head(httparse::Error),
    #[error("its content-length is not a number")]
    ContentLength,
    #[error("its transfer-encoding is not chunked")]
    TransferEncoding,
    #[error("a chunk's size is not a number")]
    ChunkSize,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("a chunk line is longer than {MAX_LINE} bytes")]
    LineTooLong,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(u64),
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The connection may carry another request after this body.
    pub(crate) keep_alive: bool,
    pub(crate) event_stream: bool,
}

/// The head at the start of `bytes` and its length; `None` until it is whole.
///
/// Interim answers (1xx) are skipped and counted into the length.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    let mut skipped = 0;
    loop {
        let rest = bytes.get(skipped..).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => {
                let status = response.code.unwrap_or(0);
                if (100..200).contains(&status) {
                    skipped += length;
                    continue;
                }
                return Ok(Some((read_head(&response, status)?, skipped + length)));
            }
            Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => {
                return Err(HttpError::HeadTooLong);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(HttpError::Head(error)),
        }
    }
}

fn read_head(response: &httparse::Response<'_, '_>, status: u16) -> Result<Head, HttpError> {
    let mut length = None;
    let mut chunked = false;
    let mut close = response.version == Some(0);
    let mut event_stream = false;
    for header in response.headers.iter() {
        let name = header.name;
        let value = header.value.trim_ascii();
        if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map_err(|_| HttpError::ContentLength)?;
            // `parse` alone would take "+5".
            if !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(HttpError::ContentLength);
            }
            length = Some(text.parse().map_err(|_| HttpError::ContentLength)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::TransferEncoding);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            let value = value.to_ascii_lowercase();
            close = memmem::find(&value, b"close").is_some()
                || (close && memmem::find(&value, b"keep-alive").is_none());
        } else if name.eq_ignore_ascii_case("content-type") {
            let value = value.to_ascii_lowercase();
            event_stream = value.starts_with(b"text/event-stream");
        }
    }
    let framing = match (status, chunked, length) {
        (204 | 304, _, _) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    let keep_alive = !close && framing != Framing::UntilClose;
    Ok(Head { status, framing, keep_alive, event_stream })
}

/// One step of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes of the body, as they lie in the input.
    Data(&'a [u8]),
    /// All input was used and the body goes on.
    NeedMore,
    /// The body ended; what was not consumed belongs to no request.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the hexadecimal size of a chunk.
    Size {
        value: u64,
        digits: u8,
        line: usize,
    },
    /// In what follows the size on its line.
    Extension {
        value: u64,
        line: usize,
    },
    Data(u64),
    /// After a chunk's data: CR, or LF at once.
    DataCr,
    DataLf,
    /// In the trailer section; `line` counts bytes of the current line without CR.
    Trailer {
        line: usize,
    },
    Length(u64),
    UntilClose,
    Ended,
}

/// Takes a body's framing away.
#[derive(Clone, Debug)]
pub(crate) struct BodyDecoder {
    state: State,
}

impl BodyDecoder {
    pub(crate) const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Chunked => State::Size { value: 0, digits: 0, line: 0 },
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether an end of the connection here is the body's proper end.
    pub(crate) fn may_close(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Ended)
    }

    /// The next piece of the body and how much of `input` it used up.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), HttpError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.state {
                State::Ended | State::Length(0) => {
                    self.state = State::Ended;
                    return Ok((used, Piece::End));
                }
                _ if rest.is_empty() => return Ok((used, Piece::NeedMore)),
                State::UntilClose => return Ok((input.len(), Piece::Data(rest))),
                State::Length(left) => {
                    let (data, left) = take(rest, left);
                    self.state = State::Length(left);
                    return Ok((used + data.len(), Piece::Data(data)));
                }
                State::Data(left) => {
                    let (data, left) = take(rest, left);
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok((used + data.len(), Piece::Data(data)));
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::DataCr
                | State::DataLf
                | State::Trailer { .. } => {
                    if let Some(&byte) = rest.first() {
                        self.state = frame_byte(self.state, byte)?;
                        used += 1;
                    }
                }
            }
        }
    }
}

/// As much of `rest` as `left` allows, and what is left then.
fn take(rest: &[u8], left: u64) -> (&[u8], u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    (rest.get(..length).unwrap_or_default(), left - length as u64)
}

/// One byte of chunk framing.
fn frame_byte(state: State, byte: u8) -> Result<State, HttpError> {
    match state {
        State::Size { value, digits, line } => match char::from(byte).to_digit(16) {
            Some(digit) if digits < 15 => Ok(State::Size {
                value: value << 4 | u64::from(digit),
                digits: digits + 1,
                line: line + 1,
            }),
            Some(_) => Err(HttpError::ChunkSize),
            None if digits == 0 => Err(HttpError::ChunkSize),
            None if byte == b'\n' => Ok(after_size(value)),
            None if matches!(byte, b'\r' | b';' | b' ' | b'\t') => {
                Ok(State::Extension { value, line })
            }
            None => Err(HttpError::ChunkSize),
        },
        State::Extension { value, .. } if byte == b'\n' => Ok(after_size(value)),
        State::Extension { line, .. } | State::Trailer { line } if line >= MAX_LINE => {
            Err(HttpError::LineTooLong)
        }
        State::Extension { value, line } => Ok(State::Extension { value, line: line + 1 }),
        State::DataCr if byte == b'\r' => Ok(State::DataLf),
        State::DataCr | State::DataLf if byte == b'\n' => {
            Ok(State::Size { value: 0, digits: 0, line: 0 })
        }
        State::DataCr | State::DataLf => Err(HttpError::ChunkEnd),
        State::Trailer { line } => Ok(match byte {
            b'\n' if line == 0 => State::Ended,
            b'\n' => State::Trailer { line: 0 },
            b'\r' => State::Trailer { line },
            _ => State::Trailer { line: line + 1 },
        }),
        State::Data(_) | State::Length(_) | State::UntilClose | State::Ended => Ok(state),
    }
}

fn after_size(value: u64) -> State {
    if value == 0 { State::Trailer { line: 0 } } else { State::Data(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `parts` one after another; the body, whether it ended, and what was left over.
    fn decode(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), HttpError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut body = Vec::new();
        let mut left = 0;
        let mut ended = false;
        for part in parts {
            let mut input = *part;
            loop {
                let (used, piece) = decoder.next(input)?;
                input = &input[used..];
                match piece {
                    Piece::Data(data) => body.extend_from_slice(data),
                    Piece::NeedMore => break,
                    Piece::End => {
                        ended = true;
                        left += input.len();
                        break;
                    }
                }
            }
        }
        Ok((body, ended, left))
    }

    /// Every split of the stream, and byte by byte, must give the same.
    #[track_caller]
    fn check(framing: Framing, stream: &[u8], want: &Result<(Vec<u8>, bool, usize), HttpError>) {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(&decode(framing, &[head, tail]), want, "split at byte {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(&decode(framing, &bytes), want, "byte by byte");
    }

    fn body(text: &str, ended: bool, left: usize) -> Result<(Vec<u8>, bool, usize), HttpError> {
        Ok((text.as_bytes().to_vec(), ended, left))
    }

    #[test]
    fn chunked_bodies() {
        let chunked = Framing::Chunked;
        check(chunked, b"5\r\nhello\r\n0\r\n\r\n", &body("hello", true, 0));
        check(
            chunked,
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nHTTP",
            &body("hello world", true, 4),
        );
        check(
            chunked,
            b"A;x=\"y\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
            &body("0123456789", true, 0),
        );
        check(chunked, b"2 \r\nab\r\n00\r\n\r\n", &body("ab", true, 0));
        check(chunked, b"2\nab\n0\n\n", &body("ab", true, 0));
        check(chunked, b"5\r\nhel", &body("hel", false, 0));
        check(chunked, b"5\r\nhello", &body("hello", false, 0));
        check(chunked, b"0\r\n", &body("", false, 0));
    }

    #[test]
    fn broken_chunks_are_refused() {
        let chunked = Framing::Chunked;
        check(chunked, b"x\r\n", &Err(HttpError::ChunkSize));
        check(chunked, b"\r\n", &Err(HttpError::ChunkSize));
        check(chunked, b"-1\r\n", &Err(HttpError::ChunkSize));
        check(chunked, b"fffffffffffffffff\r\n", &Err(HttpError::ChunkSize));
        check(chunked, b"2\r\nabc\r\n", &Err(HttpError::ChunkEnd));
        check(chunked, b"2\r\nab\rc", &Err(HttpError::ChunkEnd));
        let long = [b"1;".as_slice(), &vec![b'x'; MAX_LINE + 1]].concat();
        assert_eq!(decode(chunked, &[&long]), Err(HttpError::LineTooLong));
        let trailer = [b"0\r\n".as_slice(), &vec![b'x'; MAX_LINE + 1]].concat();
        assert_eq!(decode(chunked, &[&trailer]), Err(HttpError::LineTooLong));
    }

    #[test]
    fn other_framings() {
        check(Framing::Length(3), b"abcdef", &body("abc", true, 3));
        check(Framing::Length(3), b"ab", &body("ab", false, 0));
        check(Framing::UntilClose, b"abc", &body("abc", false, 0));
        assert_eq!(decode(Framing::Length(0), &[b""]), body("", true, 0));
    }

    #[track_caller]
    fn check_head(head: &str, want: Head) {
        let text = format!("{head}\r\n\r\nBODY").replace('|', "\r\n");
        let length = text.len() - 4;
        for cut in 0..length {
            assert_eq!(parse_head(&text.as_bytes()[..cut]), Ok(None), "cut at byte {cut}");
        }
        assert_eq!(parse_head(text.as_bytes()), Ok(Some((want, length))));
    }

    #[test]
    fn heads() {
        let stream =
            Head { status: 200, framing: Framing::Chunked, keep_alive: true, event_stream: true };
        check_head(
            "HTTP/1.1 200 OK|content-type: text/event-stream; charset=utf-8|Transfer-Encoding: Chunked",
            stream,
        );
        check_head(
            "HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Type: Text/Event-Stream|transfer-encoding: chunked|Connection: Close",
            Head { keep_alive: false, ..stream },
        );
        let plain = Head {
            status: 400,
            framing: Framing::Length(12),
            keep_alive: true,
            event_stream: false,
        };
        check_head("HTTP/1.1 400 Bad Request|Content-Length: 12", plain);
        check_head(
            "HTTP/1.0 400 Bad Request|Content-Length: 12",
            Head { keep_alive: false, ..plain },
        );
        check_head("HTTP/1.0 400 Bad|Content-Length: 12|Connection: keep-alive", plain);
        check_head(
            "HTTP/1.1 200 OK",
            Head {
                status: 200,
                framing: Framing::UntilClose,
                keep_alive: false,
                event_stream: false,
            },
        );
        check_head("HTTP/1.1 204 None", Head { status: 204, framing: Framing::Length(0), ..plain });
    }

    #[test]
    fn heads_that_are_none() {
        let parse = |text: &str| parse_head(text.as_bytes());
        assert!(matches!(parse("SSH-2.0-OpenSSH\r\n"), Err(HttpError::Head(_))));
        for length in ["x", "-1", "+1", "99999999999999999999999"] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(parse(&text), Err(HttpError::ContentLength), "{length}");
        }
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
            Err(HttpError::TransferEncoding)
        );
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD));
        assert_eq!(parse(&long), Err(HttpError::HeadTooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>, splits: Vec<u8>) {
            let mut parts = Vec::new();
            let mut rest = bytes.as_slice();
            for split in splits {
                let (head, tail) = rest.split_at(usize::from(split).min(rest.len()));
                parts.push(head);
                rest = tail;
            }
            parts.push(rest);
            drop(decode(Framing::Chunked, &parts));
            let _ = parse_head(&bytes);
        }
    }
}
