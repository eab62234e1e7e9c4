//! The file of records between the load process and the store.
//!
//! A header, then frames: a length (u32, little endian) and that many bytes of postcard. Times of
//! chunks are differences, which are short. A thread writes, so that the disk never blocks the
//! loop; the file is not synced, because it only bridges two processes: the store makes it last.
//!
//! Invariant: a reader never takes a torn last frame for a record, and says that it was there.

use crate::run::record::{Chunk, RequestRecord};
use crate::secrets;
use crate::units::MonoNs;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

const MAGIC: &[u8; 8] = b"sweepdrq";
const VERSION: u32 = 2;
/// Longer frames are no records: 100,000 chunks take less.
const MAX_FRAME: u32 = 16 * 1024 * 1024;

/// Why records could not be written or read. Each message completes "cannot keep records: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramesError {
    #[error("cannot {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no file of records", .path.display())]
    NotFrames { path: PathBuf },
    #[error("{} has format {found}; this build reads {VERSION}", .path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("{} is damaged at record {record}", .path.display())]
    Damaged { path: PathBuf, record: u64 },
    #[error("the writing thread is gone")]
    WriterGone,
}

/// A record as it is stored: the chunks apart from it.
#[derive(Serialize, Deserialize)]
struct Frame {
    /// Its `chunks` are empty.
    record: RequestRecord,
    /// Per chunk: `at` since the one before it (the first: since the scheduled time), and how
    /// far `earliest` lies before it.
    chunks: Vec<(i64, i64)>,
}

impl Frame {
    fn pack(mut record: RequestRecord) -> Self {
        let mut before = record.scheduled;
        let chunks = std::mem::take(&mut record.chunks)
            .into_iter()
            .map(|chunk| {
                let step = chunk.at.since_ns(before);
                before = chunk.at;
                (step, chunk.at.since_ns(chunk.earliest))
            })
            .collect();
        Self { record, chunks }
    }

    fn unpack(self) -> RequestRecord {
        let mut at = self.record.scheduled.get();
        let chunks = self
            .chunks
            .into_iter()
            .map(|(step, width)| {
                // A damaged frame must not panic.
                at = at.wrapping_add(step);
                Chunk { at: MonoNs::new(at), earliest: MonoNs::new(at.wrapping_sub(width)) }
            })
            .collect();
        RequestRecord { chunks, ..self.record }
    }
}

/// Takes records to be written.
#[derive(Debug)]
pub(crate) struct Sink(mpsc::Sender<RequestRecord>);

impl Sink {
    /// Never blocks. After a failure to write, records are dropped and `finish` says why.
    pub(crate) fn put(&self, record: RequestRecord) {
        // The thread ends only when all sinks are dropped, or after a failure that it keeps.
        drop(self.0.send(record));
    }
}

/// Writes records in a thread of its own.
#[derive(Debug)]
pub(crate) struct Writer {
    records: mpsc::Sender<RequestRecord>,
    thread: JoinHandle<Result<u64, FramesError>>,
}

impl Writer {
    /// Creates the file, which must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, FramesError> {
        let to_error = io_error(path);
        let file = File::create_new(path).map_err(|source| to_error("create", source))?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        out.write_all(MAGIC)
            .and_then(|()| out.write_all(&VERSION.to_le_bytes()))
            .and_then(|()| out.flush())
            .map_err(|source| to_error("write", source))?;
        let (records, queue) = mpsc::channel();
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("frames".to_owned())
            .spawn(move || write_all(&queue, &mut out, &path))
            .map_err(|source| to_error("start the writer of", source))?;
        Ok(Self { records, thread })
    }

    /// For one who has records to be written.
    pub(crate) fn sink(&self) -> Sink {
        Sink(self.records.clone())
    }

    /// Waits until all sinks are gone and all is written; the number of records.
    pub(crate) fn finish(self) -> Result<u64, FramesError> {
        drop(self.records);
        self.thread.join().unwrap_or(Err(FramesError::WriterGone))
    }
}

