//! Products of one weight matrix on one thread, for each type, by number of
//! activation rows; quantizing the rows is part of it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use llm_kernels::dispatch::Tier;
use llm_kernels::matmul::{Activations, Layout, Output, Rows, WeightType};

/// Outputs and inner dimension: 0.6 to 1.2 MB of weights, which the caches hold.
const OUTPUTS: usize = 1536;
const INNER: usize = 768;

/// A single stream, several, many, and a prompt.
const ROWS: [usize; 4] = [1, 8, 32, 512];

fn products(c: &mut Criterion) {
    let tier = Tier::detect().expect("a tier for this CPU");
    for kind in WeightType::ALL {
        let mut group = c.benchmark_group(format!("{kind}"));
        let layout = Layout::new(tier, kind, OUTPUTS, INNER).expect("a size that fits");
        // Bytes that are no infinities as half floats.
        let byte = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x3f;
        let source: Vec<u8> = (0..layout.bytes()).map(byte).collect();
        let mut packed = vec![Line([0; 64]); layout.bytes().div_ceil(64)];
        let packed = bytes(&mut packed);
        layout.pack(&source, packed);
        for rows in ROWS {
            let x: Vec<f32> = (0..rows * INNER).map(|i| (i % 97) as f32 - 48.0).collect();
            let mut memory = vec![Line([0; 64]); Activations::bytes(rows, INNER).div_ceil(64)];
            let memory = bytes(&mut memory);
            let mut out = vec![0.0; rows * OUTPUTS];
            group.throughput(Throughput::Elements((2 * rows * OUTPUTS * INNER) as u64));
            group.bench_function(BenchmarkId::from_parameter(rows), |b| {
                b.iter(|| {
                    // SAFETY: large enough, aligned, and used by nobody else.
                    let quantized = unsafe { Activations::new(memory.as_mut_ptr(), rows, INNER) };
                    let view = Rows {
                        data: &x,
                        stride: INNER,
                    };
                    quantized.quantize(tier, view, 0..rows);
                    let out = Output::from_slice(&mut out, rows, OUTPUTS);
                    layout.multiply(packed, &quantized, 0..OUTPUTS, &out);
                });
            });
        }
    }
}

/// A line of the cache.
#[repr(align(64))]
#[derive(Clone)]
struct Line(#[expect(dead_code, reason = "only its memory is used")] [u8; 64]);

fn bytes(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: lines are bytes without gaps.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

criterion_group!(benches, products);
criterion_main!(benches);
