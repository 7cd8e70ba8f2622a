//! Vectors as JSON lines: `{"id":7,"vector":[0.5,-1.0]}`.
//!
//! Ids: a number in databases with u64 ids, a string in databases with byte ids; byte ids that are
//! not UTF-8 are written as `{"hex":"ff00"}`.
//!
//! Values round-trip bit for bit: finite ones are written with the fewest digits that lead back to
//! the same f32, and read with a single rounding. JSON has no other numbers, so infinities are
//! the strings `"Infinity"` and `"-Infinity"`, the usual NaN (bits 7fc00000) is `"NaN"`, and any
//! other NaN is its bits in hexadecimal, such as `"0x7fa00001"`. Bits in hexadecimal are accepted
//! for every value.
//!
//! Checked by: the tests below, over special values and random bit patterns.

use std::borrow::Cow;

use nephrite::{Id, IdKind, IdRef, MAX_ID_BYTES};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::vectors::parse_number;

/// Bits of the NaN that is written as `"NaN"`.
const PLAIN_NAN_BITS: u32 = 0x7fc0_0000;

/// One line as it is read; the parts are looked at one by one, to name what is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    vector: Vec<&'a RawValue>,
}

/// An id that is not UTF-8.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HexId<'a> {
    #[serde(borrow)]
    hex: Cow<'a, str>,
}

/// Reads one line; the values replace those in `vector`.
///
/// # Errors
/// What is wrong with the line, without its number.
pub(crate) fn read_line(
    line: &[u8],
    kind: IdKind,
    dimension: u32,
    vector: &mut Vec<f32>,
) -> Result<Id, String> {
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(|error| json_fault(&error))?;
    let id = read_id(parsed.id.get(), kind)?;
    if parsed.vector.len() != dimension as usize {
        let found = parsed.vector.len();
        return Err(format!("the vector has {found} values, the database stores {dimension}"));
    }
    vector.clear();
    for (index, text) in parsed.vector.iter().enumerate() {
        let value = read_value(text.get()).map_err(|what| format!("value {index}: {what}"))?;
        vector.push(value);
    }
    Ok(id)
}

/// Appends one line with its end.
pub(crate) fn write_line(id: IdRef<'_>, vector: &[f32], line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"id\":");
    line.extend_from_slice(id_json(id).get().as_bytes());
    line.extend_from_slice(b",\"vector\":[");
    for (index, value) in vector.iter().enumerate() {
        if index != 0 {
            line.push(b',');
        }
        write_value(*value, line);
    }
    line.extend_from_slice(b"]}\n");
}

/// An id as JSON: a number, a string, or `{"hex":...}`.
pub(crate) fn id_json(id: IdRef<'_>) -> Box<RawValue> {
    const INFALLIBLE: &str = "numbers and strings always serialize";
    match id {
        IdRef::U64(number) => serde_json::value::to_raw_value(&number).expect(INFALLIBLE),
        IdRef::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::value::to_raw_value(text).expect(INFALLIBLE),
            Err(_) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serde_json::value::to_raw_value(&HexId { hex: hex.into() }).expect(INFALLIBLE)
            }
        },
    }
}

/// An id as a word of the command line.
///
/// # Errors
/// Why it cannot be an id of this kind.
pub(crate) fn id_from_word(word: &std::ffi::OsStr, kind: IdKind) -> Result<Id, String> {
    let bytes = word.as_encoded_bytes();
    match kind {
        IdKind::U64 => parse_number(bytes).map(Id::U64),
        IdKind::Bytes => byte_id(bytes),
    }
}

fn byte_id(bytes: &[u8]) -> Result<Id, String> {
    if bytes.is_empty() || MAX_ID_BYTES < bytes.len() {
        let found = bytes.len();
        return Err(format!("the id has {found} bytes, where 1 to {MAX_ID_BYTES} are possible"));
    }
    Ok(Id::Bytes(bytes.into()))
}

