#![cfg_attr(fuzzing, no_main)]
#![allow(missing_docs)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    lock_fuzz::duration(input);
});

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("run this with fuzz/run");
}
