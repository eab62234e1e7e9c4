//! Flat tables as Parquet: one row a sample, every column a number, a flag or a text.
//!
//! Without arrow, like the requests' file. Invariant: a value that is absent is a null, and comes
//! back as absent.

use super::files::{self, StoreError};
use super::parquet;
use ::parquet::basic::{Repetition, Type as PhysicalType};
use ::parquet::data_type::{BoolType, DataType, DoubleType, Int64Type};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::RowGroupReader;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::types::Type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// One column with its rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FlatColumn {
    pub(crate) name: String,
    pub(crate) values: Values,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    Integers(Vec<Option<i64>>),
    Doubles(Vec<Option<f64>>),
    Flags(Vec<Option<bool>>),
}

impl FlatColumn {
    pub(crate) fn new(name: &str, values: Values) -> Self {
        Self { name: name.to_owned(), values }
    }
}

impl Values {
    const fn physical(&self) -> PhysicalType {
        match self {
            Self::Integers(_) => PhysicalType::INT64,
            Self::Doubles(_) => PhysicalType::DOUBLE,
            Self::Flags(_) => PhysicalType::BOOLEAN,
        }
    }
}

/// Writes a table, whole or not at all. All columns have as many rows.
pub(crate) fn write(path: &Path, columns: &[FlatColumn]) -> Result<(), StoreError> {
    files::write_with(path, |file| fill(file, columns).map_err(parquet::into_io))
}

fn fill(file: &mut File, columns: &[FlatColumn]) -> ParquetResult<()> {
    let field = |column: &FlatColumn| {
        Type::primitive_type_builder(&column.name, column.values.physical())
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .map(Arc::new)
    };
    let fields = columns.iter().map(field).collect::<ParquetResult<Vec<_>>>()?;
    let schema = Arc::new(Type::group_type_builder("samples").with_fields(fields).build()?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(parquet::properties()))?;
    let mut group = writer.next_row_group()?;
    for column in columns {
        match &column.values {
            Values::Integers(rows) => write_column::<Int64Type, _>(&mut group, rows)?,
            Values::Doubles(rows) => write_column::<DoubleType, _>(&mut group, rows)?,
            Values::Flags(rows) => write_column::<BoolType, _>(&mut group, rows)?,
        }
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

fn write_column<T: DataType<T = V>, V: Copy>(
    group: &mut SerializedRowGroupWriter<'_, &mut File>,
    rows: &[Option<V>],
) -> ParquetResult<()>
where
    T::T: Copy,
{
    let Some(mut out) = group.next_column()? else { return Ok(()) };
    let values: Vec<V> = rows.iter().copied().flatten().collect();
    let levels: Vec<i16> = rows.iter().map(|row| row.is_some().into()).collect();
    out.typed::<T>().write_batch(&values, Some(&levels), None)?;
    out.close()
}

/// Reads a table back, columns in their order.
pub(crate) fn read(path: &Path) -> Result<Vec<FlatColumn>, StoreError> {
    let mut columns = Vec::new();
    parquet::for_each_group(path, |group| read_group(group, &mut columns))?;
    Ok(columns)
}

fn read_group(group: &dyn RowGroupReader, columns: &mut Vec<FlatColumn>) -> ParquetResult<()> {
    for place in 0..group.num_columns() {
        let descriptor = group.metadata().column(place).column_descr();
        let name = descriptor.name().to_owned();
        let values = match descriptor.physical_type() {
            PhysicalType::INT64 => Values::Integers(read_column::<Int64Type>(group, place)?),
            PhysicalType::DOUBLE => Values::Doubles(read_column::<DoubleType>(group, place)?),
            PhysicalType::BOOLEAN => Values::Flags(read_column::<BoolType>(group, place)?),
            other => return Err(ParquetError::General(format!("column {name} is {other}"))),
        };
        match columns.get_mut(place) {
            None => columns.push(FlatColumn { name, values }),
            Some(FlatColumn { values: known, .. }) => append(known, values)?,
        }
    }
    Ok(())
}

fn append(known: &mut Values, more: Values) -> ParquetResult<()> {
    match (known, more) {
        (Values::Integers(known), Values::Integers(more)) => known.extend(more),
        (Values::Doubles(known), Values::Doubles(more)) => known.extend(more),
        (Values::Flags(known), Values::Flags(more)) => known.extend(more),
        _ => return Err(ParquetError::General("a column changes its type".into())),
    }
    Ok(())
}

fn read_column<T: DataType>(
    group: &dyn RowGroupReader,
    place: usize,
) -> ParquetResult<Vec<Option<T::T>>> {
    let rows = usize::try_from(group.metadata().num_rows())
        .map_err(|_| ParquetError::General("a negative number of rows".into()))?;
    parquet::optional::<T>(group, place, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let columns = [
            FlatColumn::new("at_ns", Values::Integers(vec![Some(1), None, Some(-3)])),
            FlatColumn::new("ratio", Values::Doubles(vec![None, Some(0.5), None])),
            FlatColumn::new("answered", Values::Flags(vec![Some(true), Some(false), None])),
        ];
        write(&path, &columns).unwrap();
        assert_eq!(read(&path).unwrap(), columns);
    }

    #[test]
    fn a_table_without_rows_has_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let columns = [FlatColumn::new("at_ns", Values::Integers(Vec::new()))];
        write(&path, &columns).unwrap();
        assert_eq!(read(&path).unwrap(), columns);
    }

    #[test]
    fn what_is_no_table_is_told_as_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, "PAR1 but not really").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("t.parquet"));
    }
}
