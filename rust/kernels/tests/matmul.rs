//! The products against a plain reference, over seeded shapes.

mod common;

use std::time::Instant;

use common::products::{Memory, activations, assert_close, product, tiers};
use common::{Random, weights};
use llm_kernels::dispatch::Tier;
use llm_kernels::matmul::{GROUP, Layout, Output, Rows, Selected, WeightType};

#[test]
fn products_are_those_of_the_reference() {
    for kind in WeightType::ALL {
        let mut random = Random(0x5eed + kind as u64);
        for n in [1, 2, 3, 4, 5, 17]
            .into_iter()
            .filter(|&n| !cfg!(miri) || n == 2)
        {
            let rows = if cfg!(miri) {
                32
            } else {
                [32, 64, 96][random.below(3)]
            };
            let cols = kind.block_values() * if cfg!(miri) { 1 } else { 1 + random.below(4) };
            let stride = cols + random.below(9);
            let source = weights(kind, rows, cols, &mut random);
            let x = activations(n, cols, stride, &mut random);
            for tier in tiers() {
                let layout = Layout::new(tier, kind, rows, cols).unwrap();
                let mut packed = vec![0; layout.bytes()];
                layout.pack(&source, &mut packed);
                let view = Rows { data: &x, stride };
                let out = product(&layout, &packed, tier, view, n, 1 + random.below(8));
                let what = format!("{tier:?} {kind} {rows}x{cols} n={n}");
                assert_close(&out, kind, &source, view, &what);
            }
        }
    }
}

#[test]
fn tiers_batches_and_threads_make_no_difference() {
    for kind in WeightType::ALL {
        let mut random = Random(0xb17 + kind as u64);
        // The last ones do not fit into one tile.
        for n in (1..=70).chain(126..=131).filter(|&n| !cfg!(miri) || n == 2) {
            let rows = 1024 + random.below(GROUP);
            let rows = if n % 8 == 0 && !cfg!(miri) { rows } else { 64 };
            let cols = kind.block_values() * if rows == 64 { 1 + random.below(4) } else { 1 };
            let source = weights(kind, rows, cols, &mut random);
            let x = activations(n, cols, cols, &mut random);
            let view = Rows {
                data: &x,
                stride: cols,
            };
            let mut expected: Option<Vec<u32>> = None;
            for tier in tiers() {
                let layout = Layout::new(tier, kind, rows, cols).unwrap();
                let mut packed = vec![0; layout.bytes()];
                layout.pack(&source, &mut packed);
                let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let threads = 1 + random.below(8);
                let all = bits(product(&layout, &packed, tier, view, n, threads));
                let row = random.below(n);
                let one = Rows {
                    data: &x[row * cols..],
                    stride: cols,
                };
                let alone = bits(product(&layout, &packed, tier, one, 1, 1));
                assert_eq!(
                    alone,
                    all[row * rows..][..rows],
                    "{tier:?} {kind} {rows}x{cols} {n}"
                );
                assert_eq!(
                    *expected.get_or_insert(all.clone()),
                    all,
                    "{tier:?} {kind} {rows}x{cols} {n}"
                );
            }
            if rows == 64 {
                let bits = expected.into_iter().flatten();
                let out: Vec<f32> = bits.map(f32::from_bits).collect();
                assert_close(&out, kind, &source, view, &format!("{kind} {cols} {n}"));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn products_that_nobody_chose() {
    let (mut random, end) = Random::from_clock();
    while Instant::now() < end {
        let kind = WeightType::ALL[random.below(WeightType::ALL.len())];
        let rows = match random.below(4) {
            0 => 1024 + random.below(GROUP),
            _ => GROUP * (1 + random.below(8)),
        };
        let cols = kind.block_values() * (1 + random.below(4));
        let n = 1 + random.below((4_000_000 / (rows * cols)).clamp(1, 140));
        let stride = cols + random.below(9);
        let source = weights(kind, rows, cols, &mut random);
        let x = activations(n, cols, stride, &mut random);
        let view = Rows { data: &x, stride };
        let mut first: Option<Vec<f32>> = None;
        for tier in tiers() {
            let layout = Layout::new(tier, kind, rows, cols).unwrap();
            let mut packed = vec![0; layout.bytes()];
            layout.pack(&source, &mut packed);
            let threads = 1 + random.below(8);
            let out = product(&layout, &packed, tier, view, n, threads);
            let what = format!("{tier:?} {kind} {rows}x{cols} n={n}, {threads} threads");
            let first = first.get_or_insert_with(|| {
                assert_close(&out, kind, &source, view, &what);
                out.clone()
            });
            let same = first
                .iter()
                .zip(&out)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}");
        }
    }
}

#[test]
fn unpacking_gives_back_the_bytes() {
    for kind in WeightType::ALL {
        let mut random = Random(7 + kind as u64);
        let (rows, cols) = (1024 + random.below(GROUP), 2 * kind.block_values());
        let source = weights(kind, rows, cols, &mut random);
        let layout = Layout::new(Tier::Portable, kind, rows, cols).unwrap();
        let mut packed = vec![0xaa; layout.bytes()];
        layout.pack(&source, &mut packed);
        for tier in tiers() {
            let layout = Layout::new(tier, kind, rows, cols).unwrap();
            let mut same = vec![0x55; layout.bytes()];
            layout.pack(&source, &mut same);
            assert!(same == packed, "{tier:?} {kind}");
        }
        let mut back = vec![0x55; source.len()];
        layout.unpack(&packed, &mut back);
        assert!(source == back, "{kind}");

        let mut shared = vec![0; layout.bytes()];
        let (first, second) = shared.split_at_mut(3 * layout.group_bytes());
        layout.pack_groups(0..3, &source, first);
        layout.pack_groups(3..layout.groups(), &source, second);
        assert!(shared == packed, "{kind}");
    }
}

#[test]
fn selected_rows_go_where_they_are_told() {
    let (kind, rows, cols, n) = (WeightType::Q5_1, 64, 64, 9);
    let mut random = Random(3);
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
        let all = product(&layout, &packed, tier, view, n, 1);
        for count in [0, 1, 5, 64, 65, 200]
            .into_iter()
            .filter(|&n| !cfg!(miri) || n < 6)
        {
            let selected: Vec<_> = (0..count)
                .map(|i| Selected {
                    input: random.below(n) as u32,
                    output: (count - 1 - i) as u32,
                })
                .collect();
            let mut memory = Memory::new(n, cols);
            let quantized = memory.activations(n, cols);
            quantized.quantize(tier, view, 0..n);
            let mut out = vec![f32::NAN; count * rows];
            let output = Output::from_slice(&mut out, count, rows);
            layout.multiply_selected(&packed, &quantized, &selected, 0..rows, &output);
            for s in selected {
                let got = &out[s.output as usize * rows..][..rows];
                assert_eq!(
                    got,
                    &all[s.input as usize * rows..][..rows],
                    "{tier:?} {count}"
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_left_alone() {
    let tier = Tier::Portable;
    assert!(Layout::new(tier, WeightType::Q4_0, 64, 48).is_none());
    assert!(Layout::new(tier, WeightType::Q4_K, 64, 128).is_none());
    assert!(Layout::new(tier, WeightType::Q4_0, 0, 32).is_none());
    // 31 rows too many cost more than 3%.
    assert!(Layout::new(tier, WeightType::Q4_0, 65, 32).is_none());
    assert!(Layout::new(tier, WeightType::Q4_0, 1025, 32).is_some());
}
