//! A target that parses has one form: shown and parsed again it is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outgate::target::Target;

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::from_authority(text) {
        assert_eq!(Target::from_authority(&target.to_string()).as_ref(), Ok(&target));
    }
    if let Ok(target) = Target::from_absolute("http", text) {
        assert_eq!(Target::from_authority(&target.to_string()).as_ref(), Ok(&target));
    }
});
