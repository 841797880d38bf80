//! Each kernel on the shapes of HuBERT base hearing ten seconds: 160 000 samples, 499 frames.

use asr_kernels::attention::{Attend, attention};
use asr_kernels::conv::{conv_transpose1d, conv1d};
use asr_kernels::ctc::{Target, ctc_loss};
use asr_kernels::dropout::dropout;
use asr_kernels::gelu::gelu;
use asr_kernels::linear::linear;
use asr_kernels::matmul::{Matrix, Output, matmul};
use asr_kernels::nearest::Centroids;
use asr_kernels::norm::{group_norm, layer_norm};
use asr_kernels::padding::zero_padding;
use asr_kernels::position_conv::position_conv;
use asr_kernels::reference::uniform;
use asr_kernels::{Precision, isa};
use candle_core::{Device, Result, Shape, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SAMPLES: usize = 160_000;
/// Frames after the first convolution, kernel 10 and stride 5.
const FRONT_FRAMES: usize = 31_999;
const FRONT_DIM: usize = 512;
const FRAMES: usize = 499;
const DIM: usize = 768;
const FFN_DIM: usize = 3072;
const HEADS: usize = 12;
const POSITION_KERNEL: usize = 128;
const POSITION_GROUPS: usize = 16;
const EPS: f64 = 1e-5;

fn precisions() -> impl Iterator<Item = (&'static str, Precision)> {
    [("f32", Precision::F32), ("bf16", Precision::Bf16)].into_iter()
}

/// Values in [-1, 1) that gradients are wanted for.
fn var(shape: impl Into<Shape>) -> Var {
    let shape = shape.into();
    let values = uniform(shape.elem_count(), shape.elem_count() as u64);
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as asked");
    Var::from_tensor(&tensor).expect("a CPU tensor")
}

/// Measures an operation, and with it under `NAME/training` forward and backward together.
fn bench(c: &mut Criterion, name: &str, elements: usize, operation: impl Fn() -> Result<Tensor>) {
    let (group, shape) = name.split_once('/').expect("name is group/shape");
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(elements as u64)).sample_size(10);
    group.bench_function(shape, |b| b.iter(|| black_box(operation().expect("shapes agree"))));
    group.bench_function(format!("{shape}/training"), |b| {
        b.iter(|| {
            let loss = operation().and_then(|y| y.sum_all());
            black_box(loss.and_then(|loss| loss.backward()).expect("differentiable"))
        });
    });
    group.finish();
}

/// Elements are multiplications.
fn products(c: &mut Criterion) {
    let (a, b) = (uniform(FRAMES * DIM, 1), uniform(DIM * FFN_DIM, 2));
    let mut out = vec![0.0; FRAMES * FFN_DIM];
    let multiplications = FRAMES * DIM * FFN_DIM;
    let mut group = c.benchmark_group("matmul");
    group.throughput(Throughput::Elements(multiplications as u64)).sample_size(10);
    for (name, precision) in precisions() {
        group.bench_function(format!("ffn_base_10s/{name}/{}", isa::isa().name()), |bencher| {
            bencher.iter(|| {
                let a = Matrix::row_major(&a, FRAMES, DIM);
                let b = Matrix::row_major(&b, DIM, FFN_DIM);
                matmul(a, b, black_box(&mut out), FFN_DIM, Output::Overwrite, precision);
            });
        });
    }
    group.finish();
    let (x, weight, bias) = (var((1, FRAMES, DIM)), var((FFN_DIM, DIM)), var(FFN_DIM));
    for (name, precision) in precisions() {
        bench(c, &format!("linear/ffn_base_10s/{name}"), multiplications, || {
            linear(&x, &weight, &bias, precision)
        });
    }
}