fn write_all(
    queue: &mpsc::Receiver<RequestRecord>,
    out: &mut impl Write,
    path: &Path,
) -> Result<u64, FramesError> {
    let to_error = io_error(path);
    let mut written = 0;
    let mut bytes = Vec::new();
    loop {
        let mut record = match queue.try_recv() {
            Ok(record) => record,
            Err(mpsc::TryRecvError::Disconnected) => break,
            Err(mpsc::TryRecvError::Empty) => {
                // Idle: what there is goes out, so that a kill loses little.
                out.flush().map_err(|source| to_error("write", source))?;
                let Ok(record) = queue.recv() else { break };
                record
            }
        };
        // An answer may echo what it was sent.
        record.error = record.error.map(|text| secrets::excerpt(&text).into_owned());
        record.finish_reason =
            record.finish_reason.map(|text| secrets::redacted(&text).into_owned());
        bytes.clear();
        bytes = postcard::to_extend(&Frame::pack(record), bytes)
            .map_err(|error| to_error("encode a record for", io::Error::other(error)))?;
        let length = u32::try_from(bytes.len())
            .map_err(|error| to_error("encode a record for", io::Error::other(error)))?;
        out.write_all(&length.to_le_bytes())
            .and_then(|()| out.write_all(&bytes))
            .map_err(|source| to_error("write", source))?;
        written += 1;
    }
    out.flush().map_err(|source| to_error("write", source))?;
    Ok(written)
}

fn io_error(path: &Path) -> impl Fn(&'static str, io::Error) -> FramesError + use<> {
    let path = path.to_owned();
    move |action, source| FramesError::Io { action, path: path.clone(), source }
}

/// Reads records one after another.
#[derive(Debug)]
pub(crate) struct Reader {
    input: BufReader<File>,
    path: PathBuf,
    read: u64,
    torn: bool,
    over: bool,
}

