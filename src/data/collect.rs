//! Clips of sources to clips of a manifest: measured, filtered, cut, joined.

use super::{Clip, DataError, SourceClip, Transcript};
use crate::audio::{AudioError, DecodeOptions, WavFormat, decode_path, write_wav};
use crate::files;
use crate::text::Language;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

const SAMPLE_RATE_HZ: u32 = 16_000;
/// Clips decoded at a time.
const AT_A_TIME: usize = 256;

/// Which clips are kept, and what is made of those that are too short.
#[derive(Debug, Clone, PartialEq)]
pub struct Collect {
    /// Shorter clips are left out or joined, seconds.
    pub min_s: f64,
    /// Longer clips are left out, seconds.
    pub max_s: f64,
    /// Join short clips of the same language and data set, in order, until they are long
    /// enough, as mHuBERT-147 does; otherwise they are left out.
    pub join: bool,
    /// Where joined clips and parts of recordings are written, as WAV.
    pub folder: Option<PathBuf>,
    /// Share of the clips that may be unreadable.
    pub max_unreadable: f64,
}

/// What became of the clips of a source.
#[derive(Debug, Default)]
pub struct CollectReport {
    /// Clips that could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, AudioError)>,
    /// Clips left out because they are too short, or the rest of joining.
    pub too_short: usize,
    /// Clips left out because they are too long.
    pub too_long: usize,
    /// Clips that went into others.
    pub joined: usize,
}

/// A clip of a manifest in the making.
struct Member {
    source: SourceClip,
    duration_s: f64,
}

impl Collect {
    /// Makes the clips of a manifest.
    ///
    /// # Errors
    /// [`DataError`] if too many clips cannot be read, a recording is listed twice, or files
    /// are to be written and there is no folder for them or it cannot be written to.
    pub fn collect(
        &self,
        sources: Vec<SourceClip>,
    ) -> Result<(Vec<Clip>, CollectReport), DataError> {
        let mut seen = HashSet::new();
        if let Some(twice) =
            sources.iter().find(|clip| clip.part.is_none() && !seen.insert(clip.path.clone()))
        {
            return Err(DataError::ListedTwice { path: twice.path.clone() });
        }
        let writes = self.join || sources.iter().any(|clip| clip.part.is_some());
        if writes && self.folder.is_none() {
            return Err(DataError::NoFolder);
        }
        let mut report = CollectReport::default();
        let members = self.measured(sources, &mut report)?;
        let mut groups: BTreeMap<(Option<Language>, Option<String>), Vec<Member>> = BTreeMap::new();
        let mut clips = Vec::new();
        for member in members {
            if member.duration_s > self.max_s {
                report.too_long += 1;
            } else if member.duration_s >= self.min_s {
                clips.push(vec![member]);
            } else if self.join {
                let key = (member.source.language, member.source.dataset.clone());
                groups.entry(key).or_default().push(member);
            } else {
                report.too_short += 1;
            }
        }
        for members in groups.into_values() {
            clips.extend(self.joined(members, &mut report));
        }
        let mut names = HashMap::new();
        let clips = clips.iter().map(|members| self.finished(members, &mut names));
        Ok((clips.collect::<Result<_, _>>()?, report))
    }

    /// The clips that can be read, with their lengths.
    fn measured(
        &self,
        sources: Vec<SourceClip>,
        report: &mut CollectReport,
    ) -> Result<Vec<Member>, DataError> {
        let total = sources.len();
        let measure = |clip: &SourceClip| match clip.duration_s {
            Some(duration_s) if clip.path.is_file() => Ok(duration_s),
            _ => decode_path(&clip.path, &DecodeOptions::default())
                .map(|audio| audio.samples.len() as f64 / f64::from(SAMPLE_RATE_HZ)),
        };
        let measured: Vec<_> = sources.par_iter().with_max_len(AT_A_TIME).map(measure).collect();
        let mut members = Vec::with_capacity(total);
        for (source, duration) in sources.into_iter().zip(measured) {
            match duration {
                Ok(duration_s) => members.push(Member { source, duration_s }),
                Err(error) => report.unreadable.push((source.path, error)),
            }
        }
        if report.unreadable.len() as f64 > self.max_unreadable * total as f64 {
            let failed = report.unreadable.len();
            let (first, source) = report.unreadable.swap_remove(0);
            return Err(DataError::TooManyUnreadable { failed, total, first, source });
        }
        Ok(members)
    }

    /// Short clips in order, joined until each is long enough; what is left at the end goes to
    /// the last that has room for it.
    fn joined(&self, members: Vec<Member>, report: &mut CollectReport) -> Vec<Vec<Member>> {
        let length = |members: &[Member]| members.iter().map(|m| m.duration_s).sum::<f64>();
        let mut clips: Vec<Vec<Member>> = Vec::new();
        let mut open = Vec::new();
        for member in members {
            open.push(member);
            if length(&open) >= self.min_s {
                clips.push(std::mem::take(&mut open));
            }
        }
        let rest = length(&open);
        match clips.iter_mut().rev().find(|clip| length(clip) + rest <= self.max_s) {
            Some(clip) => clip.append(&mut open),
            None => report.too_short += open.len(),
        }
        report.joined += clips.iter().map(Vec::len).sum::<usize>();
        clips
    }

