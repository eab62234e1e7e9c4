//! Finds the entries of a data set's file, one after another, with one of them in memory.
//!
//! What an entry says is not looked at: it only has to begin and to end. A file that begins with
//! `[` is a JSON array of entries; any other has one a line, and empty lines do not count.
//!
//! Invariant: the same file gives the same entries at the same places, whoever reads it.

use memchr::{memchr_iter, memchr2};
use std::io::{self, BufRead, Read};

/// A longer entry is no conversation.
const LONGEST: usize = 64 << 20;
const TOO_LONG: &str = "an entry of more than 64 MiB is no conversation";

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The byte at which it begins.
    pub(crate) at: u64,
    pub(crate) bytes: u32,
    /// The line at which it begins, from 1.
    pub(crate) line: u64,
}

/// Completes "the data set FILE: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("line {line}: {why}")]
    Form { line: u64, why: &'static str },
    #[error("it holds no entry")]
    Empty,
}

/// Hands every entry to `each`, in the order of the file.
pub(crate) fn scan(
    mut input: impl BufRead,
    mut each: impl FnMut(Place, &[u8]),
) -> Result<(), ScanError> {
    let mut scan = Scan::new(&mut each);
    if input.fill_buf()?.starts_with(MARK) {
        input.consume(MARK.len());
        scan.at = 3;
    }
    if scan.first_byte(&mut input)? == Some(b'[') {
        scan.array(input)?;
    } else {
        scan.lines(input)?;
    }
    if scan.found { Ok(()) } else { Err(ScanError::Empty) }
}

/// Of the byte order, in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

struct Scan<'a> {
    each: &'a mut dyn FnMut(Place, &[u8]),
    /// Of the next byte.
    at: u64,
    line: u64,
    found: bool,
    within: Within,
    /// The entry that is being read.
    entry: Vec<u8>,
    place: Place,
    nesting: Nesting,
}

/// Where in an array the scan stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// The bracket is still to come.
    Nothing,
    /// Before its first entry: one may come, or the end.
    Start,
    /// Behind a comma: one must come.
    Comma,
    Entry,
    /// Behind an entry: a comma, or the end.
    Behind,
    End,
}

impl<'a> Scan<'a> {
    fn new(each: &'a mut dyn FnMut(Place, &[u8])) -> Self {
        Self {
            each,
            at: 0,
            line: 1,
            found: false,
            within: Within::Nothing,
            entry: Vec::new(),
            place: Place { at: 0, bytes: 0, line: 1 },
            nesting: Nesting::default(),
        }
    }

    /// Skips white space; the byte after it is looked at and stays.
    fn first_byte(&mut self, input: &mut impl BufRead) -> Result<Option<u8>, ScanError> {
        loop {
            let Some(first) = input.fill_buf()?.first().copied() else { return Ok(None) };
            if !first.is_ascii_whitespace() {
                return Ok(Some(first));
            }
            self.pass(&[first]);
            input.consume(1);
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.at += u64::try_from(bytes.len()).unwrap_or(0);
        self.line += u64::try_from(memchr_iter(b'\n', bytes).count()).unwrap_or(0);
    }

    fn lines(&mut self, mut input: impl BufRead) -> Result<(), ScanError> {
        loop {
            let mut line = std::mem::take(&mut self.entry);
            line.clear();
            let most = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
            let read = (&mut input).take(most).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            let entry = line.trim_ascii();
            if entry.len() > LONGEST {
                return Err(ScanError::Form { line: self.line, why: TOO_LONG });
            }
            if !entry.is_empty() {
                let before = line.len() - line.trim_ascii_start().len();
                let at = self.at + u64::try_from(before).unwrap_or(0);
                (self.each)(Place { at, bytes: length(entry), line: self.line }, entry);
                self.found = true;
            }
            self.pass(&line);
            self.entry = line;
        }
    }

    fn array(&mut self, mut input: impl BufRead) -> Result<(), ScanError> {
        loop {
            let buffer = input.fill_buf()?;
            let read = buffer.len();
            if read == 0 {
                break;
            }
            let mut rest = buffer;
            while let Some((byte, after)) = rest.split_first() {
                let (text, behind) = self.text(rest);
                if text.is_empty() {
                    self.byte(*byte)?;
                    self.pass(&[*byte]);
                    rest = after;
                } else {
                    self.keep(text)?;
                    self.pass(text);
                    rest = behind;
                }
            }
            input.consume(read);
        }
        let (line, why) = match self.within {
            Within::End => return Ok(()),
            Within::Entry => (self.place.line, "the entry that begins here has no end"),
            _ => (self.line, "the array has no end, `]`"),
        };
        Err(ScanError::Form { line, why })
    }

    /// Most of a file is text between quotes, in which nothing but its end matters.
    fn text<'b>(&self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        let inside = self.within == Within::Entry && self.nesting.in_text && !self.nesting.escaped;
        let end = if inside { memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len()) } else { 0 };
        bytes.split_at(end)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        self.entry.extend_from_slice(bytes);
        let too_long = self.entry.len() > LONGEST;
        let line = self.place.line;
        if too_long { Err(ScanError::Form { line, why: TOO_LONG }) } else { Ok(()) }
    }

    fn byte(&mut self, byte: u8) -> Result<(), ScanError> {
        match self.within {
            Within::Nothing => self.within = Within::Start,
            Within::Entry if self.nesting.is_over(byte) => {
                self.hand_over();
                self.within = if byte == b',' { Within::Comma } else { Within::End };
            }
            Within::Entry => {
                self.keep(&[byte])?;
                if self.nesting.closed(byte) {
                    self.hand_over();
                    self.within = Within::Behind;
                }
            }
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                self.within = self.between(byte)?;
                if self.within == Within::Entry {
                    self.place = Place { at: self.at, bytes: 0, line: self.line };
                    self.entry.clear();
                    self.nesting = Nesting::default();
                    self.keep(&[byte])?;
                    self.nesting.closed(byte);
                }
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        let entry = self.entry.trim_ascii_end();
        self.place.bytes = length(entry);
        (self.each)(self.place, entry);
        self.found = true;
    }

    /// What a byte between entries means.
    fn between(&self, byte: u8) -> Result<Within, ScanError> {
        let why = match (self.within, byte) {
            (Within::Start | Within::Behind, b']') => return Ok(Within::End),
            (Within::Behind, b',') => return Ok(Within::Comma),
            (Within::Start | Within::Comma, byte) if !b",]}".contains(&byte) => {
                return Ok(Within::Entry);
            }
            (Within::Behind, _) => "a comma is missing before this",
            (Within::End, _) => "something follows the array's end",
            _ => "an entry is missing here",
        };
        Err(ScanError::Form { line: self.line, why })
    }
}

