#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    elbus_fuzz::check("server_frames", data);
});
