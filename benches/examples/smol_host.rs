//! The engine under smol's executor and under pollster's `block_on`: no runtime at all is needed.
//!
//! ```text
//! cargo run -p nephrite-benches --example smol_host -- [DIR]
//! ```

mod steps;

use nephrite::{Config, Store};

use crate::steps::Failure;

fn main() -> Result<(), Failure> {
    let place = steps::place()?;
    let path = place.path().join("store");
    let store = smol::block_on(async {
        let store = Store::create(&path, Config::new()).await?;
        steps::run(&store).await?;
        Ok::<_, Failure>(store)
    })?;
    // The same store from an executor that knows nothing of the first.
    let database = pollster::block_on(store.database("vectors"))?;
    println!("under pollster: {} vectors", pollster::block_on(database.count())?);
    drop(database);
    pollster::block_on(store.close())?;
    println!("closed");
    Ok(())
}
