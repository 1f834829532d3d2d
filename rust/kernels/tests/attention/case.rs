//! Attention nodes with random contents, and what they are to compute.

use llm_kernels::attention::{CacheType, Inputs, Shape, Strides};

use crate::common::{Random, half};

pub const HIDDEN: u16 = 0xfc00;

/// A node and its tensors, laid out as llama.cpp's are.
pub struct Case {
    pub shape: Shape,
    pub query: Vec<f32>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub mask: Option<Vec<u16>>,
    pub sinks: Option<Vec<f32>>,
}

/// Sizes of a node without its options.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub kind: CacheType,
    pub dim: usize,
    pub kv_heads: usize,
    pub group: usize,
    pub tokens: usize,
    pub cells: usize,
    pub streams: usize,
}

impl Case {
    pub fn new(size: Size, random: &mut Random) -> Case {
        let Size {
            kind,
            dim,
            kv_heads,
            group,
            tokens,
            cells,
            streams,
        } = size;
        let heads = kv_heads * group;
        // `[dim, heads, rows, streams]`, with rows and heads exchanged.
        let strides = |row_bytes, heads, rows| Strides {
            row: row_bytes * heads,
            head: row_bytes,
            stream: row_bytes * heads * rows,
        };
        let cache = strides(kind.row_bytes(dim), kv_heads, cells);
        let shape = Shape {
            key_type: kind,
            value_type: kind,
            key_dim: dim,
            value_dim: dim,
            heads,
            kv_heads,
            tokens,
            cells,
            streams,
            query: strides(4 * dim, heads, tokens),
            key: cache,
            value: cache,
            output: strides(4 * dim, heads, tokens),
            mask: None,
            scale: 1.0 / (dim as f32).sqrt(),
            soft_cap: 0.0,
            max_bias: 0.0,
        };
        let query = (0..dim * heads * tokens * streams)
            .map(|_| 2.0 * random.unit())
            .collect();
        let rows = kv_heads * cells * streams;
        let key = random_rows(kind, dim, rows, random);
        let value = random_rows(kind, dim, rows, random);
        Case {
            shape,
            query,
            key,
            value,
            mask: None,
            sinks: None,
        }
    }

