//! Any bytes as a safetensors file: an error, or tensors that cover the file without a gap.
#![no_main]

use asr::model::checkpoint::CheckpointFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The bytes as they are, and as a header of the right length with data after it.
    let header_bytes = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let framed = [&(header_bytes as u64).to_le_bytes(), data].concat();
    for bytes in [data.to_vec(), framed] {
        let n = bytes.len();
        if let Ok(file) = CheckpointFile::from_bytes(bytes, "fuzz.safetensors") {
            let mut covered = 0;
            for tensor in file.tensors() {
                covered += tensor.stored().elements() * tensor.element_type().size();
                let values = tensor.stored().values().expect("its bytes are there");
                let integers = tensor.stored().integers().expect("its bytes are there");
                let count = values.map(|(values, _)| values.len()).or(integers.map(|i| i.len()));
                assert_eq!(count, Some(tensor.stored().elements()));
            }
            assert!(covered <= n);
        }
    }
});
