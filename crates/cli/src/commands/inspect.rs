//! `inspect`: what any file of a store holds, from its bytes alone, also when it is damaged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use clap::Args;
use nephrite::inspect::{Detail, Inspected, Part, inspect};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"For a manifest, log segment, segment, trace of page reads or lock file.

Exit code 0: nothing is damaged. Exit code 2: something is, named with its offset.
Exit code 1: not a file of Nephrite.

JSON: {"file","kind","bytes","parts":[{"offset","bytes","what","fields":{},"damage"}]}"#;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct InspectArguments {
    /// A file of a store
    file: PathBuf,
    /// Every page, frame and record as well
    #[arg(long)]
    pages: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    kind: String,
    bytes: u64,
    parts: Vec<PartLine>,
}

#[derive(Serialize)]
struct PartLine {
    offset: u64,
    bytes: u64,
    what: String,
    fields: serde_json::Map<String, serde_json::Value>,
    damage: Option<String>,
}

pub(crate) fn run(arguments: &InspectArguments, context: &mut Context) -> Result<(), Failure> {
    let name = arguments.file.display().to_string();
    let mut file = File::open(&arguments.file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("there is no file {name}")),
        _ => Failure::error(format_args!("{name}: {error}")),
    })?;
    let metadata =
        file.metadata().map_err(|error| Failure::error(format_args!("{name}: {error}")))?;
    if metadata.is_dir() {
        let sentence = format!("{name} is a directory; inspect takes one of the files in a store");
        return Err(Failure::Error(sentence));
    }
    let bytes = metadata.len();
    let detail = if arguments.pages { Detail::Pages } else { Detail::Summary };
    let mut read = |offset, len| read_range(&mut file, offset, len);
    let (is_json, output) = (context.output.json(), &mut context.output);
    let (mut parts, mut printed, mut damaged) = (Vec::new(), Ok(()), 0_u64);
    let kind = inspect(bytes, detail, &mut read, &mut |part| {
        damaged += u64::from(part.damage.is_some());
        if is_json {
            parts.push(PartLine::from(part));
        } else if printed.is_ok() {
            printed = output.line(format_args!("{}", line(&part)));
        }
    });
    printed?;
    let Some(kind) = kind else {
        return Err(Failure::Error(format!(
            "{name} is not a file of Nephrite; it was left as it is"
        )));
    };
    if is_json {
        let kind = kind_name(kind).to_owned();
        output.document(&Report { file: name, kind, bytes, parts })?;
    } else {
        output.remark(format_args!(
            "{name}: {}, {bytes} bytes, {damaged} damaged",
            kind_name(kind)
        ))?;
    }
    if damaged == 0 { Ok(()) } else { Err(Failure::ReportedDamage) }
}

fn kind_name(kind: Inspected) -> &'static str {
    match kind {
        Inspected::Log => "log segment",
        Inspected::Segment => "segment",
        Inspected::Manifest => "manifest",
        Inspected::Trace => "trace of page reads",
        Inspected::Empty => "empty file",
        _ => "file of unknown kind",
    }
}

/// The bytes of a range, as many as can be read.
fn read_range(file: &mut File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(offset)).is_ok() {
        // What cannot be read is missing in the result, which says so.
        let _partial = file.take(len as u64).read_to_end(&mut bytes);
    }
    bytes
}

fn line(part: &Part) -> String {
    use std::fmt::Write;

    let mut line = format!("{:>12}  {}", part.offset, part.what);
    for (name, value) in &part.fields {
        // Writing to a String cannot fail.
        let _ = write!(line, ", {name} {value}");
    }
    if let Some(damage) = &part.damage {
        let _ = write!(line, ": DAMAGED: {damage}");
    }
    line
}

impl From<Part> for PartLine {
    fn from(part: Part) -> Self {
        let Part { offset, bytes, what, fields, damage } = part;
        let fields =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Self { offset, bytes, what, fields, damage }
    }
}
