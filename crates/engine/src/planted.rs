//! Bugs that can be planted in the engine, to show that the simulation finds them: the same switch
//! as in the I/O layer, with names of their own. `crates/simulation/planted.sh` lists them and
//! fails if one is not caught.

pub(crate) use nephrite_io::planted::planted;
