//! `requests.parquet`: written and read without arrow, for pandas, polars and DuckDB to open.

use super::columns::{COLUMNS, Column, Read, SCHEMA};
use super::files::{self, StoreError, check_format};
use crate::run::FORMAT;
use crate::run::record::RequestRecord;
use parquet::basic::Compression;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Rows a row group: bounds the memory of whoever reads it.
const ROWS: usize = 16_384;
const FORMAT_KEY: &str = "sweepd.format";

/// Writes all records of a phase, whole or not at all.
pub(crate) fn write(path: &Path, records: &[RequestRecord]) -> Result<(), StoreError> {
    files::write_with(path, |file| fill(file, records).map_err(into_io))
}

/// The cause of an I/O error is kept, so that "no space left" still says so.
pub(super) fn into_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}

/// How every file of ours is written: compressed, its format beside the schema.
pub(super) fn properties() -> WriterProperties {
    let format = KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_string());
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![format]))
        .build()
}

fn fill(file: &mut File, records: &[RequestRecord]) -> ParquetResult<()> {
    fill_with(file, records, SCHEMA, COLUMNS.iter())
}

/// `columns`: those of the schema, in its order.
fn fill_with<'c>(
    file: &mut File,
    records: &[RequestRecord],
    schema: &str,
    columns: impl Iterator<Item = &'c Column> + Clone,
) -> ParquetResult<()> {
    let schema = Arc::new(parse_message_type(schema)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties()))?;
    for rows in records.chunks(ROWS) {
        let mut group = writer.next_row_group()?;
        for column in columns.clone() {
            let Some(mut out) = group.next_column()? else { break };
            match column {
                Column::Integer(take) => write_integers(&mut out, rows, *take)?,
                Column::Flag(take) => {
                    let values: Vec<bool> = rows.iter().map(take).collect();
                    out.typed::<BoolType>().write_batch(&values, None, None)?;
                }
                Column::Text(take) => write_texts(&mut out, rows, *take)?,
                Column::List(take) => write_lists(&mut out, rows, *take)?,
            }
            out.close()?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

fn write_integers(
    out: &mut SerializedColumnWriter<'_>,
    rows: &[RequestRecord],
    take: fn(&RequestRecord) -> Option<i64>,
) -> ParquetResult<()> {
    let values: Vec<i64> = rows.iter().filter_map(take).collect();
    let levels: Vec<i16> = rows.iter().map(|row| take(row).is_some().into()).collect();
    out.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

fn write_texts(
    out: &mut SerializedColumnWriter<'_>,
    rows: &[RequestRecord],
    take: fn(&RequestRecord) -> Option<&str>,
) -> ParquetResult<()> {
    let values: Vec<ByteArray> = rows.iter().filter_map(take).map(ByteArray::from).collect();
    let levels: Vec<i16> = rows.iter().map(|row| take(row).is_some().into()).collect();
    out.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

/// A list's levels: definition 1 for an element and 0 for an empty list; repetition 0 starts a row.
fn write_lists(
    out: &mut SerializedColumnWriter<'_>,
    rows: &[RequestRecord],
    take: fn(&crate::run::record::Chunk) -> i64,
) -> ParquetResult<()> {
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if row.chunks.is_empty() {
            defined.push(0);
            repeated.push(0);
        }
        for (place, chunk) in row.chunks.iter().enumerate() {
            values.push(take(chunk));
            defined.push(1);
            repeated.push((place > 0).into());
        }
    }
    out.typed::<Int64Type>().write_batch(&values, Some(&defined), Some(&repeated))?;
    Ok(())
}

/// Reads all records back.
pub(crate) fn read(path: &Path) -> Result<Vec<RequestRecord>, StoreError> {
    let mut records = Vec::new();
    for_each_group(path, |group| read_group(group, &mut records))?;
    Ok(records)
}

/// Opens a file of ours, checks its format and reads its row groups in their order.
pub(super) fn for_each_group(
    path: &Path,
    mut read: impl FnMut(&dyn RowGroupReader) -> ParquetResult<()>,
) -> Result<(), StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let damaged = |error: ParquetError| StoreError::damaged(path, error);
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let metadata = reader.metadata().file_metadata();
    let format = metadata
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == FORMAT_KEY))
        .and_then(|pair| pair.value.as_ref()?.parse().ok());
    check_format(path, format)?;
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(damaged)?;
        read(group.as_ref()).map_err(damaged)?;
    }
    Ok(())
}

fn read_group(group: &dyn RowGroupReader, records: &mut Vec<RequestRecord>) -> ParquetResult<()> {
    let rows = usize::try_from(group.metadata().num_rows())
        .map_err(|_| ParquetError::General("a negative number of rows".into()))?;
    let mut read = Read::default();
    let schema = parse_message_type(SCHEMA)?;
    for (column, field) in COLUMNS.iter().zip(schema.get_fields()) {
        let Some(place) = place_of(group, field.name()) else {
            match column {
                Column::Integer(_) => read.integers.push(vec![None; rows]),
                Column::Text(_) => read.texts.push(vec![None; rows]),
                Column::Flag(_) => read.flags.push(vec![false; rows]),
                // None of these came later; without one the rows below lack it.
                Column::List(_) => {}
            }
            continue;
        };
        match column {
            Column::Integer(_) => {
                read.integers.push(optional::<Int64Type>(group, place, rows)?);
            }
            Column::Flag(_) => {
                let flags = optional::<BoolType>(group, place, rows)?;
                read.flags.push(flags.into_iter().map(Option::unwrap_or_default).collect());
            }
            Column::Text(_) => {
                let bytes = optional::<ByteArrayType>(group, place, rows)?;
                let text = |bytes: ByteArray| String::from_utf8_lossy(bytes.data()).into_owned();
                read.texts.push(bytes.into_iter().map(|value| value.map(text)).collect());
            }
            Column::List(_) => read.lists.push(lists(group, place, rows)?),
        }
    }
    for row in 0..rows {
        let record = read.record(row).ok_or_else(|| {
            ParquetError::General(format!("row {row} lacks a value or has an impossible one"))
        })?;
        records.push(record);
    }
    Ok(())
}

