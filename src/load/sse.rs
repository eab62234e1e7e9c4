//! Server-sent events as bytes arrive.
//!
//! Pure and incremental. An event that lies whole in the input is handed out in place; only one
//! that is split over reads is copied. Lines end with LF or CRLF; a lone CR, which the standard
//! also allows and no server sends, is data.
//!
//! Invariant: how the bytes are split over reads changes nothing in what comes out.

use memchr::memchr;

/// Longer events are no token streams.
pub(crate) const MAX_EVENT: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub(crate) struct EventTooLong;

/// Splits a body into events.
#[derive(Clone, Debug, Default)]
pub(crate) struct SseParser {
    /// The start of an event whose end has not arrived.
    carry: Vec<u8>,
    /// `carry` holds an event that was handed out and goes with the next call.
    spent: bool,
    /// The data of an event with several data lines.
    joined: Vec<u8>,
}

/// How far `next` came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    /// Bytes of the input used up; an event ends exactly there.
    pub(crate) used: usize,
    /// The data of the event that ended; `None` when it had none, or all input was used.
    pub(crate) data: Option<&'a [u8]>,
}

impl SseParser {
    /// The next event's data. Call until `used` is the whole input.
    pub(crate) fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, EventTooLong> {
        if self.spent {
            self.carry.clear();
            self.spent = false;
        }
        if self.carry.is_empty() {
            return self.next_in_place(input);
        }
        let mut used = 0;
        while let Some(line) = memchr(b'\n', input.get(used..).unwrap_or_default()) {
            self.carry.extend_from_slice(input.get(used..=used + line).unwrap_or_default());
            used += line + 1;
            if ends_event(&self.carry) {
                self.spent = true;
                return Ok(Step { used, data: data_of(&self.carry, &mut self.joined) });
            }
            self.bound()?;
        }
        self.carry.extend_from_slice(input.get(used..).unwrap_or_default());
        self.bound()?;
        Ok(Step { used: input.len(), data: None })
    }

    fn next_in_place<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, EventTooLong> {
        let mut from = 0;
        while let Some(line) = memchr(b'\n', input.get(from..).unwrap_or_default()) {
            from += line + 1;
            let event = input.get(..from).unwrap_or_default();
            if ends_event(event) {
                return Ok(Step { used: from, data: data_of(event, &mut self.joined) });
            }
        }
        self.carry.extend_from_slice(input);
        self.bound()?;
        Ok(Step { used: input.len(), data: None })
    }

    /// The data of an event that a proper end of the body left without its blank line.
    pub(crate) fn finish(&mut self) -> Option<&[u8]> {
        if self.spent || self.carry.is_empty() {
            return None;
        }
        self.spent = true;
        data_of(&self.carry, &mut self.joined)
    }

    fn bound(&self) -> Result<(), EventTooLong> {
        if self.carry.len() > MAX_EVENT { Err(EventTooLong) } else { Ok(()) }
    }
}

/// Whether the last line of `bytes`, which end with LF, is blank.
fn ends_event(bytes: &[u8]) -> bool {
    bytes == b"\n" || bytes == b"\r\n" || bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n")
}

/// The joined values of an event's data lines, in place if there is only one.
fn data_of<'a>(event: &'a [u8], joined: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    // What nearly every token looks like: one data line and the blank one.
    if let Some((line, b"\n" | b"\r\n")) =
        memchr(b'\n', event).and_then(|end| event.split_at_checked(end + 1))
        && let Some(line) = line.strip_suffix(b"\n")
    {
        return data_line(line);
    }
    let mut values = event.split(|&byte| byte == b'\n').filter_map(data_line);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first) };
    joined.clear();
    joined.extend_from_slice(first);
    for value in std::iter::once(second).chain(values) {
        joined.push(b'\n');
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// The value of a line that is a data line.
fn data_line(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line == b"data" {
        return Some(b"");
    }
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parts: &[&[u8]]) -> Result<Vec<String>, EventTooLong> {
        let mut parser = SseParser::default();
        let mut got = Vec::new();
        for part in parts {
            let mut input = *part;
            while !input.is_empty() {
                let step = parser.next(input)?;
                got.extend(step.data.map(|data| String::from_utf8_lossy(data).into_owned()));
                let used = step.used;
                input = &input[used..];
            }
        }
        got.extend(parser.finish().map(|data| format!("left: {}", String::from_utf8_lossy(data))));
        Ok(got)
    }

    /// TCP may split a stream anywhere, so every split must give the same events.
    #[track_caller]
    fn check(stream: &str, want: &[&str]) {
        for ending in ["\n", "\r\n"] {
            let stream = stream.replace('\n', ending);
            for cut in 0..=stream.len() {
                let (head, tail) = stream.as_bytes().split_at(cut);
                assert_eq!(events(&[head, tail]).unwrap(), want, "split at byte {cut}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(events(&bytes).unwrap(), want, "byte by byte");
        }
    }

    #[test]
    fn events_end_at_blank_lines() {
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data:a\n\ndata:  b\n\n", &["a", " b"]);
        check("\n\ndata: a\n\n\n\ndata: b\n\n", &["a", "b"]);
        check("", &[]);
    }

    #[test]
    fn data_lines_of_one_event_are_joined() {
        check("data: a\ndata: b\n\n", &["a\nb"]);
        check("data\n\ndata: x\n\n", &["", "x"]);
    }

    #[test]
    fn comments_and_other_fields_are_no_data() {
        check(": ping\n\ndata: a\n: note\nid: 3\nevent: x\nretry: 5\n\n", &["a"]);
        check("database: a\n\n", &[]);
    }

    #[test]
    fn an_event_without_its_blank_line_is_left_to_the_caller() {
        check("data: a\n\ndata: [DONE]\n", &["a", "left: [DONE]"]);
        check("data: a\n\ndata: [DO", &["a", "left: [DO"]);
    }

    #[test]
    fn an_event_has_a_bound() {
        let long = format!("data: {}\n", "x".repeat(MAX_EVENT));
        assert_eq!(events(&[long.as_bytes()]), Err(EventTooLong));
        let halves = long.as_bytes().split_at(MAX_EVENT / 2);
        assert_eq!(events(&[halves.0, halves.1]), Err(EventTooLong));
    }

    #[test]
    fn a_whole_event_is_not_copied() {
        let mut parser = SseParser::default();
        let input = b"data: abc\n\nrest";
        let step = parser.next(input).unwrap();
        assert_eq!(step.used, 11);
        assert!(std::ptr::eq(step.data.unwrap(), &input[6..9]));
    }

    proptest::proptest! {
        #[test]
        fn splits_change_nothing(stream in "(data|:|a|\n|\r\n| |\r){0,40}", cut in 0usize..80) {
            let cut = cut.min(stream.len());
            let (head, tail) = stream.as_bytes().split_at(cut);
            proptest::prop_assert_eq!(events(&[head, tail]), events(&[stream.as_bytes()]));
        }
    }
}
