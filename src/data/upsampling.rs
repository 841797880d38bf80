//! Up-sampling of small languages, and of small data sets within a language.

use super::{Clip, DataError, Random};
use crate::text::Language;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Two-level up-sampling as mHuBERT-147 does it (`mHubertDataset.ordered_indices`).
///
/// With `n` clips of a language among `N`, the language is drawn with a probability in
/// proportion to `(n / N)^language`, a data set of `m` clips within it in proportion to
/// `(m / n)^dataset`. Counted are clips, not hours. 1 keeps the natural balance, 0 makes all equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upsampling {
    /// Exponent over languages (alpha), 0 to 1.
    pub language: f64,
    /// Exponent over the data sets of a language (beta), 0 to 1.
    pub dataset: f64,
}

impl Default for Upsampling {
    /// The values of `mhubert147_base.yaml`: 0.7 and 0.9.
    fn default() -> Self {
        Self { language: 0.7, dataset: 0.9 }
    }
}

/// What an epoch holds of a language, as it is and as it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageShare {
    /// The language; `None` for clips in which nobody speaks.
    pub language: Option<Language>,
    /// All of its data sets.
    pub total: Share,
    /// Each of its data sets, by name; clips that name none come first.
    pub datasets: Vec<(Option<String>, Share)>,
}

/// Clips and hours, as they are and as an epoch is expected to draw them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Share {
    /// Clips there are.
    pub clips: usize,
    /// Their hours.
    pub hours: f64,
    /// Clips drawn per epoch, on average.
    pub drawn_clips: f64,
    /// Hours drawn per epoch, on average.
    pub drawn_hours: f64,
}

/// Numbers of clips, by language and data set.
type Pools<'a> = BTreeMap<Option<Language>, BTreeMap<Option<&'a str>, Vec<usize>>>;

fn pools(clips: &[Clip]) -> Pools<'_> {
    let mut pools = Pools::new();
    for (i, clip) in clips.iter().enumerate() {
        let datasets = pools.entry(clip.language).or_default();
        datasets.entry(clip.dataset.as_deref()).or_default().push(i);
    }
    pools
}