    /// Sets the mask to `mask(token, cell)`, the same in all streams.
    pub fn with_mask(mut self, mut mask: impl FnMut(usize, usize) -> u16) -> Case {
        let Shape { tokens, cells, .. } = self.shape;
        self.shape.mask = Some(Strides {
            row: 2 * cells,
            head: 0,
            stream: 0,
        });
        self.mask = Some(
            (0..tokens * cells)
                .map(|i| mask(i / cells, i % cells))
                .collect(),
        );
        self
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            query: &self.query,
            key: &self.key,
            value: &self.value,
            mask: self.mask.as_deref(),
            sinks: self.sinks.as_deref(),
        }
    }

    pub fn output_len(&self) -> usize {
        let Shape {
            value_dim,
            heads,
            tokens,
            streams,
            ..
        } = self.shape;
        value_dim * heads * tokens * streams
    }

    /// The results and the error that each may have.
    pub fn expected(&self) -> Vec<(f64, f64)> {
        let Shape {
            heads,
            kv_heads,
            tokens,
            streams,
            ..
        } = self.shape;
        let mut expected = vec![(0.0, 0.0); self.output_len()];
        for stream in 0..streams {
            for token in 0..tokens {
                for head in 0..heads {
                    let strides = self.shape.output;
                    let at = token * strides.row + head * strides.head + stream * strides.stream;
                    let row = self.expected_row(token, head, head / (heads / kv_heads), stream);
                    expected[at / 4..][..row.len()].copy_from_slice(&row);
                }
            }
        }
        expected
    }

    fn expected_row(
        &self,
        token: usize,
        head: usize,
        kv_head: usize,
        stream: usize,
    ) -> Vec<(f64, f64)> {
        let shape = &self.shape;
        let at = |strides: Strides, row: usize, head: usize| {
            row * strides.row + head * strides.head + stream * strides.stream
        };
        let query = &self.query[at(shape.query, token, head) / 4..][..shape.key_dim];
        let slope = slope(shape, head);
        let mut scores = Vec::new();
        // Sum of the products' magnitudes: their rounding errors are relative
        // to it.
        let mut largest = 0.0f64;
        for cell in 0..shape.cells {
            let bias = match (&self.mask, shape.mask) {
                (Some(mask), Some(strides)) => {
                    let bits = mask[at(strides, token, 0) / 2 + cell];
                    if bits == HIDDEN {
                        continue;
                    }
                    half(&bits.to_le_bytes())
                }
                _ => 0.0,
            };
            let start = at(shape.key, cell, kv_head);
            let key = row(shape.key_type, &self.key[start..], shape.key_dim);
            let products = || query.iter().zip(&key).map(|(&q, &k)| f64::from(q) * k);
            let mut score = products().sum::<f64>() * f64::from(shape.scale);
            let magnitude = products().map(f64::abs).sum::<f64>() * f64::from(shape.scale);
            largest = largest.max(magnitude).max(bias.abs() * slope);
            if shape.soft_cap != 0.0 {
                let cap = f64::from(shape.soft_cap);
                score = cap * (score / cap).tanh();
            }
            scores.push((cell, score + slope * bias));
        }
        let sink = self.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
        let all = scores.iter().map(|score| score.1).chain(sink);
        let max = all.clone().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = all.map(|score| (score - max).exp()).sum();
        let mut result = vec![(0.0, 0.0); shape.value_dim];
        for (cell, score) in scores {
            let weight = (score - max).exp() / sum;
            let start = at(shape.value, cell, kv_head);
            let value = row(shape.value_type, &self.value[start..], shape.value_dim);
            for (result, value) in result.iter_mut().zip(value) {
                result.0 += weight * value;
                result.1 += weight * value.abs() * (1e-6 + 5e-7 * largest);
            }
        }
        result
    }
}

fn slope(shape: &Shape, head: usize) -> f64 {
    if shape.max_bias <= 0.0 {
        return 1.0;
    }
    let power = (shape.heads as f64).log2().floor().exp2();
    let bias = f64::from(shape.max_bias);
    let head = head as f64;
    if head < power {
        (-bias / power * (head + 1.0)).exp2()
    } else {
        (-bias / 2.0 / power * (2.0 * (head - power) + 1.0)).exp2()
    }
}

/// A row of a cache.
fn row(kind: CacheType, bytes: &[u8], dim: usize) -> Vec<f64> {
    match kind {
        CacheType::F16 => bytes.chunks_exact(2).take(dim).map(half).collect(),
        CacheType::Q8_0 => bytes
            .chunks_exact(34)
            .take(dim / 32)
            .flat_map(|block| {
                let scale = half(block);
                block[2..]
                    .iter()
                    .map(move |&code| scale * f64::from(code.cast_signed()))
            })
            .collect(),
    }
}

/// Half floats of both signs, most between 1/32 and 2, some denormal or zero.
fn random_half(random: &mut Random) -> u16 {
    let bits = random.next() as u16;
    let exponent = if random.below(50) == 0 {
        0
    } else {
        10 + random.below(6) as u16
    };
    bits & 0x83ff | exponent << 10
}

fn random_rows(kind: CacheType, dim: usize, rows: usize, random: &mut Random) -> Vec<u8> {
    match kind {
        CacheType::F16 => (0..dim * rows)
            .flat_map(|_| random_half(random).to_le_bytes())
            .collect(),
        CacheType::Q8_0 => (0..dim / 32 * rows)
            .flat_map(|_| {
                // Scales near 1/100.
                let scale = 0x1c00 + random.next() as u16 % 0x0800;
                let codes: [u8; 32] = std::array::from_fn(|_| random.next() as u8);
                scale
                    .to_le_bytes()
                    .into_iter()
                    .chain(codes)
                    .collect::<Vec<_>>()
            })
            .collect(),
    }
}
