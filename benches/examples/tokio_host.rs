//! The engine in tokio's multi-thread runtime: tasks on several threads share one database.
//!
//! ```text
//! cargo run -p nephrite-benches --example tokio_host -- [DIR]
//! ```
//!
//! Futures of the engine are `Send`, so tasks that await them may move between threads.

mod steps;

use nephrite::{Config, DatabaseOptions, Durability, Store};

use crate::steps::Failure;

const TASKS: u64 = 16;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let place = steps::place()?;
    let store = Store::create(place.path().join("store"), Config::new()).await?;
    steps::run(&store).await?;
    let shared = store.create_database("shared", DatabaseOptions::new(4)).await?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|id| {
            let shared = shared.clone();
            tokio::spawn(async move {
                // Writers that wait at the same time share one sync.
                shared.put_with(id, &[id as f32; 4], Durability::Synced).await?;
                let vector = shared.get(id).await?.ok_or("a stored vector is missing")?;
                if vector[0] != id as f32 {
                    return Err("a vector does not hold what was stored".into());
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("tasks on several threads: {}", shared.count().await?);
    drop(shared);
    store.close().await?;
    println!("closed");
    Ok(())
}
