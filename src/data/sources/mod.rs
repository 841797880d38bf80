//! Lists of speech as others keep them: folders, tables, Kaldi and ESPnet directories, fairseq
//! manifests.

mod fairseq;
mod kaldi;
mod table;

use super::DataError;
use super::manifest::read_text;
use crate::audio::audio_files;
use crate::text::Language;
use std::path::{Path, PathBuf};

/// A clip as a source tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceClip {
    /// The recording.
    pub path: PathBuf,
    /// Its name in the source, for messages and for the files that parts are cut to.
    pub name: String,
    /// Begin and end within the recording, seconds; `None` for the whole of it.
    pub part: Option<(f64, f64)>,
    /// Language spoken, if the source tells.
    pub language: Option<Language>,
    /// Where the clip comes from.
    pub dataset: Option<String>,
    /// Speaker, if the source tells.
    pub speaker: Option<String>,
    /// Length in seconds, if the source tells.
    pub duration_s: Option<f64>,
    /// What is said, if the source tells.
    pub text: Option<String>,
}

/// What a source leaves open.
#[derive(Debug, Clone, Default)]
pub struct SourceDefaults {
    /// Language of clips whose language the source does not tell.
    pub language: Option<Language>,
    /// Name of the data set where the source gives none; otherwise that of the source.
    pub dataset: Option<String>,
}

/// Reads a source.
///
/// | source | is | language |
/// |---|---|---|
/// | folder with `wav.scp` | Kaldi or ESPnet; `segments`, `text`, `utt2spk`, `utt2lang`, `utt2dur`, `reco2dur` if there | `utt2lang`, or `[lang]` before the text |
/// | other folder | every audio file in it and its folders | the first folder whose name is a language |
/// | table with a header | columns `path`, and `language`, `dataset`, `speaker`, `duration_s`, `text` or what Common Voice calls them | its column |
/// | fairseq `.tsv` | root in the first line, then name and number of samples, and language and data set as mHuBERT has them; `.wrd` or `.ltr` beside | its column |
///
/// # Errors
/// [`DataError`] naming file and line.
pub fn read_source(path: &Path, defaults: &SourceDefaults) -> Result<Vec<SourceClip>, DataError> {
    let mut clips = if path.is_dir() {
        if path.join("wav.scp").is_file() { kaldi::read(path)? } else { folder(path)? }
    } else {
        let text = read_text(path)?;
        match text.lines().next() {
            Some(header) if header.contains('\t') => table::read(&text, path)?,
            Some(_) => fairseq::read(&text, path)?,
            None => Vec::new(),
        }
    };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    for clip in &mut clips {
        clip.language = clip.language.or(defaults.language);
        let dataset = || defaults.dataset.clone().or_else(|| stem.clone());
        clip.dataset = clip.dataset.take().or_else(dataset);
    }
    if let Some(clip) = clips.iter().find(|clip| clip.language.is_none()) {
        return Err(DataError::NoLanguage {
            source_path: path.to_owned(),
            clip: clip.name.clone(),
        });
    }
    Ok(clips)
}

/// A value that makes no sense, with its place.
fn fault(
    path: &Path,
    line: usize,
    field: &'static str,
    value: &str,
    expected: &'static str,
) -> DataError {
    let value = value.chars().take(64).collect();
    DataError::Field { path: path.to_owned(), line, field, value, expected }
}

fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0)
}