/// All records of a file.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) records: Vec<RequestRecord>,
    /// The file ended within a frame: its writer was killed or the disk was full.
    pub(crate) torn: bool,
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Frames, FramesError> {
    let mut reader = Reader::open(path)?;
    let records = reader.by_ref().collect::<Result<_, _>>()?;
    Ok(Frames { records, torn: reader.torn() })
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, FramesError> {
        let to_error = io_error(path);
        let file = File::open(path).map_err(|source| to_error("open", source))?;
        let mut input = BufReader::with_capacity(256 * 1024, file);
        let mut header = [0; 12];
        let got = fill(&mut input, &mut header).map_err(|source| to_error("read", source))?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC || got < header.len() {
            return Err(FramesError::NotFrames { path: path.to_owned() });
        }
        let found = u32::from_le_bytes(version.try_into().unwrap_or_default());
        if found != VERSION {
            return Err(FramesError::Version { path: path.to_owned(), found });
        }
        Ok(Self { input, path: path.to_owned(), read: 0, torn: false, over: false })
    }

    /// Asked after the last record.
    pub(crate) fn torn(&self) -> bool {
        self.torn
    }

    fn next_frame(&mut self) -> Result<Option<RequestRecord>, FramesError> {
        let to_error = io_error(&self.path);
        let damaged = || FramesError::Damaged { path: self.path.clone(), record: self.read };
        let mut length = [0; 4];
        let got = fill(&mut self.input, &mut length).map_err(|source| to_error("read", source))?;
        if got < length.len() {
            self.torn = got > 0;
            return Ok(None);
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_FRAME {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        (&mut self.input)
            .take(length.into())
            .read_to_end(&mut bytes)
            .map_err(|source| to_error("read", source))?;
        if bytes.len() as u64 != u64::from(length) {
            self.torn = true;
            return Ok(None);
        }
        match postcard::take_from_bytes::<Frame>(&bytes) {
            Ok((frame, [])) => {
                self.read += 1;
                Ok(Some(frame.unpack()))
            }
            Ok(_) | Err(_) => Err(damaged()),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<RequestRecord, FramesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_frame().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads until `buffer` is full or the file ends; how much it holds.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::RequestOutcome;

    fn record(index: u32) -> RequestRecord {
        let at = |ns: i64| MonoNs::new(1_000_000_000_000 + ns);
        RequestRecord {
            index,
            user: 1,
            turn: 2,
            scheduled: at(0),
            connect_ns: Some(30_000),
            tls_ns: Some(900_000),
            sent: Some(at(40_000)),
            first_byte: Some(at(50_000)),
            first_text_chunk: Some(0),
            chunks: vec![
                Chunk { at: at(50_000), earliest: at(50_000) },
                Chunk { at: at(90_000), earliest: at(51_000) },
                // Not in order: a stepped clock must survive as it is.
                Chunk { at: at(-9_000), earliest: at(-9_000) },
            ],
            end: at(99_000),
            outcome: RequestOutcome::Cut,
            http_status: Some(200),
            error: Some("the connection closed".to_owned()),
            finish_reason: None,
            prompt_tokens_asked: 64,
            prompt_tokens_expected: Some(65),
            prompt_tokens_reported: None,
            cached_tokens_reported: Some(0),
            cached_tokens_meant: None,
            output_tokens_asked: 3,
            output_tokens_reported: None,
            body_bytes: 777,
            reused_connection: true,
            tls: true,
            reuse_race: false,
            clock_step: true,
            user_space_stamps: 1,
            dataset_entry: None,
            class: None,
        }
    }

    fn written(count: u32) -> (tempfile::TempDir, PathBuf, Vec<RequestRecord>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.frames");
        let writer = Writer::create(&path).unwrap();
        let records: Vec<_> = (0..count).map(record).collect();
        for record in &records {
            writer.sink().put(record.clone());
        }
        assert_eq!(writer.finish().unwrap(), u64::from(count));
        (folder, path, records)
    }

    #[test]
    fn what_is_written_is_read() {
        for count in [0, 1, 500] {
            let (_folder, path, records) = written(count);
            let frames = read(&path).unwrap();
            assert_eq!(frames.records, records);
            assert!(!frames.torn);
        }
    }

    #[test]
    fn a_torn_last_frame_is_left_out_and_said() {
        let (_folder, path, records) = written(2);
        let whole = std::fs::read(&path).unwrap();
        let first_ends = 12
            + 4
            + usize::try_from(u32::from_le_bytes(whole[12..16].try_into().unwrap())).unwrap();
        for length in 12..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let frames = read(&path).unwrap();
            let kept = usize::from(length >= first_ends);
            assert_eq!(frames.records, records[..kept], "cut at byte {length}");
            assert_eq!(frames.torn, length != 12 && length != first_ends, "cut at byte {length}");
        }
    }

    #[test]
    fn what_is_no_file_of_records_is_refused() {
        let (_folder, path, _) = written(1);
        let whole = std::fs::read(&path).unwrap();
        assert!(Writer::create(&path).is_err(), "it must not exist");
        for length in 0..12 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(read(&path), Err(FramesError::NotFrames { .. })), "{length} bytes");
        }
        let mut newer = whole.clone();
        newer[8] = 9;
        std::fs::write(&path, &newer).unwrap();
        assert!(matches!(read(&path), Err(FramesError::Version { found: 9, .. })));
        let mut damaged = whole.clone();
        damaged[15] = 0xff;
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(read(&path), Err(FramesError::Damaged { record: 0, .. })));
    }

    #[test]
    fn a_full_disk_is_said_at_the_end() {
        let (records, queue) = mpsc::channel();
        records.send(record(0)).unwrap();
        drop(records);
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_all(&queue, &mut full, Path::new("/dev/full")).unwrap_err();
        assert!(error.to_string().contains("cannot write /dev/full"), "{error}");
    }

    #[test]
    fn a_token_takes_few_bytes() {
        let mut record = record(0);
        record.chunks = (0..1000)
            .map(|n| MonoNs::new(record.scheduled.get() + n * 20_000_000))
            .map(|at| Chunk { at, earliest: at })
            .collect();
        let bytes = postcard::to_allocvec(&Frame::pack(record)).unwrap();
        assert!(bytes.len() < 6 * 1000, "{} bytes", bytes.len());
    }
}
