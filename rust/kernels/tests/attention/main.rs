//! The attention kernels against their definition in f64.

mod case;
#[path = "../common/mod.rs"]
mod common;
mod extremes;

use std::time::Instant;

use case::{Case, HIDDEN, Size};
use common::Random;
use llm_kernels::attention::{Attention, CacheType, Shape};
use llm_kernels::dispatch::Tier;

const ZERO: u16 = 0;

/// The kernels round weights that would be denormal to 0.
const DENORMAL: f64 = 65504.0 * f32::MIN_POSITIVE as f64;

fn tiers() -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().filter(|tier| tier.is_available())
}

fn run(case: &Case, tier: Tier, threads: usize) -> Vec<f32> {
    let attention = Attention::new(tier, case.shape).expect("a supported shape");
    let mut output = vec![f32::NAN; case.output_len()];
    attention.run(&case.inputs(), &mut output, threads);
    output
}

fn bits(output: &[f32]) -> Vec<u32> {
    output.iter().map(|x| x.to_bits()).collect()
}

/// Compares with the definition, and all tiers and thread counts with each
/// other.
fn check(case: &Case, name: &str) {
    let shape = case.shape;
    let work = shape.heads * shape.key_dim * shape.rows_and_cells();
    // Plain Rust takes too long for the large ones.
    let tiers: Vec<Tier> = tiers()
        .filter(|&tier| tier != Tier::Portable || work < 4_000_000)
        .collect();
    let Some(&first) = tiers.first() else { return };
    let output = run(case, first, 1);
    for (i, (&x, (expected, tolerance))) in output.iter().zip(case.expected()).enumerate() {
        assert!(
            (f64::from(x) - expected).abs() <= tolerance + DENORMAL,
            "{name}: {x} instead of {expected} at {i} of {shape:?}"
        );
    }
    for &tier in &tiers {
        let others = 2 + case.shape.cells % 7;
        let threads = match tier == first && !cfg!(miri) {
            true => vec![2, 3, 4, 5, 6, 7, 8],
            false => vec![1, others],
        };
        for threads in threads {
            assert!(
                bits(&run(case, tier, threads)) == bits(&output),
                "{name}: {tier:?} with {threads} threads differs for {shape:?}"
            );
        }
    }
}

trait Work {
    fn rows_and_cells(&self) -> usize;
}

impl Work for Shape {
    fn rows_and_cells(&self) -> usize {
        self.tokens * self.streams * self.cells
    }
}

