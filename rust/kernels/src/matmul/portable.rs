//! The product in plain Rust: what the other tiers compute, bit by bit.

use super::Tile;
use super::format::{GROUP, IQ4_NL_CODES, Scales, Spec, WeightType};
use super::pack::read_codes;

/// # Safety
/// See [`Tile`].
pub(crate) unsafe fn multiply(kind: WeightType, tile: &mut Tile) {
    let spec = kind.spec();
    tile.sums.fill([0.0; GROUP]);
    for (index, chunk) in tile.weights.chunks_exact(spec.chunk()).enumerate() {
        for block in 0..spec.blocks {
            for output in 0..GROUP {
                let weights = Weights::read(spec, chunk, output, block);
                for (&input, sums) in tile.inputs.iter().zip(tile.sums.iter_mut()) {
                    // SAFETY: inputs have the blocks of all k of the weights.
                    let x = unsafe { &*input.add((index * spec.blocks + block) * tile.step) };
                    let sum = &mut sums[output];
                    for (half, &scale) in weights.scales[..=usize::from(spec.is_split())]
                        .iter()
                        .enumerate()
                    {
                        let range = match spec.is_split() {
                            false => 0..32,
                            true => 16 * half..16 * half + 16,
                        };
                        let products = weights.codes[range.clone()].iter().zip(&x.codes[range]);
                        let dot: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                        let dot = dot + x.start(spec, half);
                        *sum = (dot as f32).mul_add(scale * x.scale, *sum);
                    }
                    if spec.has_minimum() {
                        *sum = weights.minimum.mul_add(x.scaled_sum, *sum);
                    }
                }
            }
        }
    }
}

/// A row's block of weights.
struct Weights {
    codes: [u8; 32],
    /// The second one is used if the halves of a block have scales of their own.
    scales: [f32; 2],
    minimum: f32,
}

impl Weights {
    fn read(spec: Spec, chunk: &[u8], row: usize, block: usize) -> Self {
        let byte = |field: usize| chunk[field * GROUP + row];
        let half = |field: usize| {
            let at = (field * GROUP + row) * 2;
            half_to_f32(u16::from_le_bytes([chunk[at], chunk[at + 1]]))
        };
        let (scales, minimum) = match spec.scales {
            Scales::Plain => ([half(0), 0.0], 0.0),
            Scales::Minimum => ([half(0), 0.0], half(1)),
            Scales::Factors6 => {
                // After the two halves: 12 fields of a byte, two of a row's
                // bytes being one half.
                let (scale, minimum) = factors6(|index| byte(4 + index), block);
                let scale = half(0) * f32::from(scale);
                ([scale, 0.0], 0.0 - half(1) * f32::from(minimum))
            }
            Scales::Factors8 => {
                let factor = |index| f32::from(byte(2 + 2 * block + index) as i8);
                ([half(0) * factor(0), half(0) * factor(1)], 0.0)
            }
        };
        let words = read_codes(spec, chunk, row, block);
        let mut codes = [0; 32];
        for (bytes, word) in codes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        if spec.table {
            codes = codes.map(|code| IQ4_NL_CODES[usize::from(code)]);
        }
        Weights {
            codes,
            scales,
            minimum,
        }
    }
}

/// The 6-bit factors of scale and minimum of a block of Q4_K and Q5_K
/// (`get_scale_min_k4` of ggml).
fn factors6(byte: impl Fn(usize) -> u8, block: usize) -> (u8, u8) {
    if block < 4 {
        (byte(block) & 63, byte(block + 4) & 63)
    } else {
        let shared = byte(block + 4);
        (
            shared & 15 | byte(block - 4) >> 6 << 4,
            shared >> 4 | byte(block) >> 6 << 4,
        )
    }
}

/// IEEE half precision.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let value = match magnitude {
        // Zero and denormals: multiples of 2^-24.
        0..0x400 => magnitude as f32 * f32::from_bits(0x3380_0000),
        0x400..0x7c00 => f32::from_bits((magnitude << 13) + (112 << 23)),
        _ => f32::from_bits(magnitude << 13 | 0x7f80_0000),
    };
    f32::from_bits(value.to_bits() | sign)
}
