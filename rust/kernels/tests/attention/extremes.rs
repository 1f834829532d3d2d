//! Attention over numbers at the ends of their ranges, and over what is no
//! number.

use crate::case::{Case, HIDDEN};
use crate::common::Random;
use crate::{ZERO, bits, check, run, size, tiers};

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn large_and_tiny_numbers() {
    let mut random = Random(11);
    for tokens in [1, 3, 20, 70] {
        for query in [1e-40, 1e-30, 0.0, 100.0] {
            let mut case = Case::new(size(64, 1, 3, tokens, 90), &mut random);
            case.query.iter_mut().for_each(|x| *x *= query);
            // Values from denormal to the largest, all the same in a row.
            for (cell, row) in case.value.chunks_mut(case.shape.value.row).enumerate() {
                let bits = [0x7bff_u16, 0x8001, 0x0400, 0xfbff, 0][cell % 5];
                for value in row.chunks_mut(2) {
                    value.copy_from_slice(&bits.to_le_bytes());
                }
            }
            check(&case, "unmasked");
            // A bias of -65504 is as good as hidden.
            let case = case.with_mask(|_, cell| [ZERO, 0xfbff, HIDDEN][cell % 3]);
            check(&case, "masked");
            let sinks = [f32::NEG_INFINITY, 1e30, -1e30].map(|sink| vec![sink; 3]);
            for sinks in sinks {
                let case = Case {
                    sinks: Some(sinks),
                    shape: case.shape,
                    query: case.query.clone(),
                    key: case.key.clone(),
                    value: case.value.clone(),
                    mask: case.mask.clone(),
                };
                check(&case, "sinks");
            }
        }
    }
}

/// Which cells have keys or values that are no finite numbers, and who sees them.
#[derive(Clone, Copy, Debug)]
enum Scene {
    /// A prompt: the last token's cell is bad, and only it sees it.
    Causal,
    /// Two sequences in one pool: the cells of the second one are bad.
    Pool,
    /// A cell in the middle is hidden from the first token only.
    Middle,
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn what_is_no_number_stays_with_who_sees_it() {
    let mut random = Random(12);
    for scene in [Scene::Causal, Scene::Pool, Scene::Middle] {
        for tokens in [2, 5, 16, 40, 70] {
            // 96 values are a column and a half.
            for (dim, group) in [(64, 3), (96, 1), (256, 4)] {
                let cells = 100 + tokens;
                let sees = |token: usize, cell: usize| match scene {
                    Scene::Causal => cell <= 100 + token,
                    Scene::Pool => cell % 2 == token % 2,
                    Scene::Middle => cell != 80 || token != 0,
                };
                let is_bad = |cell: usize| match scene {
                    Scene::Causal => cell == cells - 1,
                    Scene::Pool => cell % 2 == 1,
                    Scene::Middle => cell == 80,
                };
                let good = Case::new(size(dim, 1, group, tokens, cells), &mut random)
                    .with_mask(|token, cell| if sees(token, cell) { ZERO } else { HIDDEN });
                for (key, value) in [(0x3c00, 0x7c00), (0x3c00, 0x7e00), (0xfc00, 0xfc00)] {
                    let mut bad = Case {
                        shape: good.shape,
                        query: good.query.clone(),
                        key: good.key.clone(),
                        value: good.value.clone(),
                        mask: good.mask.clone(),
                        sinks: None,
                    };
                    for cell in (0..cells).filter(|&cell| is_bad(cell)) {
                        let place = 2 * random.below(dim);
                        for (memory, row, bits) in [
                            (&mut bad.key, good.shape.key.row, key as u16),
                            (&mut bad.value, good.shape.value.row, value),
                        ] {
                            let place = cell * row + place;
                            memory[place..place + 2].copy_from_slice(&bits.to_le_bytes());
                        }
                    }
                    for tier in tiers() {
                        let (expected, found) = (run(&good, tier, 2), run(&bad, tier, 3));
                        let row = good.shape.output.row / 4;
                        for token in 0..tokens {
                            let [expected, found] =
                                [&expected, &found].map(|out| &out[token * row..][..row]);
                            let meets = (0..cells).any(|cell| is_bad(cell) && sees(token, cell));
                            let what = format!("{tier:?} {scene:?} {tokens} {dim} {token}");
                            match (meets, key) {
                                (true, 0x3c00) => {
                                    assert!(!found.iter().all(|x| x.is_finite()), "{what}");
                                }
                                // A score of -inf hides its cell.
                                (true, _) => {}
                                // What others see changes nothing but rounding.
                                (false, _) => assert!(close(expected, found), "{what}"),
                            }
                        }
                    }
                }
            }
        }
    }
}

fn close(expected: &[f32], found: &[f32]) -> bool {
    bits(expected) == bits(found)
        || (expected.iter().zip(found)).all(|(a, b)| (a - b).abs() < 1e-5 * a.abs().max(1.0))
}