fn size(dim: usize, kv_heads: usize, group: usize, tokens: usize, cells: usize) -> Size {
    Size {
        kind: CacheType::F16,
        dim,
        kv_heads,
        group,
        tokens,
        cells,
        streams: 1,
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn random_nodes() {
    let mut random = Random(1);
    for round in 0..120 {
        let (case, name) = random_node(&mut random);
        check(&case, &format!("round {round} ({name})"));
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn nodes_that_nobody_chose() {
    let (mut random, end) = Random::from_clock();
    while Instant::now() < end {
        let (case, name) = random_node(&mut random);
        check(&case, &name);
    }
}

/// A node, and what it is.
fn random_node(random: &mut Random) -> (Case, String) {
    let tokens = [1, 1, 2, 7, 15, 16, 17, 33, 70][random.below(9)];
    let cells = match random.below(3) {
        0 => 1 + random.below(70),
        1 => 1 + random.below(300),
        _ => 1 + random.below(6000 / tokens).min(3000),
    };
    let size = Size {
        kind: [CacheType::F16, CacheType::Q8_0][random.below(2)],
        dim: [32, 64, 64, 96, 128, 256][random.below(6)],
        kv_heads: 1 + random.below(3),
        group: [1, 2, 3, 4, 5, 7, 8, 11][random.below(8)],
        tokens,
        cells,
        streams: 1 + random.below(6) / 5,
    };
    let mut case = Case::new(size, random);
    let sparsity = [2, 3, 20][random.below(3)];
    let window = 1 + random.below(cells);
    let kind = random.below(6);
    if kind > 0 {
        case = case.with_mask(|token, cell| {
            let end = (cells * (token + 1)).div_ceil(tokens);
            let is_visible = match kind {
                1 => cell < end,
                2 => cell < end && cell + window >= end,
                3 => random.below(sparsity) == 0,
                // Each row of another sequence, and some that see nothing.
                4 => token % 5 != 0 && cell / 7 % tokens == token,
                _ => {
                    // Biases of 0 to -16.
                    let bits = 0x8000 + 0x4c00 * (random.below(64) as u16) / 64;
                    return if cell < end { bits } else { HIDDEN };
                }
            };
            if is_visible { ZERO } else { HIDDEN }
        });
    }
    if random.below(4) == 0 {
        case.shape.soft_cap = [0.5, 20.0][random.below(2)];
    }
    if kind > 0 && random.below(3) == 0 {
        case.shape.max_bias = 8.0;
    }
    if random.below(4) == 0 {
        case.sinks = Some((0..case.shape.heads).map(|_| 4.0 * random.unit()).collect());
    }
    (case, format!("{size:?}, mask {kind}"))
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn any_number_of_rows() {
    let mut random = Random(10);
    for tokens in 1..=70 {
        let (group, cells) = (1 + random.below(4), 1 + random.below(150));
        let kind = [CacheType::F16, CacheType::Q8_0][tokens % 2];
        let size = Size {
            kind,
            ..size(32, 1, group, tokens, cells)
        };
        let case = Case::new(size, &mut random);
        check(&case, "all");
        let before = random.below(cells);
        let causal = |token, cell| if cell <= before + token { ZERO } else { HIDDEN };
        check(&case.with_mask(causal), "causal");
    }
}

/// Small enough for Miri.
#[test]
fn keys_and_values_of_different_lengths_and_types() {
    let mut random = Random(2);
    for [tokens, cells] in [[1, 130], [17, 20]] {
        let mut a = Case::new(size(32, 1, 2, tokens, cells), &mut random);
        let b = Size {
            kind: CacheType::Q8_0,
            ..size(64, 1, 2, tokens, cells)
        };
        let b = Case::new(b, &mut random);
        a.shape.value_type = b.shape.value_type;
        a.shape.value_dim = b.shape.value_dim;
        a.shape.value = b.shape.value;
        a.shape.output = b.shape.output;
        a.value = b.value;
        a = a.with_mask(|_, cell| if cell % 9 == 4 { HIDDEN } else { ZERO });
        check(&a, "different");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn what_is_seen_by_no_row_is_not_read() {
    // Not-a-number in hidden cells must not get into any result.
    let mut random = Random(3);
    for tokens in [1, 4, 40] {
        let mut case = Case::new(size(64, 1, 3, tokens, 200), &mut random)
            .with_mask(|_, cell| if cell % 3 == 1 { HIDDEN } else { ZERO });
        for cell in (1..200).step_by(3) {
            let row = case.shape.key.row;
            case.key[cell * row..][..row].fill(0x7f);
            case.value[cell * row..][..row].fill(0x7f);
        }
        check(&case, "poisoned");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn rows_that_see_nothing_are_zero() {
    for tokens in [1, 20] {
        let case = Case::new(size(64, 1, 2, tokens, 300), &mut Random(4)).with_mask(|_, _| HIDDEN);
        check(&case, "hidden");
        assert!(
            run(&case, tiers().last().unwrap(), 2)
                .iter()
                .all(|&x| x == 0.0)
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn what_is_not_a_number_stays_so() {
    for tokens in [1, 20] {
        let mut case = Case::new(size(64, 1, 2, tokens, 300), &mut Random(5));
        case.query[3] = f32::NAN;
        for tier in tiers() {
            let output = run(&case, tier, 2);
            assert!(output[..64].iter().all(|x| x.is_nan()), "{tier:?}");
            assert!(output[64..].iter().all(|x| x.is_finite()), "{tier:?}");
        }
    }
}

/// A node with only some of the tokens of another one.
fn some_tokens(case: &Case, tokens: std::ops::Range<usize>) -> Case {
    let mut shape = case.shape;
    shape.tokens = tokens.len();
    let row = shape.query.row / 4;
    Case {
        shape,
        query: case.query[tokens.start * row..tokens.end * row].to_vec(),
        key: case.key.clone(),
        value: case.value.clone(),
        mask: case
            .mask
            .as_ref()
            .map(|mask| mask[tokens.start * shape.cells..tokens.end * shape.cells].to_vec()),
        sinks: case.sinks.clone(),
    }
}

/// Rows in a pool whose first cells all of them see: row `token` is token
/// `at(token).1` of sequence `at(token).0`, with its own cells behind those of
/// the sequence before. A window, if not 0, is that many tokens.
fn sharing(rows: usize, window: usize, at: impl Fn(usize) -> (usize, usize)) -> Case {
    const SHARED: usize = 900;
    const OWN: usize = 80;
    let size = size(64, 3, 3, rows, 1500);
    Case::new(size, &mut Random(9)).with_mask(|token, cell| {
        let (sequence, newest) = at(token);
        let own = SHARED + sequence * OWN;
        let position = match cell {
            0..SHARED => Some(cell),
            _ if (own..own + OWN).contains(&cell) => Some(SHARED + cell - own),
            _ => None,
        };
        let is_seen = |position: usize| {
            let newest = SHARED + newest;
            position <= newest && (window == 0 || position + window > newest)
        };
        match position.is_some_and(is_seen) {
            true => ZERO,
            false => HIDDEN,
        }
    })
}

/// Rows `tokens` of a node are what they are as a node of their own.
fn check_alone(case: &Case, tokens: std::ops::Range<usize>) {
    let tier = tiers().last().unwrap();
    for threads in [1, 2] {
        let all = run(case, tier, threads);
        let some = run(&some_tokens(case, tokens.clone()), tier, 1);
        let row = case.shape.output.row / 4;
        let found = &all[tokens.start * row..tokens.end * row];
        assert!(bits(&some) == bits(found), "{tokens:?}, {threads} threads");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn rows_do_not_depend_on_their_neighbours() {
    // 32 sequences, a token each; and a prompt of which a part comes later.
    let cells = 1500;
    let pool = Case::new(size(64, 3, 3, 32, cells), &mut Random(6)).with_mask(|token, cell| {
        if cell / 10 % 32 == token {
            ZERO
        } else {
            HIDDEN
        }
    });
    (0..32).for_each(|token| check_alone(&pool, token..token + 1));
    for window in [0, 300] {
        let prompt = sharing(64, window, |token| (0, token));
        for start in (0..64).step_by(16) {
            check_alone(&prompt, start..start + 16);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn sequences_that_share_most_cells_do_not_depend_on_each_other() {
    // A tile is 16 tokens here.
    for window in [0, 300] {
        for more in [0, 4] {
            let streams = sharing(16, window, |token| (token % 7, more * token));
            (0..16).for_each(|token| check_alone(&streams, token..token + 1));
        }

        // As drafts have it: several tokens of the first.
        let drafts = sharing(11, window, |token| match token {
            0..8 => (0, 20 + token),
            _ => (token - 7, 5 * token),
        });
        check_alone(&drafts, 0..8);
        (8..11).for_each(|token| check_alone(&drafts, token..token + 1));

        // Beside a prompt, before and after it.
        let prompt = sharing(48, window, |token| match token {
            0..3 => (token, 10 + token),
            3..43 => (3, token - 3),
            _ => (4, 11 * (token - 43)),
        });
        for token in (0..3).chain(43..48) {
            check_alone(&prompt, token..token + 1);
        }
        check_alone(&prompt, 16..32);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn prompts_are_tiles() {
    let tier = tiers().last().unwrap();
    for window in [0, 300] {
        // The rest of a tile is another's, and few rows see too little of one.
        for (rows, is_tile) in [(16, true), (12, true), (7, false)] {
            let case = sharing(16, window, |token| match token {
                _ if token < rows => (0, token),
                _ => (token - rows + 1, 3 * token),
            });
            let all = run(&case, tier, 1);
            let row = case.shape.output.row / 4;
            let alone: Vec<f32> = (0..rows)
                .flat_map(|token| run(&some_tokens(&case, token..token + 1), tier, 1))
                .collect();
            let is_alike = bits(&alone) == bits(&all[..rows * row]);
            assert_eq!(is_alike, !is_tile, "{rows} rows, window {window}");
        }
    }
}

#[test]
fn unsupported_shapes_are_refused() {
    let case = Case::new(size(64, 2, 2, 1, 10), &mut Random(8));
    let supported = |change: fn(&mut Shape)| {
        let mut shape = case.shape;
        change(&mut shape);
        Attention::new(Tier::Portable, shape).is_some()
    };
    assert!(supported(|_| ()));
    assert!(!supported(|shape| shape.key_dim = 80));
    assert!(!supported(|shape| shape.value_dim = 16));
    assert!(!supported(|shape| shape.heads = 3));
    assert!(!supported(|shape| shape.cells = 0));
    assert!(!supported(|shape| shape.query.row += 2));
    assert!(!supported(|shape| shape.mask =
        Some(llm_kernels::attention::Strides {
            row: 20,
            head: 20,
            stream: 0
        })));
}

#[test]
#[should_panic(expected = "shorter than its tensor")]
fn slices_that_are_too_short_are_refused() {
    let mut case = Case::new(size(64, 2, 2, 1, 10), &mut Random(9));
    case.key.pop();
    run(&case, Tier::Portable, 1);
}
