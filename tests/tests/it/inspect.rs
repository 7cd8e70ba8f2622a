//! Inspection of real files under any change: no panic, and whole files show no damage.

use nephrite::inspect::{Detail, Inspected, inspect};
use nephrite_tests::{Scale, directories::store_files};

use super::damage::Patient;

fn damaged_parts(content: &[u8], detail: Detail) -> (Option<Inspected>, u64) {
    let mut damaged = 0;
    let mut read = |offset: u64, len: usize| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        content[start..content.len().min(start.saturating_add(len))].to_vec()
    };
    let bytes = content.len() as u64;
    let kind = inspect(bytes, detail, &mut read, &mut |part| {
        damaged += u64::from(part.damage.is_some());
    });
    (kind, damaged)
}

#[test]
fn every_file_of_a_store_is_shown_and_no_change_makes_it_panic() {
    let rounds = Scale::from_environment().pick(150, 3000);
    for patient in [Patient::closed(), Patient::crashed()] {
        for file in store_files(&patient.path()).unwrap() {
            let content = std::fs::read(&file.path).unwrap();
            // Rows of a bulk load that is not sealed yet have no header page.
            if content[..8].iter().all(|byte| *byte == 0) {
                continue;
            }
            let (kind, damaged) = damaged_parts(&content, Detail::Pages);
            assert!(kind.is_some() && damaged == 0, "{}: {kind:?}, {damaged}", file.name);
            let len = content.len().min(120_000);
            for round in 0..rounds {
                let at = round * 7919 % len;
                let mut changed = content[..len].to_vec();
                changed[at] ^= 1 << (round % 8);
                damaged_parts(&changed, Detail::Pages);
                damaged_parts(&content[..at], Detail::Pages);
            }
        }
    }
}
