//! Products of numbers at the ends of their ranges, and of what is no number.

mod common;

use common::products::{activations, assert_close, product, tiers};
use common::{Random, halves, weights};
use llm_kernels::dispatch::Tier;
use llm_kernels::matmul::{Layout, Rows, WeightType};

/// Some rows, and few enough for each thread to quantize all.
const ROWS: [usize; 3] = [1, 4, 19];

fn multiply(tier: Tier, kind: WeightType, source: &[u8], x: &[f32], n: usize) -> Vec<f32> {
    let cols = x.len() / n;
    let rows = source.len() / (cols / kind.block_values() * kind.block_bytes());
    let layout = Layout::new(tier, kind, rows, cols).unwrap();
    let mut packed = vec![0; layout.bytes()];
    layout.pack(source, &mut packed);
    let view = Rows {
        data: x,
        stride: cols,
    };
    product(&layout, &packed, tier, view, n, 2)
}

fn bits(out: &[f32]) -> Vec<u32> {
    out.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn any_number_of_threads_computes_the_same() {
    for kind in WeightType::ALL {
        let mut random = Random(0x7ead + kind as u64);
        // 17 rows in the last group.
        let (rows, cols, n) = (1041, kind.block_values(), 9);
        let rows = if cfg!(miri) { 32 } else { rows };
        let source = weights(kind, rows, cols, &mut random);
        let x = activations(n, cols, cols, &mut random);
        let view = Rows {
            data: &x,
            stride: cols,
        };
        for tier in tiers() {
            let layout = Layout::new(tier, kind, rows, cols).unwrap();
            let mut packed = vec![0; layout.bytes()];
            layout.pack(&source, &mut packed);
            let run = |threads| product(&layout, &packed, tier, view, n, threads);
            let one = bits(&run(1));
            for threads in 2..=8 {
                assert!(bits(&run(threads)) == one, "{tier:?} {kind} {threads}");
            }
        }
    }
}

#[test]
fn large_and_tiny_numbers() {
    for kind in WeightType::ALL {
        let mut random = Random(0xe87 + kind as u64);
        let (rows, cols) = (32, 2 * kind.block_values());
        for n in ROWS {
            let mut source = weights(kind, rows, cols, &mut random);
            for block in source.chunks_exact_mut(kind.block_bytes()) {
                for &at in halves(kind) {
                    // The largest, the smallest, the smallest normal half; 0.
                    let bits = [0x7bff, 0x0001, 0x0400, 0][random.below(4)];
                    let sign = (random.next() & 0x8000) as u16;
                    block[at..at + 2].copy_from_slice(&(bits | sign).to_le_bytes());
                }
            }
            let mut x = activations(n, cols, cols, &mut random);
            for block in x.chunks_mut(32) {
                let size = [1e24, 1e-30, 1e-36, f32::MIN_POSITIVE / 64.0, 1.0][random.below(5)];
                block.iter_mut().for_each(|x| *x = random.unit() * size);
            }
            let mut first = None;
            for tier in tiers() {
                let out = multiply(tier, kind, &source, &x, n);
                let view = Rows {
                    data: &x,
                    stride: cols,
                };
                assert_close(&out, kind, &source, view, &format!("{tier:?} {kind} {n}"));
                assert!(*first.get_or_insert(bits(&out)) == bits(&out), "{tier:?}");
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    for kind in WeightType::ALL {
        let mut random = Random(0xbad + kind as u64);
        let (rows, cols) = (64, kind.block_values());
        for n in ROWS {
            let source = weights(kind, rows, cols, &mut random);
            let x = activations(n, cols, cols, &mut random);
            let bad = random.below(n);
            let place = bad * cols + random.below(cols);
            for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut poisoned = x.clone();
                poisoned[place] = value;
                for tier in tiers() {
                    let good = multiply(tier, kind, &source, &x, n);
                    let out = multiply(tier, kind, &source, &poisoned, n);
                    for (row, (out, good)) in out.chunks(rows).zip(good.chunks(rows)).enumerate() {
                        let fine = match row == bad {
                            true => out.iter().all(|x| x.is_nan()),
                            false => bits(out) == bits(good),
                        };
                        assert!(fine, "{tier:?} {kind} {value}, row {row} of {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn weights_that_are_no_numbers_stay_in_their_output() {
    for kind in WeightType::ALL {
        let mut random = Random(0xbad0 + kind as u64);
        let (rows, cols, n) = (64, 2 * kind.block_values(), 5);
        let source = weights(kind, rows, cols, &mut random);
        let x = activations(n, cols, cols, &mut random);
        let bad = random.below(rows);
        for value in [0x7e00_u16, 0x7c00, 0xfc00] {
            let mut poisoned = source.clone();
            let at = 2 * bad * kind.block_bytes() + halves(kind)[0];
            poisoned[at..at + 2].copy_from_slice(&value.to_le_bytes());
            for tier in tiers() {
                let good = multiply(tier, kind, &source, &x, n);
                let out = multiply(tier, kind, &poisoned, &x, n);
                for (i, (out, good)) in out.iter().zip(&good).enumerate() {
                    let fine = match i % rows == bad {
                        // The activations of its block may be zeros.
                        true => value != 0x7e00 || out.is_nan(),
                        false => out.to_bits() == good.to_bits(),
                    };
                    assert!(fine, "{tier:?} {kind} {value:#x}, output {i}");
                }
            }
        }
    }
}
