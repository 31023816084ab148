//! The data set: cities of the world; `data/README.md` says where they come from.

use std::io::Cursor;

use serde_json::Value;

use crate::exit::{Failure, Result};
use crate::input::{CsvColumns, Input, InputError, InputFormat, InputOptions, Record};

/// Compressed `key TAB value` lines.
const CITIES: &[u8] = include_bytes!("../../../data/cities.tsv.gz");

/// One city.
pub(super) struct City {
    /// `country/city/geonameid`.
    pub(super) key: String,
    /// JSON with name, population, coordinates and time zone.
    pub(super) value: String,
    /// Its population, out of the value.
    pub(super) population: u64,
}

impl City {
    /// Where it stands in the index: `country/population/geonameid`, the population with leading zeros, so that
    /// the order of the keys is that of the numbers.
    pub(super) fn index_key(&self) -> String {
        let country = self.key.split('/').next().unwrap_or_default();
        let id = self.key.rsplit('/').next().unwrap_or_default();
        format!("{country}/{:010}/{id}", self.population)
    }
}

/// All cities, in the order of their keys.
pub(super) fn cities() -> Result<Vec<City>> {
    let options =
        InputOptions { format: None, escapes: true, columns: CsvColumns::default(), line_bytes_max: 1 << 16 };
    let damaged = |what: String| Failure::Corruption(format!("the built-in data set: {what}"));
    let mut input = Input::new(Cursor::new(CITIES), None, InputFormat::Text, &options)
        .map_err(|error| damaged(error.to_string()))?;
    let mut cities = Vec::new();
    let mut record = Record::default();
    loop {
        match input.read(&mut record) {
            Ok(false) => return Ok(cities),
            Ok(true) => {
                let city =
                    parse(&record).ok_or_else(|| damaged(format!("line {} is not a city", input.line())))?;
                cities.push(city);
            }
            Err(InputError::Malformed { line, reason } | InputError::Header { line, reason }) => {
                return Err(damaged(format!("line {line}: {reason}")));
            }
            Err(InputError::Read(error)) => return Err(damaged(error.to_string())),
        }
    }
}

fn parse(record: &Record) -> Option<City> {
    let key = String::from_utf8(record.key.clone()).ok()?;
    let value = String::from_utf8(record.value.clone()).ok()?;
    let population = serde_json::from_str::<Value>(&value).ok()?.get("population")?.as_u64()?;
    Some(City { key, value, population })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_large_sorted_and_whole() {
        let cities = cities().unwrap();
        assert_eq!(cities.len(), 34_006);
        assert!(cities.is_sorted_by(|a, b| a.key < b.key));
        let reykjavik = cities.iter().find(|city| city.key == "Iceland/Reykjavík/3413829").unwrap();
        assert_eq!(reykjavik.population, 118_918);
        assert_eq!(reykjavik.index_key(), "Iceland/0000118918/3413829");
    }
}