fn read_id(text: &str, kind: IdKind) -> Result<Id, String> {
    match (kind, text.as_bytes().first()) {
        (IdKind::U64, Some(b'0'..=b'9')) => parse_number(text.as_bytes()).map(Id::U64),
        (IdKind::U64, _) => {
            Err(format!("id {text}: the database has u64 ids, so a number is needed"))
        }
        (IdKind::Bytes, Some(b'"')) => {
            let text: Cow<'_, str> =
                serde_json::from_str(text).map_err(|error| json_fault(&error))?;
            byte_id(text.as_bytes())
        }
        (IdKind::Bytes, Some(b'{')) => {
            let id: HexId<'_> = serde_json::from_str(text).map_err(|error| json_fault(&error))?;
            byte_id(&read_hex(&id.hex)?)
        }
        (IdKind::Bytes, _) => {
            Err(format!("id {text}: the database has byte ids, so a string is needed"))
        }
    }
}

fn read_hex(text: &str) -> Result<Vec<u8>, String> {
    let fault = || format!("\"{}\" is not pairs of hexadecimal digits", text.escape_debug());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return Err(fault());
    };
    pairs
        .iter()
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(pair[0])? * 16 + digit(pair[1])?;
            u8::try_from(value).ok()
        })
        .collect::<Option<_>>()
        .ok_or_else(fault)
}

fn read_value(text: &str) -> Result<f32, String> {
    match text.as_bytes().first() {
        // The text is a JSON number already; parsing it as f32 rounds once.
        Some(b'-' | b'0'..=b'9') => match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("{text} is outside the range of f32")),
        },
        Some(b'"') => read_special(text.trim_matches('"')),
        _ => Err(format!("{text} is neither a number nor the name of one")),
    }
}

fn read_special(text: &str) -> Result<f32, String> {
    match text {
        "NaN" => Ok(f32::from_bits(PLAIN_NAN_BITS)),
        "Infinity" => Ok(f32::INFINITY),
        "-Infinity" => Ok(f32::NEG_INFINITY),
        _ => text
            .strip_prefix("0x")
            .filter(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(f32::from_bits)
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is not one of \"NaN\", \"Infinity\", \"-Infinity\" and bits such \
                     as \"0x7fc00000\""
                )
            }),
    }
}

fn write_value(value: f32, line: &mut Vec<u8>) {
    if value.is_finite() {
        serde_json::to_writer(line, &value).expect("a finite number fits memory and JSON");
    } else if value.to_bits() == PLAIN_NAN_BITS {
        line.extend_from_slice(b"\"NaN\"");
    } else if value.is_nan() {
        line.extend_from_slice(format!("\"{:#010x}\"", value.to_bits()).as_bytes());
    } else if 0.0 < value {
        line.extend_from_slice(b"\"Infinity\"");
    } else {
        line.extend_from_slice(b"\"-Infinity\"");
    }
}