fn length(entry: &[u8]) -> u32 {
    u32::try_from(entry.len()).unwrap_or(u32::MAX)
}

/// How deep in an entry a byte stands.
#[derive(Default)]
struct Nesting {
    depth: u32,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// True for the bracket that ends an entry which began with one.
    fn closed(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// True for what ends an entry that is no object and no list: a text, a number, a word.
    fn is_over(&self, byte: u8) -> bool {
        self.depth == 0 && !self.in_text && b",]".contains(&byte)
    }
}

/// Reads the entry at a place.
pub(crate) fn entry_at(file: &std::fs::File, place: Place) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut entry = vec![0; usize::try_from(place.bytes).unwrap_or(0)];
    file.read_exact_at(&mut entry, place.at)?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    type Entries = Vec<(u64, String)>;

    /// Whatever the size of a read, the entries are the same, and stand where they are said to.
    fn entries(text: &str) -> Result<Entries, String> {
        let mut all: Option<Result<Entries, String>> = None;
        for capacity in [1, 2, 3, 7, 4096] {
            let mut found = Vec::new();
            let reader = BufReader::with_capacity(capacity, text.as_bytes());
            let result = scan(reader, |place, entry| {
                let from = usize::try_from(place.at).unwrap();
                let to = from + usize::try_from(place.bytes).unwrap();
                assert_eq!(&text.as_bytes()[from..to], entry);
                found.push((place.line, String::from_utf8(entry.to_vec()).unwrap()));
            });
            let result = result.map(|()| found).map_err(|error| error.to_string());
            if capacity > 3 || !text.starts_with('\u{feff}') {
                assert!(all.as_ref().is_none_or(|all| *all == result), "{capacity}: {result:?}");
            }
            all = Some(result);
        }
        all.unwrap()
    }

    #[track_caller]
    fn check(text: &str, want: &[(u64, &str)]) {
        let want: Entries = want.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(entries(text), Ok(want), "{text:?}");
    }

    #[test]
    fn lines_and_arrays_have_their_entries() {
        check("{\"a\": 1}\n\n  {\"b\": \"]\"}  \r\n", &[(1, "{\"a\": 1}"), (3, "{\"b\": \"]\"}")]);
        check("\n{\"a\": 1}", &[(2, "{\"a\": 1}")]);
    }

    #[test]
    fn an_array_may_be_laid_out_in_any_way() {
        let nested = "{\"a\": [{\"b\": \"}],\\\"\"}]}";
        check(&format!("[{nested},{nested}]"), &[(1, nested), (1, nested)]);
        check(&format!(" [\n{nested}\n,\n {nested} ]\n"), &[(2, nested), (4, nested)]);
        check("[1, \"a,]\" , null]", &[(1, "1"), (1, "\"a,]\""), (1, "null")]);
    }

    proptest::proptest! {
        /// However it is read: `entries` compares.
        #[test]
        fn any_text_has_the_same_entries_however_it_is_read(text in "[\\[\\]{}\",:a\\\\ \n]{0,60}") {
            entries(&text).ok();
        }
    }

    #[test]
    fn a_mark_of_the_byte_order_is_no_part_of_it() {
        check("\u{feff}{\"a\": 1}\n", &[(1, "{\"a\": 1}")]);
    }

    #[test]
    fn a_broken_array_is_told_with_its_line() {
        for (text, want) in [
            ("", "it holds no entry"),
            ("[ ]", "it holds no entry"),
            ("[\n{},\n{\"a\": \"", "line 3: the entry that begins here has no end"),
            ("[\n{}\n", "line 3: the array has no end"),
            ("[{}\n{}]", "line 2: a comma is missing"),
            ("[{},\n]", "line 2: an entry is missing"),
            ("[,{}]", "line 1: an entry is missing"),
            ("[{}]\n{}", "line 2: something follows"),
        ] {
            let error = entries(text).unwrap_err();
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }
}
