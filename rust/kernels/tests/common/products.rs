//! Products of test matrices, and what they are to be.

use llm_kernels::dispatch::Tier;
use llm_kernels::matmul::{Activations, GROUP, Layout, Output, Rows, WeightType};

use super::{Random, dequantize, round_activations};

pub fn tiers() -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().filter(|tier| tier.is_available())
}

/// Rows that are a stride apart, of very different sizes, some of them zero or
/// denormal.
pub fn activations(rows: usize, cols: usize, stride: usize, random: &mut Random) -> Vec<f32> {
    let mut x = vec![f32::NAN; rows * stride];
    for row in x.chunks_mut(stride) {
        for block in row[..cols].chunks_mut(32) {
            let size = match random.below(12) {
                0 => 0.0,
                1 => 1e-40,
                2 => 1e6,
                _ => 1.0,
            };
            block.fill_with(|| random.unit() * size);
        }
    }
    x
}

/// Memory for activations.
pub struct Memory(Vec<u64>);

impl Memory {
    pub fn new(rows: usize, cols: usize) -> Self {
        Memory(vec![0; Activations::bytes(rows, cols).div_ceil(8)])
    }

    pub fn activations(&mut self, rows: usize, cols: usize) -> Activations<'_> {
        // SAFETY: large enough, aligned to 8, and only used through the result.
        unsafe { Activations::new(self.0.as_mut_ptr().cast(), rows, cols) }
    }
}

/// The product with every step shared out among `threads` threads.
pub fn product(
    layout: &Layout,
    packed: &[u8],
    tier: Tier,
    x: Rows,
    n: usize,
    threads: usize,
) -> Vec<f32> {
    let mut memory = Memory::new(n, layout.cols());
    let quantized = memory.activations(n, layout.cols());
    let mut out = vec![f32::NAN; n * layout.rows()];
    let output = Output::from_slice(&mut out, n, layout.rows());
    let share = |count: usize, thread| count * thread / threads..count * (thread + 1) / threads;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || quantized.quantize(tier, x, share(n, thread)));
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let groups = share(layout.groups(), thread);
                let end = (groups.end * GROUP).min(layout.rows());
                layout.multiply(packed, &quantized, groups.start * GROUP..end, &output);
            });
        }
    });
    out
}

/// Compares the rows of a product with the sums that they are to be.
pub fn assert_close(out: &[f32], kind: WeightType, source: &[u8], x: Rows, what: &str) {
    let (n, stride) = (x.data.len() / x.stride, x.stride);
    let rows = out.len() / n;
    let row_bytes = source.len() / rows;
    let cols = row_bytes / kind.block_bytes() * kind.block_values();
    let x: Vec<_> = x.data.chunks(stride).collect();
    let x: Vec<_> = x.iter().map(|x| round_activations(&x[..cols])).collect();
    for (j, source) in source.chunks(row_bytes).enumerate() {
        let w: Vec<f64> = source
            .chunks(kind.block_bytes())
            .flat_map(|block| dequantize(kind, block))
            .collect();
        for (i, x) in x.iter().enumerate() {
            let products = || w.iter().zip(x).map(|(w, x)| w * x);
            let expected: f64 = products().sum();
            let size: f64 = products().map(f64::abs).sum();
            let got = f64::from(out[i * rows + j]);
            // With minima the terms are larger than the values are.
            assert!(
                (got - expected).abs() <= 4e-6 * size + 1e-30,
                "{what}: row {i}, output {j}: {got} instead of {expected} ({size})"
            );
        }
    }
}
