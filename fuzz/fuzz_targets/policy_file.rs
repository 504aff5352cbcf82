//! Any file is a policy or an error with its place; never a panic, never a stall.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outgate::policy::file::PolicyFile;

fuzz_target!(|text: &str| {
    match PolicyFile::parse(text) {
        Ok(file) => {
            for rule in &file.rules {
                assert!(!rule.hosts().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