/// Elements are multiplications.
fn convolutions(c: &mut Criterion) {
    let waveform = var((1, SAMPLES, 1));
    let weight = var((FRONT_DIM, 1, 10));
    bench(c, "conv/layer0_10s", FRONT_FRAMES * FRONT_DIM * 10, || {
        conv1d(&waveform, &weight, 5, 0, Precision::F32)
    });
    let front = var((1, FRONT_FRAMES, FRONT_DIM));
    let weight = var((FRONT_DIM, FRONT_DIM, 3));
    for (name, precision) in precisions() {
        let multiplications = FRONT_FRAMES / 2 * FRONT_DIM * FRONT_DIM * 3;
        bench(c, &format!("conv/layer1_10s/{name}"), multiplications, || {
            conv1d(&front, &weight, 2, 0, precision)
        });
    }
    let hidden = var((1, FRAMES, DIM));
    let weight = var((DIM, DIM / POSITION_GROUPS, POSITION_KERNEL));
    for (name, precision) in precisions() {
        let multiplications = FRAMES * DIM * DIM / POSITION_GROUPS * POSITION_KERNEL;
        bench(c, &format!("position_conv/base_10s/{name}"), multiplications, || {
            position_conv(&hidden, &weight, precision)
        });
    }
    // The way up of MR-HuBERT, from 40 ms to 20 ms per frame.
    let low = var((1, FRAMES.div_ceil(2), DIM));
    let weight = var((DIM, DIM, 1));
    bench(c, "conv_transpose/up2_base_10s", FRAMES.div_ceil(2) * DIM * DIM, || {
        conv_transpose1d(&low, &weight, 2, 1, Precision::F32)
    });
}

/// Elements are multiplications of the two products.
fn attentions(c: &mut Criterion) {
    let (q, k, v) = (var((1, FRAMES, DIM)), var((1, FRAMES, DIM)), var((1, FRAMES, DIM)));
    for (name, precision) in precisions() {
        bench(c, &format!("attention/base_10s/{name}"), 2 * FRAMES * FRAMES * DIM, || {
            attention(&q, &k, &v, &Attend::new(HEADS, &[FRAMES], precision))
        });
    }
}

/// Elements are values.
fn elementwise(c: &mut Criterion) {
    let wide = var((1, FRAMES, FFN_DIM));
    bench(c, "gelu/ffn_base_10s", FRAMES * FFN_DIM, || gelu(&wide));
    bench(c, "dropout/ffn_base_10s", FRAMES * FFN_DIM, || dropout(&wide, 0.1, 1));
    let hidden = var((1, FRAMES, DIM));
    bench(c, "padding/base_10s", FRAMES * DIM, || zero_padding(&hidden, &[FRAMES / 2]));
    let (weight, bias) = (var(DIM), var(DIM));
    bench(c, "layer_norm/base_10s", FRAMES * DIM, || layer_norm(&hidden, &weight, &bias, EPS));
    let front = var((1, FRONT_FRAMES, FRONT_DIM));
    let (weight, bias) = (var(FRONT_DIM), var(FRONT_DIM));
    bench(c, "group_norm/layer0_10s", FRONT_FRAMES * FRONT_DIM, || {
        group_norm(&front, &weight, &bias, FRONT_DIM, EPS, Some(&[FRONT_FRAMES]))
    });
}

/// Elements are states of the trellis: frames times twice the tokens and one.
fn losses(c: &mut Criterion) {
    let (frames, vocab, n_tokens) = (1000, 60, 100);
    let logits = var((1, frames, vocab));
    let tokens = (0..n_tokens).map(|i| 1 + i * 7 % (vocab as u32 - 1)).collect();
    let target = [Target { tokens, open_ended: false }];
    bench(c, "ctc/1000x60", frames * (2 * n_tokens as usize + 1), || {
        ctc_loss(&logits, &target, &[frames], 0)
    });
}

/// Elements are frames; `benches/faiss_assignment.py` measures others on the same shapes.
fn units(c: &mut Criterion) {
    let (frames, count) = (20_000, 1000);
    for dim in [DIM, 64, 39] {
        let (x, centroids) = (uniform(frames * dim, 1), uniform(count * dim, 2));
        let centroids = Centroids::new(centroids, dim);
        let mut group = c.benchmark_group("nearest");
        group.throughput(Throughput::Elements(frames as u64)).sample_size(10);
        group.bench_function(format!("{dim}x{count}"), |b| {
            b.iter(|| black_box(centroids.nearest(&x)));
        });
        group.finish();
    }
}

criterion_group!(kernels, products, convolutions, attentions, elementwise, losses, units);
criterion_main!(kernels);