    /// The clip of its members: the recording itself, or a file that is written.
    fn finished(
        &self,
        members: &[Member],
        names: &mut HashMap<String, usize>,
    ) -> Result<Clip, DataError> {
        let first = &members[0].source;
        let all = |of: fn(&SourceClip) -> &Option<String>| {
            let same = members.iter().all(|member| of(&member.source) == of(first));
            if same { of(first).clone() } else { None }
        };
        let texts: Option<Vec<&str>> =
            members.iter().map(|member| member.source.text.as_deref()).collect();
        let (path, duration_s) = match members {
            [only] if only.source.part.is_none() => (only.source.path.clone(), only.duration_s),
            _ => self.written(members, names)?,
        };
        Ok(Clip {
            name: path.display().to_string(),
            path,
            language: first.language,
            speaker: all(|clip| &clip.speaker),
            dataset: first.dataset.clone(),
            duration_s,
            transcript: texts
                .map_or(Transcript::Unknown, |texts| Transcript::Text(texts.join(" "))),
            weight: 1.0,
        })
    }

    fn written(
        &self,
        members: &[Member],
        names: &mut HashMap<String, usize>,
    ) -> Result<(PathBuf, f64), DataError> {
        let folder = self.folder.as_deref().ok_or(DataError::NoFolder)?;
        let mut samples = Vec::new();
        for Member { source, .. } in members {
            let audio = decode_path(&source.path, &DecodeOptions::default())
                .map_err(|error| DataError::Clip { path: source.path.clone(), source: error })?;
            let at = |time: f64| {
                ((time * f64::from(SAMPLE_RATE_HZ)).round() as usize).min(audio.samples.len())
            };
            let (start, end) = source.part.unwrap_or((0.0, f64::INFINITY));
            samples.extend_from_slice(&audio.samples[at(start)..at(end)]);
        }
        let written = |source| DataError::Write { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(written)?;
        let path = folder.join(file_name(&members[0].source, members.len(), names));
        write_wav(&path, &samples, SAMPLE_RATE_HZ, WavFormat::S16)
            .map_err(|source| DataError::Clip { path: path.clone(), source })?;
        Ok((path, samples.len() as f64 / f64::from(SAMPLE_RATE_HZ)))
    }
}

/// A name for a written clip after its first member, not used before.
fn file_name(first: &SourceClip, members: usize, names: &mut HashMap<String, usize>) -> String {
    let stem = match first.part {
        Some(_) => first.name.clone(),
        None => first.path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into()),
    };
    let stem: String = stem
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let stem = if members > 1 { format!("{stem}-and-{}", members - 1) } else { stem };
    let uses = names.entry(stem.clone()).or_default();
    *uses += 1;
    if *uses > 1 { format!("{stem}.{uses}.wav") } else { format!("{stem}.wav") }
}

/// Writes a manifest that [`read_manifest`](super::read_manifest) reads; paths relative to its
/// folder where they lie in it, absolute otherwise. Whole or not at all.
///
/// # Errors
/// [`DataError`] if it cannot be written or a path has a tab or a line break.
pub fn write_manifest(path: &Path, clips: &[Clip]) -> Result<(), DataError> {
    let write = |source| DataError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(write)?;
    let folder = std::path::absolute(folder).map_err(write)?;
    let partial = files::partial(path);
    let mut file = std::io::BufWriter::new(std::fs::File::create(partial).map_err(write)?);
    let header = "path\tlanguage\tspeaker\tdataset\tduration_s\ttext\n";
    file.write_all(header.as_bytes()).map_err(write)?;
    let plain = |text: Option<&str>| match text {
        Some(text) if !text.trim().is_empty() => {
            text.split(char::is_whitespace).collect::<Vec<_>>().join(" ")
        }
        _ => "-".to_owned(),
    };
    for clip in clips {
        let absolute = std::path::absolute(&clip.path).map_err(write)?;
        let name = absolute.strip_prefix(&folder).unwrap_or(&absolute).to_str();
        let Some(name) = name.filter(|name| !name.contains(['\t', '\n', '\r'])) else {
            return Err(DataError::PathName { path: clip.path.clone() });
        };
        let language = clip.language.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let text = match &clip.transcript {
            Transcript::Text(text) => plain(Some(text)),
            Transcript::Unknown => "-".to_owned(),
            Transcript::Silence => super::manifest::SILENCE.to_owned(),
        };
        let (speaker, dataset) = (plain(clip.speaker.as_deref()), plain(clip.dataset.as_deref()));
        writeln!(file, "{name}\t{language}\t{speaker}\t{dataset}\t{:.3}\t{text}", clip.duration_s)
            .map_err(write)?;
    }
    file.into_inner().map_err(|error| write(error.into_error()))?;
    files::put_in_place(path).map_err(write)
}

#[cfg(test)]
mod tests {
    use super::super::read_manifest;
    use super::*;

