//! HuBERT base and multi-resolution HuBERT base, random weights, hearing one clip.

mod published;

use asr::model::{Encoder, Parameters, Pass, Sequence};
use asr_kernels::{Precision, reference};
use candle_core::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use published::base;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Elements are samples.
fn encoders(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoder");
    for (name, multi_resolution) in [("hubert_base", false), ("mr_hubert_base", true)] {
        let config = base(multi_resolution);
        let parameters = Parameters::default();
        Encoder::new(&config, &parameters.seeded(1)).expect("parameters are made as asked for");
        let encoder = Encoder::new(&config, &parameters.frozen()).expect("parameters are there");
        for seconds in [10, 30] {
            let samples = 16_000 * seconds;
            let wave: Vec<f32> = reference::uniform(samples, 1).iter().map(|v| 0.1 * v).collect();
            let hidden = Tensor::from_vec(wave, (1, samples, 1), &Device::Cpu).expect("one clip");
            let input = Sequence { hidden, lengths: vec![samples] };
            group.throughput(Throughput::Elements(samples as u64)).sample_size(10);
            for (precision_name, precision) in
                [("f32", Precision::F32), ("bf16", Precision::Bf16), ("int8", Precision::Int8)]
            {
                group.bench_function(format!("{name}_{seconds}s/{precision_name}"), |b| {
                    b.iter(|| {
                        let pass = Pass::inference(precision);
                        black_box(encoder.outputs(&input, &[], &pass).expect("shapes agree"))
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, encoders);
criterion_main!(benches);
