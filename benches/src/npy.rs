//! A reader of what `import --npy` needs: little-endian f32, two axes, C order.
//!
//! Not a general reader; the command line program has one. Files it cannot read are refused.

use std::{fs, path::Path};

use crate::{
    Outcome,
    rows::{RowIds, Rows},
};

/// The rows of a `.npy` file under the ids in the lines of a text file.
pub(crate) fn read(vectors: &Path, ids: &Path) -> Outcome<Rows> {
    let (dimension, vectors) = read_vectors(vectors)?;
    let text = fs::read(ids)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let ids: Vec<Box<[u8]>> = lines.map(Into::into).collect();
    let rows = Rows { dimension, vectors, ids: RowIds::Bytes(ids) };
    match &rows.ids {
        RowIds::Bytes(ids) if ids.len() == rows.len() => Ok(rows),
        _ => Err(format!("{} rows do not have one id each", rows.len()).into()),
    }
}

fn read_vectors(path: &Path) -> Outcome<(u32, Vec<f32>)> {
    let bytes = fs::read(path)?;
    let refuse = |what: &str| Err(format!("{}: {what}", path.display()).into());
    let Some(rest) = bytes.strip_prefix(b"\x93NUMPY\x01\x00") else {
        return refuse("not a NumPy file of format 1.0");
    };
    let Some((length, rest)) = rest.split_first_chunk::<2>() else {
        return refuse("it ends within its header");
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let Some((header, data)) = rest.split_at_checked(length) else {
        return refuse("it ends within its header");
    };
    let header = String::from_utf8_lossy(header);
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return refuse("only little-endian f32 in C order is read");
    }
    let Some((rows, dimension)) = shape(&header) else { return refuse("it has no two axes") };
    let (values, _) = data.as_chunks::<4>();
    let vectors: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    if rows.checked_mul(dimension as usize) != Some(vectors.len()) {
        return refuse("its size does not fit its shape");
    }
    Ok((dimension, vectors))
}

/// Rows and columns.
fn shape(header: &str) -> Option<(usize, u32)> {
    let (_, after) = header.split_once("'shape': (")?;
    let (axes, _) = after.split_once(')')?;
    let (rows, columns) = axes.split_once(',')?;
    Some((rows.trim().parse().ok()?, columns.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_two_axes_are_read() {
        assert_eq!(shape("{'shape': (20000, 384), }"), Some((20000, 384)));
        assert_eq!(shape("{'shape': (20000,), }"), None);
    }
}
