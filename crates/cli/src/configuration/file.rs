//! Reading a TOML file of options, with the line of each.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::failure::Failure;

/// Largest configuration file; ours has a few hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One line of a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileValue {
    pub(crate) name: String,
    /// As it would stand in a variable.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// The options of a file, in the order of the file.
pub(crate) fn read(path: &Path) -> Result<Vec<FileValue>, Failure> {
    let fail = |what: String| Failure::Usage(format!("configuration {}: {what}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if FILE_BYTES_MAX < bytes {
        return Err(fail(format!("{bytes} bytes are more than {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    parse(&text).map_err(fail)
}

fn parse(text: &str) -> Result<Vec<FileValue>, String> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        format!("line {line}: {}", error.message())
    })?;
    let mut values = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        let name = key.get_ref().to_string();
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            _ => {
                return Err(format!(
                    "line {line}: {name} is neither a text nor a whole number; options stand at \
                     the top, without tables"
                ));
            }
        };
        values.push(FileValue { name, text, line });
    }
    values.sort_by_key(|value| value.line);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_with_their_lines() {
        let values = parse("# ours\nmemory_limit = \"1GiB\"\n\nmax_open_files = 64\n").unwrap();
        let expected = [("memory_limit", "1GiB", 2), ("max_open_files", "64", 4)];
        let found: Vec<_> =
            values.iter().map(|value| (&*value.name, &*value.text, value.line)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, hint) in [
            ("memory_limit = \n", "line 1"),
            ("backend = \"auto\"\nmax_open_files = [1]\n", "line 2: max_open_files"),
            ("[store]\nbackend = \"auto\"\n", "store"),
            ("backend = \"auto\"\nbackend = \"auto\"\n", "line 2"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
