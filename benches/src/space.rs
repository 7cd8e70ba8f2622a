//! `space`: bytes on disk after compaction, as a multiple of the vectors' own bytes.
//!
//! For each dimension two databases are loaded in random order of the ids, compacted and closed:
//! one with the default page size, one with the page size that wastes least, the smaller of equals
//! ("dense"). Counted is all below the store's directory as the file system counts it, with log,
//! manifest and ids; and segments alone, since the log's files do not grow with the data. Nothing
//! here depends on time, so one round says everything.

use clap::Args;
use nephrite::{DatabaseOptions, blocking::Store};

use crate::{
    Outcome,
    place::{Place, disk_bytes},
    report::Figure,
    rows::{IdForm, Rows},
};

#[derive(Debug, Args)]
pub(crate) struct SpaceArguments {
    /// Values per vector
    #[arg(long, value_delimiter = ',', default_value = "128,256,384,768,1024,1536")]
    dims: Vec<u32>,
    /// Bytes of vectors in each store, MiB
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Ids of the vectors
    #[arg(long, value_enum, default_value_t = IdForm::Shuffled)]
    ids_form: IdForm,
}

/// Page sizes that a database may have.
const PAGE_BYTES_STEP: u32 = 4096;
const PAGE_BYTES_MAX: u32 = 65_536;
/// Memory of the stores.
const MEMORY_BYTES: u64 = 256 << 20;

pub(crate) fn run(place: &Place, arguments: &SpaceArguments) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for &dimension in &arguments.dims {
        let count = (arguments.size << 20) / (u64::from(dimension) * 4);
        let rows = Rows::generate(usize::try_from(count)?, dimension, arguments.ids_form);
        for (name, page_bytes) in [("default", None), ("dense", Some(densest(dimension)))] {
            let mut options = DatabaseOptions::new(dimension).id_kind(arguments.ids_form.kind());
            if let Some(bytes) = page_bytes {
                options = options.page_bytes(bytes);
            }
            let space = measure(place, &rows, options)?;
            let name = format!("{dimension} dimensions, {name}: pages of {}", space.page_bytes);
            for (part, ratio) in [("", space.whole), (", segments alone", space.segments)] {
                let mut figure = Figure::new(format!("{name}{part}"), "x vectors");
                figure.push(ratio);
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// The space of one store, as a multiple of the vectors.
struct Space {
    page_bytes: u32,
    /// Everything below its directory.
    whole: f64,
    segments: f64,
}

fn measure(place: &Place, rows: &Rows, options: DatabaseOptions) -> Outcome<Space> {
    let store: Store = place.fresh_store("store", MEMORY_BYTES)?;
    let database = store.create_database("vectors", options)?;
    rows.put_into(&database, 1000)?;
    store.flush()?;
    store.compact()?;
    let stats = database.stats()?;
    drop(database);
    store.close()?;
    let bytes = disk_bytes(&place.join("store"))?;
    place.remove("store")?;
    let ratio = |bytes: u64| bytes as f64 / rows.bytes() as f64;
    Ok(Space {
        page_bytes: stats.page_bytes,
        whole: ratio(bytes),
        segments: ratio(stats.segment_bytes),
    })
}

/// The page size that wastes the smallest share of a page.
fn densest(dimension: u32) -> u32 {
    let vector = dimension * 4;
    let sizes = (PAGE_BYTES_STEP..=PAGE_BYTES_MAX).step_by(PAGE_BYTES_STEP as usize);
    let waste = |page: u32| f64::from(page % vector) / f64::from(page);
    let fitting = sizes.filter(|page| vector <= *page);
    fitting.min_by(|one, other| waste(*one).total_cmp(&waste(*other))).unwrap_or(PAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_densest_page_is_the_smallest_of_those_without_waste() {
        assert_eq!((densest(128), densest(768), densest(1024)), (4096, 12_288, 4096));
        assert_eq!(densest(1536), 12_288);
    }
}
