//! Random writes, syncs and crashes against a model: every legal image, and no other.

use std::ops::ControlFlow;

use nephrite_io::IoOperation;
use nephrite_io::sim::{Errno, Fault, FaultPlan, Scope, SimOptions, SimRandom};

use super::{Rig, path};

/// Each block of an image holds what it held at the last sync or something written since.
#[test]
fn a_crash_leaves_old_or_newer_blocks_and_nothing_else() {
    for seed in 0..30 {
        let mut random = SimRandom::new(seed);
        let rig = Rig::new(SimOptions::new(seed));
        let mut allowed: Vec<Vec<u8>> = vec![vec![1], vec![1]];
        for byte in 2..20_u8 {
            let block = random.index(2);
            rig.write(block as u64 * 4096, byte, 4096).unwrap();
            allowed[block].push(byte);
            if random.chance(1, 4) {
                rig.sync().unwrap();
                allowed.iter_mut().for_each(|bytes| drop(bytes.drain(..bytes.len() - 1)));
            }
            let scope = Scope::default().torn_writes(0).random(20);
            let crash = rig.disk.crash_state();
            crash.for_each_image(&scope, &mut random.fork(), |fates, image| {
                let bytes = image.file(path()).unwrap();
                if fates.iter().all(|fate| !format!("{fate:?}").starts_with(['P', 'G'])) {
                    for (block, allowed) in bytes.chunks(4096).zip(&allowed) {
                        let known = block.iter().all(|byte| allowed.contains(byte) || *byte == 0);
                        assert!(known, "seed {seed}, {fates:?}");
                    }
                }
                ControlFlow::Continue(())
            });
        }
    }
}

/// Faults that the layer above the system calls must absorb, at rates that strike all the time.
#[test]
fn absorbed_faults_change_no_byte() {
    for seed in 0..20 {
        let rig = Rig::new(SimOptions::new(seed));
        let transfers = [IoOperation::Read, IoOperation::Write];
        let plan = [Fault::Short, Fault::Error(Errno::Interrupted), Fault::Error(Errno::Again)]
            .into_iter()
            .fold(FaultPlan::new(), |plan, fault| plan.rate(fault, &transfers, 200_000));
        rig.disk.set_faults(plan);
        let mut random = SimRandom::new(seed);
        let mut model = vec![1; 8192];
        for byte in 2..60_u8 {
            let first = random.index(4);
            let blocks = 1 + random.index(3);
            let (start, end) = (first * 4096, (first + blocks) * 4096);
            rig.write(start as u64, byte, end - start).unwrap();
            model.resize(model.len().max(end), 0);
            model[start..end].fill(byte);
            assert!(rig.read(0, model.len()).unwrap() == model, "seed {seed}");
        }
        assert!(rig.disk.faults_struck() > 20);
    }
}
