#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nephrite_tests::fuzzing::pager_ops(data));
