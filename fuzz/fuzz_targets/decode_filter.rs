#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nephrite_format::fuzzing::decode_filter(data));