    /// Tones of the given lengths in seconds, as clips of a source.
    fn tones(folder: &Path, lengths: &[f64]) -> Vec<SourceClip> {
        let clip = |(i, &seconds): (usize, &f64)| {
            let n = (seconds * 16_000.0) as usize;
            let samples: Vec<f32> = (0..n).map(|t| (t as f32 * 0.05).sin() * 0.2).collect();
            let path = folder.join(format!("{i}.wav"));
            write_wav(&path, &samples, SAMPLE_RATE_HZ, WavFormat::S16).expect("written");
            SourceClip {
                path,
                name: i.to_string(),
                part: None,
                language: "eng".parse().ok(),
                dataset: Some("tones".into()),
                speaker: Some("me".into()),
                duration_s: None,
                text: Some(format!("tone {i}")),
            }
        };
        lengths.iter().enumerate().map(clip).collect()
    }

    fn mhubert(folder: &Path) -> Collect {
        Collect {
            min_s: 2.0,
            max_s: 30.0,
            join: true,
            folder: Some(folder.join("joined")),
            max_unreadable: 0.0,
        }
    }

    #[test]
    fn short_clips_are_joined_in_order_and_the_rest_finds_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let sources = tones(at, &[3.0, 1.0, 31.0, 1.5, 0.5, 1.75, 0.5]);
        let (clips, report) = mhubert(at).collect(sources).expect("collected");
        let found: Vec<(f64, &Transcript)> =
            clips.iter().map(|clip| (clip.duration_s, &clip.transcript)).collect();
        let text = |text: &str| Transcript::Text(text.into());
        let want = [text("tone 0"), text("tone 1 tone 3"), text("tone 4 tone 5 tone 6")];
        assert_eq!(found, [(3.0, &want[0]), (2.5, &want[1]), (2.75, &want[2])]);
        assert_eq!((report.too_long, report.too_short, report.joined), (1, 0, 5));
        let manifest = at.join("m.tsv");
        write_manifest(&manifest, &clips).expect("written");
        let read = read_manifest(&manifest).expect("sound");
        assert_eq!(read.iter().map(|c| c.name.as_str()).collect::<Vec<_>>()[0], "0.wav");
        assert_eq!(read[1].name, "joined/1-and-1.wav");
        for (read, clip) in read.iter().zip(&clips) {
            let audio = decode_path(&read.path, &DecodeOptions::default()).expect("readable");
            assert_eq!(audio.samples.len() as f64 / 16_000.0, clip.duration_s);
            assert_eq!((&read.transcript, &read.speaker), (&clip.transcript, &clip.speaker));
        }
        // Without joining, and without room for the rest.
        let sources = tones(at, &[3.0, 1.0, 1.5, 0.5]);
        let plain = Collect { join: false, folder: None, ..mhubert(at) };
        let (clips, report) = plain.collect(sources.clone()).expect("collected");
        assert_eq!((clips.len(), report.too_short), (1, 3));
        let tight = Collect { max_s: 2.6, ..mhubert(at) };
        let (clips, report) = tight.collect(sources).expect("collected");
        assert_eq!((clips.len(), report.too_long, report.too_short), (1, 1, 1));
    }

    #[test]
    fn parts_are_cut_to_files_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let whole = tones(at, &[10.0]).remove(0);
        let part = |name: &str, start, end| {
            let duration_s = Some(end - start);
            SourceClip { part: Some((start, end)), name: name.into(), duration_s, ..whole.clone() }
        };
        let parts = vec![part("u/1", 1.0, 4.0), part("u 1", 4.5, 7.0), part("late", 8.0, 12.0)];
        let (clips, _) = mhubert(at).collect(parts.clone()).expect("collected");
        let found: Vec<(String, f64)> = clips
            .iter()
            .map(|c| (c.path.file_name().expect("named").to_string_lossy().into(), c.duration_s))
            .collect();
        let want = [("u_1.wav", 3.0), ("u_1.2.wav", 2.5), ("late.wav", 2.0)];
        assert_eq!(found, want.map(|(name, s)| (name.to_owned(), s)));
        let nowhere = Collect { folder: None, join: false, ..mhubert(at) };
        assert!(matches!(nowhere.collect(parts), Err(DataError::NoFolder)));
    }

    #[test]
    fn faults_of_sources_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let mut sources = tones(at, &[3.0, 3.0]);
        sources.push(SourceClip { path: at.join("none.wav"), ..sources[0].clone() });
        let error = mhubert(at).collect(sources.clone()).expect_err("one is missing").to_string();
        assert!(error.starts_with("1 of 3 clips cannot be read"), "{error}");
        let lax = Collect { max_unreadable: 0.5, ..mhubert(at) };
        let (clips, report) = lax.collect(sources.clone()).expect("two are left");
        assert_eq!((clips.len(), report.unreadable.len()), (2, 1));
        sources.push(sources[0].clone());
        assert!(matches!(lax.collect(sources), Err(DataError::ListedTwice { .. })));
        let tab = Clip { path: at.join("a\tb.wav"), ..clips[0].clone() };
        let error = write_manifest(&at.join("m.tsv"), &[tab]).expect_err("no place for a tab");
        assert!(matches!(error, DataError::PathName { .. }));
    }
}
