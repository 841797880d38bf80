//! Any bytes as a clustering of faiss or as labels of either layout: an error or something that
//! keeps its word.
#![no_main]

use asr::pretrain::{Clustering, UnitLabels};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A folder whose files each input replaces.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let dictionary: String = (0..100).map(|unit| format!("{unit} 1\n")).collect();
    std::fs::write(folder.join("dict.km.txt"), dictionary).expect("written");
    folder
});

fn clips(labels: &UnitLabels) {
    assert!(labels.rate_hz() > 0.0);
    for clip in 0..labels.n_clips().min(64) {
        if let Ok(units) = labels.clip(clip) {
            assert!(units.iter().all(|&unit| usize::from(unit) < labels.n_units()));
        }
    }
    assert!(labels.clip(labels.n_clips()).is_err(), "there is no clip after the last");
}

fuzz_target!(|data: &[u8]| {
    let path = |name: &str| FOLDER.join(name);
    std::fs::write(path("a.faiss"), data).expect("the temporary folder is writable");
    if let Ok(clustering) = Clustering::open(&path("a.faiss")) {
        let dim = clustering.dim();
        if dim <= 4096 {
            let frames: Vec<f32> = (0..3 * dim).map(|i| (i as f32 * 0.7).sin()).collect();
            if let Ok(units) = clustering.assign(&frames, dim) {
                assert!(units.iter().all(|&unit| usize::from(unit) < clustering.n_units()));
            }
        }
    }
    std::fs::write(path("a.units"), data).expect("the temporary folder is writable");
    if let Ok(labels) = UnitLabels::open(&path("a.units")) {
        clips(&labels);
    }
    std::fs::write(path("a.km"), data).expect("the temporary folder is writable");
    if let Ok(labels) = UnitLabels::open_fairseq(&path("a.km"), 50.0) {
        clips(&labels);
    }
});