/// Which leaf of the file has this name, or lies in a list of it.
fn place_of(group: &dyn RowGroupReader, name: &str) -> Option<usize> {
    let columns = group.metadata().columns().iter();
    let first = |column: &ColumnChunkMetaData| column.column_path().parts().first().cloned();
    columns.map(first).position(|found| found.as_deref() == Some(name))
}

/// A flat column's values; a required column has no nulls and no levels.
pub(super) fn optional<T: DataType>(
    group: &dyn RowGroupReader,
    place: usize,
    rows: usize,
) -> ParquetResult<Vec<Option<T::T>>> {
    let nullable = group.metadata().column(place).column_descr().max_def_level() > 0;
    let mut column = get_typed_column_reader::<T>(group.get_column_reader(place)?);
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    loop {
        let (read, _, _) = column.read_records(rows, Some(&mut levels), None, &mut values)?;
        if read == 0 {
            break;
        }
    }
    if !nullable {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect())
}

fn lists(group: &dyn RowGroupReader, place: usize, rows: usize) -> ParquetResult<Vec<Vec<i64>>> {
    let mut column = get_typed_column_reader::<Int64Type>(group.get_column_reader(place)?);
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (read, _, _) =
            column.read_records(rows, Some(&mut defined), Some(&mut repeated), &mut values)?;
        if read == 0 {
            break;
        }
    }
    let mut values = values.into_iter();
    let mut lists: Vec<Vec<i64>> = Vec::with_capacity(rows);
    for (level, repetition) in defined.into_iter().zip(repeated) {
        if repetition == 0 {
            lists.push(Vec::new());
        }
        if level > 0
            && let (Some(list), Some(value)) = (lists.last_mut(), values.next())
        {
            list.push(value);
        }
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::{Chunk, RequestOutcome};
    use crate::units::MonoNs;

    fn record(index: u32) -> RequestRecord {
        let chunk = |n: u32| Chunk {
            at: MonoNs::new(i64::from(index * 100 + n)),
            earliest: MonoNs::new(i64::from(index * 100)),
        };
        let odd = index % 2 == 1;
        RequestRecord {
            index,
            user: 1,
            turn: 2,
            scheduled: MonoNs::new(-5),
            connect_ns: odd.then_some(7),
            tls_ns: odd.then_some(70),
            sent: odd.then_some(MonoNs::new(8)),
            first_byte: None,
            first_text_chunk: odd.then_some(0),
            chunks: (0..index % 4).map(chunk).collect(),
            end: MonoNs::new(9),
            outcome: RequestOutcome::ALL[index as usize % 11],
            http_status: odd.then_some(200),
            error: odd.then(|| "no \u{1f600} space".to_owned()),
            finish_reason: None,
            prompt_tokens_asked: 128,
            prompt_tokens_expected: Some(129),
            prompt_tokens_reported: None,
            cached_tokens_reported: Some(0),
            cached_tokens_meant: odd.then_some(12),
            output_tokens_asked: 256,
            output_tokens_reported: odd.then_some(256),
            body_bytes: 1 << 40,
            reused_connection: odd,
            tls: odd,
            reuse_race: false,
            clock_step: !odd,
            user_space_stamps: 3,
            dataset_entry: odd.then_some(index),
            class: odd.then(|| crate::ids::Name::new("batch").unwrap()),
        }
    }

    #[test]
    fn records_survive_the_file_over_several_row_groups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.parquet");
        let count = u32::try_from(2 * ROWS + 10).unwrap();
        let records: Vec<_> = (0..count).map(record).collect();
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
    }

    #[test]
    fn a_phase_without_records_is_a_file_without_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.parquet");
        write(&path, &[]).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }

    /// What a sweepd wrote that did not know of the later columns.
    #[test]
    fn a_file_without_the_later_columns_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.parquet");
        let later = ["cached_tokens_meant", "dataset_entry", "class"];
        let early: String = SCHEMA
            .lines()
            .filter(|line| !later.iter().any(|name| line.contains(&format!(" {name}"))))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(early.lines().count() + later.len(), SCHEMA.lines().count());
        let names = parse_message_type(SCHEMA).unwrap();
        let known = |name: &str| !later.contains(&name);
        let columns: Vec<&Column> = COLUMNS
            .iter()
            .zip(names.get_fields())
            .filter(|(_, field)| known(field.name()))
            .map(|(column, _)| column)
            .collect();
        let records: Vec<_> = (0..9).map(record).collect();
        files::write_with(&path, |file| {
            fill_with(file, &records, &early, columns.iter().copied()).map_err(into_io)
        })
        .unwrap();
        let without = |record: &RequestRecord| RequestRecord {
            cached_tokens_meant: None,
            dataset_entry: None,
            class: None,
            ..record.clone()
        };
        assert_eq!(read(&path).unwrap(), records.iter().map(without).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_file_is_damaged_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.parquet");
        write(&path, &[record(1)]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(read(&path), Err(StoreError::Damaged { .. })));
    }
}
