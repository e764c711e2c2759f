//! The run queue and the wait word against plain models.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sward::fuzzing::park_and_queue(data));