fn folder(path: &Path) -> Result<Vec<SourceClip>, DataError> {
    let list = |source| DataError::List { path: path.to_owned(), source };
    let files = audio_files(path, true).map_err(list)?;
    let clip = |file: PathBuf| {
        let relative = file.strip_prefix(path).unwrap_or(&file);
        let folders = relative.parent().into_iter().flat_map(Path::components);
        let language = folders
            .filter_map(|folder| folder.as_os_str().to_str())
            .find_map(|folder| folder.parse::<Language>().ok());
        let name = relative.display().to_string();
        SourceClip {
            path: file,
            name,
            part: None,
            language,
            dataset: None,
            speaker: None,
            duration_s: None,
            text: None,
        }
    };
    Ok(files.into_iter().map(clip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn read(path: &Path) -> Result<Vec<SourceClip>, DataError> {
        read_source(path, &SourceDefaults::default())
    }

    fn language(clip: &SourceClip) -> String {
        clip.language.map(|language| language.to_string()).unwrap_or_default()
    }

    #[test]
    fn folders_are_named_after_languages() {
        let folder = tempfile::tempdir().expect("a folder");
        let corpus = folder.path().join("corpus");
        write(&corpus, "swa/speaker/a.wav", "");
        write(&corpus, "de/b.mp3", "");
        write(&corpus, "de/notes.txt", "");
        let clips = read(&corpus).expect("two files");
        assert_eq!(clips.iter().map(language).collect::<Vec<_>>(), ["deu", "swa"]);
        assert_eq!(clips[1].name, "swa/speaker/a.wav");
        assert_eq!(clips[0].dataset.as_deref(), Some("corpus"));
        write(&corpus, "c.wav", "");
        let error = read(&corpus).expect_err("whose language?").to_string();
        assert!(error.ends_with("does not tell the language of `c.wav`"), "{error}");
        let defaults = SourceDefaults { language: "fra".parse().ok(), dataset: Some("x".into()) };
        let clips = read_source(&corpus, &defaults).expect("French otherwise");
        assert_eq!(clips.iter().map(language).collect::<Vec<_>>(), ["fra", "deu", "swa"]);
        assert_eq!(clips[0].dataset.as_deref(), Some("x"));
    }

    #[test]
    fn kaldi_directories_with_and_without_segments() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        write(at, "wav.scp", "u1 a.wav\nu2 /data/b c.wav\n");
        write(at, "text", "u1 [eng] hello there\nu2 guten tag\n");
        write(at, "utt2lang", "u2 deu\n");
        write(at, "utt2spk", "u1 s1\nu2 s2\n");
        write(at, "utt2dur", "u1 1.5\n");
        let clips = read(at).expect("sound");
        let texts: Vec<_> = clips.iter().map(|clip| clip.text.as_deref()).collect();
        assert_eq!(texts, [Some("hello there"), Some("guten tag")]);
        assert_eq!(clips.iter().map(language).collect::<Vec<_>>(), ["eng", "deu"]);
        assert_eq!(clips[1].path, Path::new("/data/b c.wav"));
        assert_eq!((clips[0].speaker.as_deref(), clips[0].duration_s), (Some("s1"), Some(1.5)));
        write(at, "segments", "s-1 u1 0.5 2.25\n");
        write(at, "text", "s-1 [eng] hello\n");
        let clips = read(at).expect("sound");
        assert_eq!(clips.len(), 1);
        assert_eq!((clips[0].part, clips[0].duration_s), (Some((0.5, 2.25)), Some(1.75)));
        for (name, text, want) in [
            ("segments", "s-1 u1 2.25 0.5\n", "segments`, line 1"),
            ("segments", "s-1 u9 0.5 1\n", "segments`, line 1: recording `u9`"),
            ("wav.scp", "u1 sox a.wav -t wav - |\n", "wav.scp`, line 1: path"),
            ("wav.scp", "u1 a.wav\nu1 b.wav\n", "line 2: `u1` is listed twice"),
        ] {
            write(at, name, text);
            let error = read(at).expect_err(text).to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn tables_may_name_their_columns_as_common_voice_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        write(at, "clips/a.mp3", "");
        write(
            at,
            "validated.tsv",
            "client_id\tpath\tsentence\tlocale\nme\ta.mp3\tHabari \u{ff01}\tsw\n",
        );
        let clips = read(&at.join("validated.tsv")).expect("sound");
        assert_eq!(clips[0].path, at.join("clips/a.mp3"));
        assert_eq!((language(&clips[0]), clips[0].speaker.as_deref()), ("swa".into(), Some("me")));
        assert_eq!(clips[0].dataset.as_deref(), Some("validated"));
        write(at, "bad.tsv", "path\tlanguage\na.mp3\tqqqq\n");
        assert!(matches!(read(&at.join("bad.tsv")), Err(DataError::Language { line: 2, .. })));
        write(at, "none.tsv", "sound\tlanguage\na.mp3\teng\n");
        assert!(matches!(read(&at.join("none.tsv")), Err(DataError::Column { .. })));
    }

    #[test]
    fn fairseq_manifests_of_hubert_and_of_mhubert() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        write(at, "train.tsv", "/corpus\na.flac\t32000\tsw\tcv\nsub/b.flac\t8000\tfr\tmls\n");
        write(at, "train.ltr", "H A | B A\nO U I |\n");
        let clips = read(&at.join("train.tsv")).expect("sound");
        assert_eq!(clips[1].path, Path::new("/corpus/sub/b.flac"));
        assert_eq!(clips[0].duration_s, Some(2.0));
        assert_eq!((language(&clips[1]), clips[1].dataset.as_deref()), ("fra".into(), Some("mls")));
        let texts: Vec<_> = clips.iter().map(|clip| clip.text.as_deref()).collect();
        assert_eq!(texts, [Some("HA BA"), Some("OUI")]);
        write(at, "train.ltr", "H A\n");
        let error = read(&at.join("train.tsv")).expect_err("one line short").to_string();
        assert!(error.contains("train.ltr`, line 1: number of lines `1`"), "{error}");
        write(at, "plain.tsv", "/corpus\na.flac\t32000\nb.flac\tlong\n");
        let error = read(&at.join("plain.tsv")).expect_err("no number").to_string();
        assert!(error.contains("line 3: samples `long`"), "{error}");
        write(at, "plain.tsv", "/corpus\na.flac\t32000\n");
        assert!(matches!(read(&at.join("plain.tsv")), Err(DataError::NoLanguage { .. })));
    }
}