/// `(count / total)^exponent`, made to add up to 1.
fn probabilities(counts: &[usize], exponent: f64) -> Vec<f64> {
    let total: usize = counts.iter().sum();
    let weights: Vec<f64> =
        counts.iter().map(|&count| (count as f64 / total as f64).powf(exponent)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// How often each of `probabilities` comes up in `n` draws.
fn draw(n: usize, probabilities: &[f64], random: &mut Random) -> Vec<usize> {
    let ends: Vec<f64> = probabilities
        .iter()
        .scan(0.0, |sum, p| {
            *sum += p;
            Some(*sum)
        })
        .collect();
    let last = probabilities.len().saturating_sub(1);
    let mut counts = vec![0; probabilities.len()];
    for _ in 0..n {
        let u = random.unit();
        counts[ends.partition_point(|&end| end <= u).min(last)] += 1;
    }
    counts
}

impl Upsampling {
    /// Checks both ranges.
    ///
    /// # Errors
    /// [`DataError::Setting`] for the first one out of range.
    pub fn validate(&self) -> Result<(), DataError> {
        for (field, value) in [("language", self.language), ("dataset", self.dataset)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(DataError::Setting { field, expected: "between 0 and 1" });
            }
        }
        Ok(())
    }

    /// The clips of an epoch: as many as there are, drawn by language and data set, by length
    /// from the shortest (ties by number), ready to be cut into batches.
    ///
    /// A data set drawn less often than it has clips gives a random subset of them, otherwise
    /// whole copies of itself and a random rest. If both exponents are 1, every clip comes once.
    #[must_use]
    pub fn ordered_indices(&self, clips: &[Clip], seed: u64, epoch: u64) -> Vec<usize> {
        let mut drawn: Vec<usize> = if self.language == 1.0 && self.dataset == 1.0 {
            (0..clips.len()).collect()
        } else {
            self.draw_clips(clips, &mut Random::new(&[seed, epoch, 0x7570_7361_6d70]))
        };
        drawn.sort_by(|&a, &b| clips[a].duration_s.total_cmp(&clips[b].duration_s).then(a.cmp(&b)));
        drawn
    }

    fn draw_clips(&self, clips: &[Clip], random: &mut Random) -> Vec<usize> {
        let pools = pools(clips);
        let sizes: Vec<usize> =
            pools.values().map(|datasets| datasets.values().map(Vec::len).sum()).collect();
        let of_languages = draw(clips.len(), &probabilities(&sizes, self.language), random);
        let mut drawn = Vec::with_capacity(clips.len());
        for (datasets, count) in pools.values().zip(of_languages) {
            let sizes: Vec<usize> = datasets.values().map(Vec::len).collect();
            let of_datasets = draw(count, &probabilities(&sizes, self.dataset), random);
            for (pool, count) in datasets.values().zip(of_datasets) {
                let mut left = count;
                while left > 0 {
                    let mut copy = pool.clone();
                    random.shuffle(&mut copy);
                    copy.truncate(left);
                    left -= copy.len();
                    drawn.extend(copy);
                }
            }
        }
        drawn
    }

    /// What an epoch is expected to hold of each language and data set.
    #[must_use]
    pub fn shares(&self, clips: &[Clip]) -> Vec<LanguageShare> {
        let pools = pools(clips);
        let sizes: Vec<usize> =
            pools.values().map(|datasets| datasets.values().map(Vec::len).sum()).collect();
        let of_languages = probabilities(&sizes, self.language);
        let mut shares = Vec::with_capacity(pools.len());
        for ((&language, datasets), p_language) in pools.iter().zip(of_languages) {
            let sizes: Vec<usize> = datasets.values().map(Vec::len).collect();
            let of_datasets = probabilities(&sizes, self.dataset);
            let share = |(pool, p_dataset): (&Vec<usize>, f64)| {
                let hours = pool.iter().map(|&i| clips[i].duration_s).sum::<f64>() / 3600.0;
                let drawn_clips = clips.len() as f64 * p_language * p_dataset;
                let drawn_hours = drawn_clips * hours / pool.len() as f64;
                Share { clips: pool.len(), hours, drawn_clips, drawn_hours }
            };
            let each: Vec<Share> = datasets.values().zip(of_datasets).map(share).collect();
            let total = each.iter().fold(Share::default(), |sum, share| Share {
                clips: sum.clips + share.clips,
                hours: sum.hours + share.hours,
                drawn_clips: sum.drawn_clips + share.drawn_clips,
                drawn_hours: sum.drawn_hours + share.drawn_hours,
            });
            let names = datasets.keys().map(|name| name.map(str::to_owned));
            shares.push(LanguageShare { language, total, datasets: names.zip(each).collect() });
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::parse_manifest;
    use super::*;
    use std::path::Path;

    /// 800 clips of English in two data sets (600 and 200) of 2 s, 200 of Czech of 4 s.
    fn clips() -> Vec<Clip> {
        let mut rows = String::from("path\tlanguage\tdataset\tduration_s\n");
        for i in 0..1000 {
            let (language, dataset, seconds) = match i {
                0..600 => ("eng", "large", 2),
                600..800 => ("eng", "small", 2),
                _ => ("ces", "only", 4),
            };
            rows.push_str(&format!("{i}.wav\t{language}\t{dataset}\t{seconds}\n"));
        }
        parse_manifest(&rows, Path::new("m.tsv")).expect("sound")
    }

    #[test]
    fn shares_by_hand() {
        let shares = Upsampling { language: 0.5, dataset: 0.0 }.shares(&clips());
        let [czech, english] = &shares[..] else { panic!("two languages") };
        // sqrt(0.2) : sqrt(0.8) is 1 : 2.
        assert!((czech.total.drawn_clips - 1000.0 / 3.0).abs() < 1e-9);
        assert!((czech.total.drawn_hours - 4000.0 / 3.0 / 3600.0).abs() < 1e-9);
        assert_eq!((czech.total.clips, english.total.clips), (200, 800));
        let names: Vec<_> = english.datasets.iter().map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, [Some("large"), Some("small")]);
        for (_, share) in &english.datasets {
            assert!((share.drawn_clips - 1000.0 / 3.0).abs() < 1e-9, "both alike");
        }
        let natural = Upsampling { language: 1.0, dataset: 1.0 }.shares(&clips());
        for share in natural.iter().flat_map(|language| &language.datasets) {
            assert!((share.1.drawn_clips - share.1.clips as f64).abs() < 1e-9);
        }
    }

    /// The example of the specification: English falls from 52.2 % to 23.5 %.
    #[test]
    fn exponents_do_what_the_paper_says() {
        let p = probabilities(&[522, 478], 0.7);
        let want = 0.522_f64.powf(0.7) / (0.522_f64.powf(0.7) + 0.478_f64.powf(0.7));
        assert!((p[0] - want).abs() < 1e-12 && (p[0] + p[1] - 1.0).abs() < 1e-12);
        let defaults = Upsampling::default();
        assert_eq!((defaults.language, defaults.dataset), (0.7, 0.9));
        assert!(defaults.validate().is_ok());
        assert!(Upsampling { language: 1.1, ..defaults }.validate().is_err());
        assert!(Upsampling { dataset: f64::NAN, ..defaults }.validate().is_err());
    }

    #[test]
    fn an_epoch_is_drawn_as_the_shares_promise() {
        let clips = clips();
        let upsampling = Upsampling { language: 0.0, dataset: 0.5 };
        let order = upsampling.ordered_indices(&clips, 1, 0);
        assert_eq!(order.len(), 1000);
        assert!(order.is_sorted_by_key(|&i| (clips[i].duration_s as u64, i)));
        let czech = order.iter().filter(|&&i| i >= 800).count();
        // 500 expected, standard deviation 16.
        assert!((430..=570).contains(&czech), "{czech}");
        let mut times = vec![0_usize; 1000];
        for &i in &order {
            times[i] += 1;
        }
        // Whole copies and a rest: no clip comes two times more than another of its set.
        assert!(times[800..].iter().all(|&n| n == czech / 200 || n == czech / 200 + 1));
        assert!(times[..600].iter().all(|&n| n <= 1), "a subset without replacement");
        assert_eq!(upsampling.ordered_indices(&clips, 1, 0), order);
        assert_ne!(upsampling.ordered_indices(&clips, 1, 1), order, "every epoch anew");
    }

    #[test]
    fn exponents_of_one_are_a_plain_sort_by_length() {
        let clips = clips();
        let natural = Upsampling { language: 1.0, dataset: 1.0 };
        assert!(natural.ordered_indices(&clips, 1, 0).into_iter().eq(0..1000));
        assert!(natural.ordered_indices(&[], 1, 0).is_empty());
        assert!(Upsampling::default().ordered_indices(&[], 1, 0).is_empty());
        assert!(Upsampling::default().shares(&[]).is_empty());
    }
}
