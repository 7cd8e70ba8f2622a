#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nephrite_tests::fuzzing::open_store(data));
