//! Any bytes as a zip archive: an error or tensors that can be read.
#![no_main]

use asr::model::checkpoint::CheckpointFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = [b"PK\x03\x04".as_slice(), data].concat();
    if let Ok(file) = CheckpointFile::from_bytes(bytes, "fuzz") {
        for tensor in file.tensors() {
            let _ = file.values(tensor.name());
            let _ = tensor.stored().integers();
        }
    }
});
