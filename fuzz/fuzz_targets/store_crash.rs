#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nephrite_tests::fuzzing::store_crash(data));
