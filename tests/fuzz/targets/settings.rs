//! The settings file.

#![no_main]

use quickio::config::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &str| {
    match fuzzing::from_file_text(input) {
        Ok(config) => assert!(!config.listen.is_empty(), "a server has a listener"),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty(), "an error is explained");
        }
    }
});
