//! Units of frames against faiss: flat search, and the stored graph of an index as mHuBERT-147's.

use asr::pretrain::{Clustering, LabelWriter, UnitLabels};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

const CASE: &str = "kmeans-assignment";
/// Squared distances closer than this tell nothing (`provenance.toml`).
const MARGIN: f32 = 1e-3;

/// What one case holds.
struct Case {
    folder: PathBuf,
    features: Vec<f32>,
    dim: usize,
    expected: Vec<u8>,
}

impl Case {
    fn open(root: &Path) -> Self {
        let folder = root.join(CASE);
        let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the case");
        let (input, expected) = (read("input.safetensors"), read("expected.safetensors"));
        let input = SafeTensors::deserialize(&input).expect("sound");
        let features = input.tensor("features").expect("features");
        let dim = features.shape()[1];
        let features = floats(features.data());
        Self { folder, features, dim, expected }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.expected).expect("sound");
        floats(tensors.tensor(name).expect("a tensor of the case").data())
    }

    fn units(&self, name: &str) -> Vec<u16> {
        let tensors = SafeTensors::deserialize(&self.expected).expect("sound");
        let tensor = tensors.tensor(name).expect("a tensor of the case");
        let long = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes"));
        tensor.data().chunks_exact(8).map(|b| long(b) as u16).collect()
    }

    fn clustering(&self, name: &str) -> Clustering {
        Clustering::open(&self.folder.join(name)).expect("an index of faiss")
    }

    fn assign(&self, clustering: &Clustering) -> Vec<u16> {
        clustering.assign(&self.features, self.dim).expect("finite frames")
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// Asserts that labels are equal where the margin says that they are certain.
fn same(got: &[u16], want: &[u16], margins: &[f32]) {
    assert_eq!((got.len(), margins.len()), (want.len(), want.len()));
    let mut uncertain = 0;
    for (i, ((got, want), margin)) in got.iter().zip(want).zip(margins).enumerate() {
        assert!(got == want || *margin <= MARGIN, "row {i}: {got} for {want}, margin {margin}");
        uncertain += usize::from(*margin <= MARGIN);
    }
    println!("{} rows, {uncertain} of them too close to tell", want.len());
}

fn flat(root: &Path) {
    let case = Case::open(root);
    let clustering = case.clustering("flat.faiss");
    assert_eq!((clustering.n_units(), clustering.dim()), (32, 64));
    let got = case.assign(&clustering);
    same(&got, &case.units("flat.assign"), &case.floats("flat.margin"));
    let (_, sum) = clustering.assign_measured(&case.features, case.dim).expect("finite frames");
    let want: f64 = case.floats("flat.squared_distance").iter().map(|&d| f64::from(d)).sum();
    assert!((sum - want).abs() <= 1e-4 * want, "{sum} for {want}");
}

fn graph(root: &Path) {
    let case = Case::open(root);
    let clustering = case.clustering("opq_ivf_hnsw.faiss");
    assert_eq!((clustering.n_units(), clustering.dim()), (200, 64));
    assert!(clustering.has_graph());
    let got = case.assign(&clustering);
    assert_eq!(got, case.units("opq.assign_hnsw"), "bit for bit the walk of faiss");
    let exact = case.assign(&clustering.without_graph());
    same(&exact, &case.units("opq.assign_exact"), &case.floats("opq.margin"));
    assert_ne!(exact, got, "a graph that never missed would prove nothing");
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn flat_units_are_those_of_faiss() {
    flat(&here());
}

#[test]
fn units_through_the_stored_graph_are_those_of_faiss() {
    graph(&here());
}

#[test]
#[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
fn units_of_the_whole_case_are_those_of_faiss() {
    let root = std::env::var_os("ASR_GOLDEN").expect("ASR_GOLDEN names the golden folder");
    flat(root.as_ref());
    graph(root.as_ref());
}

/// Every way of cutting an index short or changing one of its bytes is an error or an index
/// whose labels are in range; never a panic, never much memory.
#[test]
fn damaged_index_files_are_refused_or_harmless() {
    let case = Case::open(&here());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("damaged.faiss");
    let whole = std::fs::read(case.folder.join("opq_ivf_hnsw.faiss")).expect("readable");
    let (frame, mut refused) = (&case.features[..4 * case.dim], 0);
    // Every byte of the beginning and of the graph's end, others here and there.
    for at in (0..200).chain((200..whole.len()).step_by(97)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x81;
        std::fs::write(&path, &damaged).expect("written");
        match Clustering::open(&path) {
            Err(_) => refused += 1,
            Ok(clustering) if clustering.dim() == case.dim => {
                let units = clustering.assign(frame, case.dim);
                let in_range = |units: Vec<u16>| {
                    units.iter().all(|&unit| usize::from(unit) < clustering.n_units())
                };
                assert!(units.is_ok_and(in_range), "byte {at}");
            }
            Ok(_) => {}
        }
    }
    assert!(refused > 30, "{refused}");
    for length in (0..20_000).step_by(501) {
        std::fs::write(&path, &whole[..length]).expect("written");
        assert!(Clustering::open(&path).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn labels_of_a_clustering_survive_their_file() {
    let case = Case::open(&here());
    let units = case.assign(&case.clustering("flat.faiss"));
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["labels.km", "labels.units"] {
        let path = folder.path().join(name);
        let mut writer = LabelWriter::create(&path, 32, 50.0).expect("created");
        for clip in units.chunks(150) {
            writer.push(clip).expect("pushed");
        }
        writer.finish().expect("finished");
        let labels = UnitLabels::open(&path).expect("sound");
        let read: Vec<u16> =
            (0..labels.n_clips()).flat_map(|clip| labels.clip(clip).expect("there")).collect();
        assert_eq!(read, units, "{name}");
    }
}
