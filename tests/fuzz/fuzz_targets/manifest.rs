//! Any bytes as a manifest or a dev list: an error or clips that make sense, within bounded memory.
#![no_main]

use asr::data::{Clip, DevList, Transcript, read_manifest};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A file that each input replaces.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    folder.join("manifest.tsv")
});

fn check(clip: &Clip) {
    assert!(!clip.name.is_empty());
    assert_eq!(clip.path, FILE.with_file_name(&clip.name));
    assert!(clip.duration_s.is_finite() && clip.duration_s >= 0.0);
    assert!(clip.language.is_some() || clip.transcript == Transcript::Silence);
    for word in [&clip.speaker, &clip.dataset] {
        assert!(word.as_ref().is_none_or(|word| !word.is_empty() && word != "-"));
    }
    if let Transcript::Text(text) = &clip.transcript {
        assert!(!text.is_empty() && text != "-" && text != "<silence>");
    }
}

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("the temporary folder is writable");
    if let Ok(clips) = read_manifest(&FILE) {
        // Each clip has a line of its own.
        assert!(clips.len() < data.len().max(1));
        clips.iter().for_each(check);
        let names: HashSet<&str> = clips.iter().map(|clip| clip.name.as_str()).collect();
        assert_eq!(names.len(), clips.len());
    }
    if let Ok(list) = DevList::read(&FILE) {
        for name in String::from_utf8_lossy(data).split(['\t', '\n']) {
            let _ = list.condition(name);
        }
    }
});
