//! What the file holds: the tables, a row's bytes, and the facts about the file itself.

use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use redb::{ReadableDatabase, ReadableTableMetadata};

use super::error::Failure;
use crate::store::{Row, StoreError, Table};

/// The layout described here.
const FORMAT: u64 = 1;

/// Facts about the file: [`FORMAT_KEY`], [`VERSION_KEY`].
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("store");
const FORMAT_KEY: &str = "format";
/// Number of the last batch.
const VERSION_KEY: &str = "version";

/// Bytes of the version in front of a row's value, big-endian.
const VERSION_BYTES: usize = size_of::<u64>();

/// Where the rows of `table` are.
pub(super) fn data(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.as_str())
}

/// A row's bytes.
pub(super) fn encode(version: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VERSION_BYTES + value.len());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// The row of these bytes.
pub(super) fn decode(table: Table, key: &[u8], bytes: &[u8]) -> Result<Row, Failure> {
    let Some((version, value)) = bytes.split_first_chunk::<VERSION_BYTES>() else {
        return Err(corrupt(format!("row {} of {} is too short", key.escape_ascii(), table.as_str())));
    };
    Ok(Row { key: key.to_vec(), value: value.to_vec(), version: u64::from_be_bytes(*version) })
}

fn corrupt(detail: String) -> Failure {
    Failure::broken(StoreError::Corrupt(detail))
}

/// Makes a new file a store: all tables, nothing in them.
pub(super) fn initialize(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(data(table))?;
    }
    write_facts(&transaction, 0)?;
    Ok(transaction.commit()?)
}

fn write_facts(transaction: &WriteTransaction, version: u64) -> Result<(), Failure> {
    let mut facts = transaction.open_table(FACTS)?;
    facts.insert(FORMAT_KEY, FORMAT)?;
    facts.insert(VERSION_KEY, version)?;
    Ok(())
}

/// Makes sure that the file is a store of this format.
pub(super) fn verify(database: &Database) -> Result<(), Failure> {
    let moment = database.begin_read()?;
    let facts = match moment.open_table(FACTS) {
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(corrupt(
                "it is a redb file but no store of scoregate; name another folder".to_owned(),
            ));
        }
        facts => facts?,
    };
    let format = facts.get(FORMAT_KEY)?.map(|format| format.value());
    if format != Some(FORMAT) {
        let format = format.map_or("none".to_owned(), |format| format.to_string());
        return Err(corrupt(format!(
            "its format number is {format}, this version of scoregate knows {FORMAT}; \
             use the version that wrote it, or restore a backup"
        )));
    }
    for table in Table::ALL {
        moment.open_table(data(table))?;
    }
    version(&moment).map(|_| ())
}

/// Number of the last batch.
pub(super) fn version(moment: &ReadTransaction) -> Result<u64, Failure> {
    let found = moment.open_table(FACTS)?.get(VERSION_KEY)?.map(|version| version.value());
    found.ok_or_else(|| corrupt("it does not tell the number of its last batch".to_owned()))
}

/// Counts the batch that is being made. Returns its number.
pub(super) fn next_version(transaction: &WriteTransaction) -> Result<u64, Failure> {
    let mut facts = transaction.open_table(FACTS)?;
    let last = facts.get(VERSION_KEY)?.map(|version| version.value());
    let next = last.and_then(|last| last.checked_add(1));
    let next = next.ok_or_else(|| corrupt("it does not tell the number of its last batch".to_owned()))?;
    facts.insert(VERSION_KEY, next)?;
    Ok(next)
}

/// Reads every row. Returns how many each table has.
pub(super) fn count(moment: &ReadTransaction) -> Result<Vec<(&'static str, u64)>, Failure> {
    let last = version(moment)?;
    let mut counts = Vec::with_capacity(Table::ALL.len());
    for table in Table::ALL {
        let rows = moment.open_table(data(table))?;
        let mut seen = 0;
        for row in rows.iter()? {
            let (key, bytes) = row?;
            let row = decode(table, key.value(), bytes.value())?;
            if row.version > last {
                let (key, version) = (row.key.escape_ascii(), row.version);
                let name = table.as_str();
                return Err(corrupt(format!(
                    "row {key} of {name} is of batch {version}, the last one was {last}"
                )));
            }
            seen += 1;
        }
        if seen != rows.len()? {
            let (name, told) = (table.as_str(), rows.len()?);
            return Err(corrupt(format!("{name} has {seen} rows and says {told}")));
        }
        counts.push((table.as_str(), seen));
    }
    Ok(counts)
}

/// Copies all rows as they are at `moment`, with their versions, into a new file.
pub(super) fn copy(moment: &ReadTransaction, into: &Database) -> Result<(), Failure> {
    let transaction = into.begin_write()?;
    for table in Table::ALL {
        let mut copied = transaction.open_table(data(table))?;
        for row in moment.open_table(data(table))?.iter()? {
            let (key, bytes) = row?;
            copied.insert(key.value(), bytes.value())?;
        }
    }
    write_facts(&transaction, version(moment)?)?;
    Ok(transaction.commit()?)
}
