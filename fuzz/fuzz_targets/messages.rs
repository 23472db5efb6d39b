#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| abide::testing::fuzzing::messages(input));
