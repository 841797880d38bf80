//! Memory and time of clustering any number of frames, in the widths of HuBERT base.
//!
//! ```sh
//! cargo bench --features faiss --bench cluster_memory -- 20000000 k-means
//! cargo bench --features faiss --bench cluster_memory -- 20000000 mhubert
//! ```
//!
//! Prints the report of the fit and the most memory that the process ever had (Linux).

use asr::pretrain::{FitOptions, Frames, Init, Method, PretrainError, fit};
use asr_kernels::reference::uniform;
use std::time::Instant;

const DIM: usize = 768;
const UNITS: usize = 1000;
/// Frames of a clip of twenty seconds.
const CLIP: usize = 1000;

/// Frames around one of many centres each, so that there is something to find.
fn stream(n: usize) -> impl Iterator<Item = Result<Frames, PretrainError>> {
    let (centres, noise) = (uniform(UNITS * DIM, 1), uniform(64 * DIM, 2));
    (0..n.div_ceil(CLIP)).map(move |clip| {
        let n_frames = CLIP.min(n - clip * CLIP);
        let mut data = Vec::with_capacity(n_frames * DIM);
        for frame in 0..n_frames {
            let number = (clip * CLIP + frame).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let centre = &centres[(number >> 20) % UNITS * DIM..][..DIM];
            let noise = &noise[(number >> 40) % 64 * DIM..][..DIM];
            data.extend(centre.iter().zip(noise).map(|(centre, noise)| centre + 0.3 * noise));
        }
        Ok(Frames { clip, data, n_frames, dim: DIM })
    })
}

/// Most memory the process ever had, MiB.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let frames = arguments.first().map_or(Ok(1_000_000), |n| n.parse())?;
    let method = match arguments.get(1).map(String::as_str) {
        Some("mhubert") => Method::Mhubert,
        _ => Method::KMeans { init: Init::Random, iterations: 3, runs: 1 },
    };
    let start = Instant::now();
    let (_, report) = fit(&FitOptions { method, ..FitOptions::new(UNITS) }, stream(frames))?;
    println!("{report:#?}");
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    if let Some(peak) = peak_mib() {
        println!("peak {peak:.0} MiB");
    }
    Ok(())
}
