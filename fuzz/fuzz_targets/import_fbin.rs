#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nephrite_fuzz::run("import_fbin", data));
