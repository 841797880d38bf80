//! Any bytes as the pickle of a torch file, in both layouts: an error or tensors that can be read.
#![no_main]

use asr::model::checkpoint::CheckpointFile;
use libfuzzer_sys::fuzz_target;

/// The magic number, the protocol and the facts of the system that stand before the object.
const LEGACY: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\0\0\0little_endian\x88s.";

fuzz_target!(|data: &[u8]| {
    for bytes in [data.to_vec(), [LEGACY, data].concat()] {
        if let Ok(file) = CheckpointFile::from_bytes(bytes, "fuzz") {
            for tensor in file.tensors() {
                let _ = file.values(tensor.name());
                let _ = tensor.stored().integers();
            }
        }
    }
});