/// What serde_json says, with the column but without its line number, which is always 1 here.
fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::{mix, same_bits};

    fn read(line: &str, kind: IdKind, dimension: u32) -> Result<(Id, Vec<f32>), String> {
        let mut vector = vec![9.0; 3];
        read_line(line.as_bytes(), kind, dimension, &mut vector).map(|id| (id, vector))
    }

    #[test]
    fn lines_are_read_for_both_kinds_of_ids() {
        let (id, vector) =
            read(r#"{"id":18446744073709551615,"vector":[1,-2.5e0]}"#, IdKind::U64, 2).unwrap();
        assert_eq!((id, vector), (Id::U64(u64::MAX), vec![1.0, -2.5]));
        let (id, _) =
            read(" {\"vector\" : [ ] , \"id\" : \"a\\u00e9\\n\"} \r\n", IdKind::Bytes, 0).unwrap();
        assert_eq!(id, Id::Bytes("aé\n".as_bytes().into()));
        let (id, _) = read(r#"{"id":{"hex":"fF00"},"vector":[]}"#, IdKind::Bytes, 0).unwrap();
        assert_eq!(id, Id::Bytes([0xff, 0].into()));
    }

    #[test]
    fn every_bit_pattern_round_trips() {
        let special = [0, 0x8000_0000, 1, 0x8000_0001, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000];
        let nans = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff];
        let random = (0..20_000).map(|seed| u32::try_from(mix(seed) >> 32).unwrap());
        let vector: Vec<f32> =
            special.into_iter().chain(nans).chain(random).map(f32::from_bits).collect();
        let mut line = Vec::new();
        write_line(IdRef::U64(1), &vector, &mut line);
        let dimension = u32::try_from(vector.len()).unwrap();
        let (_, back) = read(std::str::from_utf8(&line).unwrap(), IdKind::U64, dimension).unwrap();
        assert!(same_bits(&vector, &back));
    }

    #[test]
    fn numbers_are_rounded_once() {
        // Just above the middle of two f32; rounding to f64 first would lose the last digits.
        let line = r#"{"id":1,"vector":[1.00000005960464477540]}"#;
        let (_, vector) = read(line, IdKind::U64, 1).unwrap();
        assert_eq!(vector[0].to_bits(), 0x3f80_0001);
    }

    #[test]
    fn ids_round_trip_as_json() {
        for bytes in [&b"plain"[..], b"quo\"te\\", "\u{1f600}\n".as_bytes(), b"\xff\x00", b"\0"] {
            let json = id_json(IdRef::Bytes(bytes));
            assert_eq!(read_id(json.get(), IdKind::Bytes), Ok(Id::Bytes(bytes.into())));
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let cases = [
            (r#"{"id":1,"vector":[1,2,3]}"#, "3 values"),
            (r#"{"id":"1","vector":[1,2]}"#, "number is needed"),
            (r#"{"id":-1,"vector":[1,2]}"#, "number is needed"),
            (r#"{"id":1.0,"vector":[1,2]}"#, "whole number"),
            (r#"{"id":18446744073709551616,"vector":[1,2]}"#, "largest u64"),
            (r#"{"id":1,"vector":[1,1e39]}"#, "value 1: 1e39 is outside"),
            (r#"{"id":1,"vector":[1,"nan"]}"#, "not one of"),
            (r#"{"id":1,"vector":[1,"0x7fc0000"]}"#, "not one of"),
            (r#"{"id":1,"vector":[1,"0x+fc00000"]}"#, "not one of"),
            (r#"{"id":1,"vector":[null,2]}"#, "neither a number"),
            (r#"{"id":1,"vector":[[1],2]}"#, "neither a number"),
            (r#"{"id":1,"vector":[NaN,2]}"#, "column"),
            (r#"{"id":1}"#, "missing field `vector`"),
            (r#"{"id":1,"vector":[1,2],"x":3}"#, "unknown field `x`"),
            (r#"{"id":1,"vector":[1,2]} {}"#, "trailing"),
            (r#"[1,2]"#, "column"),
            ("", "column 0"),
            ("\u{0}", "column 1"),
        ];
        for (line, part) in cases {
            let fault = read(line, IdKind::U64, 2).unwrap_err();
            assert!(fault.contains(part), "{line}: {fault}");
            assert!(!fault.contains("line 1"), "{fault}");
        }
    }

    #[test]
    fn bad_byte_ids_say_what_is_wrong() {
        let long = format!(r#"{{"id":"{}","vector":[]}}"#, "x".repeat(256));
        for (line, part) in [
            (r#"{"id":1,"vector":[]}"#, "string is needed"),
            (r#"{"id":"","vector":[]}"#, "0 bytes"),
            (r#"{"id":{"hex":"f"},"vector":[]}"#, "pairs of hexadecimal"),
            (r#"{"id":{"hex":"+f"},"vector":[]}"#, "pairs of hexadecimal"),
            (r#"{"id":{"hex":""},"vector":[]}"#, "0 bytes"),
            (&long, "256 bytes"),
        ] {
            let fault = read(line, IdKind::Bytes, 0).unwrap_err();
            assert!(fault.contains(part), "{line}: {fault}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let line = format!(r#"{{"id":1,"vector":[{}"#, "[".repeat(1_000_000));
        assert!(read(&line, IdKind::U64, 1).is_err());
        let closed =
            format!(r#"{{"id":{}{},"vector":[]}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&closed, IdKind::U64, 0).is_err());
    }

    #[test]
    fn words_become_ids_of_the_kind() {
        assert_eq!(id_from_word("42".as_ref(), IdKind::U64), Ok(Id::U64(42)));
        assert_eq!(id_from_word("42".as_ref(), IdKind::Bytes), Ok(Id::Bytes(b"42"[..].into())));
        assert!(id_from_word("x".as_ref(), IdKind::U64).is_err());
        assert!(id_from_word("".as_ref(), IdKind::Bytes).is_err());
    }
}
