//! Weights in ggml's formats, and what they mean, written independently of the
//! kernels.

#![allow(dead_code)]

pub mod products;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use llm_kernels::matmul::WeightType;

/// A small random generator (xorshift64*), so that failures can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One that nobody chose, from the clock, for tests that go on until the
    /// time that comes with it. A test that fails prints what repeats it.
    pub fn from_clock() -> (Random, Instant) {
        const VARIABLE: &str = "LLM_API_TEST_SEED";
        let seed = match std::env::var(VARIABLE) {
            Ok(seed) => seed.parse().expect(VARIABLE),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |time| time.as_nanos() as u64 | 1),
        };
        println!("{VARIABLE}={seed} repeats this");
        (Random(seed), Instant::now() + Duration::from_secs(2))
    }

    /// In -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Offsets of half floats in a ggml block.
pub fn halves(kind: WeightType) -> &'static [usize] {
    match kind {
        WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 | WeightType::IQ4_NL => &[0],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[0, 2],
        WeightType::Q6_K => &[208],
    }
}

/// A matrix of random bits, whose half floats are finite: some are denormal,
/// some large, most near 1/64.
pub fn weights(kind: WeightType, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    let blocks = rows * cols / kind.block_values();
    let mut bytes = vec![0; blocks * kind.block_bytes()];
    bytes.fill_with(|| random.next() as u8);
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for &at in halves(kind) {
            let exponent = match random.below(20) {
                0 => 0,
                1 => 20,
                _ => 8 + random.below(3) as u16,
            };
            let bits = (random.next() as u16 & 0x83ff) | exponent << 10;
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    bytes
}

pub fn half(bytes: &[u8]) -> f64 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => mantissa * 2f64.powi(-24),
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

const IQ4_NL: [i32; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// The values of a ggml block.
pub fn dequantize(kind: WeightType, block: &[u8]) -> Vec<f64> {
    let nibble = |start: usize, i: usize| i32::from(block[start + i % 16] >> (4 * (i / 16)) & 15);
    let bit = |start: usize, i: usize| i32::from(block[start + i / 8] >> (i % 8) & 1);
    let d = half(&block[halves(kind)[0]..]);
    let m = halves(kind).get(1).map_or(0.0, |&at| half(&block[at..]));
    let value = |i: usize| match kind {
        WeightType::Q4_0 => d * f64::from(nibble(2, i) - 8),
        WeightType::Q4_1 => d * f64::from(nibble(4, i)) + m,
        WeightType::Q5_0 => d * f64::from((nibble(6, i) | bit(2, i) << 4) - 16),
        WeightType::Q5_1 => d * f64::from(nibble(8, i) | bit(4, i) << 4) + m,
        WeightType::Q8_0 => d * f64::from(block[2 + i] as i8),
        WeightType::IQ4_NL => d * f64::from(IQ4_NL[nibble(2, i) as usize]),
        WeightType::Q4_K | WeightType::Q5_K => {
            let s = &block[4..16];
            let j = i / 32;
            let (scale, minimum) = match j {
                0..4 => (s[j] & 63, s[j + 4] & 63),
                _ => (
                    s[j + 4] & 15 | s[j - 4] >> 6 << 4,
                    s[j + 4] >> 4 | s[j] >> 6 << 4,
                ),
            };
            let low = if kind == WeightType::Q5_K { 48 } else { 16 };
            let mut code = block[low + i / 64 * 32 + i % 32] >> (j % 2 * 4) & 15;
            if kind == WeightType::Q5_K {
                code |= (block[16 + i % 32] >> j & 1) << 4;
            }
            d * f64::from(scale) * f64::from(code) - m * f64::from(minimum)
        }
        WeightType::Q6_K => {
            let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
            let low = block[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
            let high = block[128 + 32 * half + l] >> (2 * quarter) & 3;
            let scale = block[192 + i / 16] as i8;
            d * f64::from(scale) * f64::from(i32::from(low | high << 4) - 32)
        }
    };
    (0..kind.block_values()).map(value).collect()
}

/// Activations as the products see them: each 32 values rounded to 8 bits.
pub fn round_activations(x: &[f32]) -> Vec<f64> {
    let round = |block: &[f32]| {
        let largest = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        if largest < 1e-35 {
            return vec![0.0; block.len()];
        }
        let scale = f64::from(largest / 127.0);
        let inverse = 127.0 / largest;
        let code = |x: &f32| scale * f64::from((x * inverse).round_ties_even());
        block.iter().map(code).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(round).collect()
}
