//! Attention on one thread, against ggml's algorithm for single rows, in the
//! shapes of two models.

use std::arch::x86_64::*;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use llm_kernels::attention::{Attention, CacheType, Shape, Strides, Tensors};
use llm_kernels::dispatch::Tier;

const HIDDEN: u16 = 0xfc00;

struct Node {
    shape: Shape,
    query: Vec<f32>,
    key: Vec<u16>,
    value: Vec<u16>,
    mask: Vec<u16>,
    output: Vec<f32>,
}

impl Node {
    fn new(
        [dim, heads, kv_heads]: [usize; 3],
        [tokens, cells]: [usize; 2],
        is_visible: impl Fn(usize, usize) -> bool,
    ) -> Node {
        let strides = |bytes: usize, heads| Strides {
            row: bytes * dim * heads,
            head: bytes * dim,
            stream: 0,
        };
        let shape = Shape {
            key_type: CacheType::F16,
            value_type: CacheType::F16,
            key_dim: dim,
            value_dim: dim,
            heads,
            kv_heads,
            tokens,
            cells,
            streams: 1,
            query: strides(4, heads),
            key: strides(2, kv_heads),
            value: strides(2, kv_heads),
            output: strides(4, heads),
            mask: Some(Strides {
                row: 2 * cells,
                head: 0,
                stream: 0,
            }),
            scale: 1.0 / (dim as f32).sqrt(),
            soft_cap: 0.0,
            max_bias: 0.0,
        };
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        // Half floats between 1/8 and 1, of both signs.
        let mut half = || next() as u16 & 0x83ff | (12 + next() as u16 % 3) << 10;
        Node {
            shape,
            key: (0..dim * kv_heads * cells).map(|_| half()).collect(),
            value: (0..dim * kv_heads * cells).map(|_| half()).collect(),
            query: (0..dim * heads * tokens)
                .map(|_| next() as f32 / 32768.0 - 1.0)
                .collect(),
            mask: (0..tokens * cells)
                .map(|i| {
                    if is_visible(i / cells, i % cells) {
                        0
                    } else {
                        HIDDEN
                    }
                })
                .collect(),
            output: vec![0.0; dim * heads * tokens],
        }
    }

    fn tensors(&mut self) -> Tensors {
        Tensors {
            query: self.query.as_ptr(),
            key: self.key.as_ptr().cast(),
            value: self.value.as_ptr().cast(),
            mask: self.mask.as_ptr(),
            sinks: std::ptr::null(),
            output: self.output.as_mut_ptr(),
        }
    }

    /// As `ggml_compute_forward_flash_attn_ext_f16_one_chunk` does it with
    /// AVX-512: sums of values in F16, one exponential at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c,fma")]
    fn as_ggml(&mut self) {
        let Shape {
            key_dim: dim,
            heads,
            kv_heads,
            tokens,
            cells,
            scale,
            ..
        } = self.shape;
        let mut query = vec![0u16; dim];
        let mut sums = vec![0u16; dim];
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            for token in 0..tokens {
                let row = (token * heads + head) * dim;
                // SAFETY: 16 values at a time of rows with `dim` values.
                unsafe {
                    for i in (0..dim).step_by(16) {
                        let x = _mm512_loadu_ps(self.query[row + i..].as_ptr());
                        let x = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                        _mm256_storeu_si256(query[i..].as_mut_ptr().cast(), x);
                    }
                    sums.fill(0);
                    let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
                    for cell in 0..cells {
                        if self.mask[token * cells + cell] == HIDDEN {
                            continue;
                        }
                        let at = (cell * kv_heads + kv_head) * dim;
                        let load = |x: &[u16], i| {
                            _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().add(i).cast()))
                        };
                        let mut dot = [_mm512_setzero_ps(); 4];
                        for i in (0..dim).step_by(64) {
                            for (j, dot) in dot.iter_mut().enumerate() {
                                let key = load(&self.key[at..], i + 16 * j);
                                *dot = _mm512_fmadd_ps(key, load(&query, i + 16 * j), *dot);
                            }
                        }
                        let dot = _mm512_add_ps(
                            _mm512_add_ps(dot[0], dot[1]),
                            _mm512_add_ps(dot[2], dot[3]),
                        );
                        let score = _mm512_reduce_add_ps(dot) * scale;
                        let mut weight = 1.0;
                        if score > max {
                            let factor = (max - score).exp();
                            max = score;
                            sum *= factor;
                            for i in (0..dim).step_by(16) {
                                let x = _mm512_mul_ps(load(&sums, i), _mm512_set1_ps(factor));
                                let x = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                                _mm256_storeu_si256(sums[i..].as_mut_ptr().cast(), x);
                            }
                        } else {
                            weight = (score - max).exp();
                        }
                        sum += weight;
                        for i in (0..dim).step_by(16) {
                            let value = load(&self.value[at..], i);
                            let x = _mm512_fmadd_ps(value, _mm512_set1_ps(weight), load(&sums, i));
                            let x = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                            _mm256_storeu_si256(sums[i..].as_mut_ptr().cast(), x);
                        }
                    }
                    for i in (0..dim).step_by(16) {
                        let x = _mm512_cvtph_ps(_mm256_loadu_si256(sums[i..].as_ptr().cast()));
                        let x = _mm512_mul_ps(x, _mm512_set1_ps(1.0 / sum));
                        _mm512_storeu_ps(self.output[row + i..].as_mut_ptr(), x);
                    }
                }
            }
        }
    }
}

fn compare(c: &mut Criterion) {
    let models = [("SmolLM2", [64, 9, 3]), ("Gemma 3 270M", [256, 4, 1])];
    for (model, heads) in models {
        let mut group = c.benchmark_group(model);
        let mut bench = |name: &str, mut node: Node| {
            for tier in [Tier::Avx2, Tier::Avx512Vnni] {
                if !tier.is_available() {
                    continue;
                }
                let attention = Attention::new(tier, node.shape).expect("a supported shape");
                #[repr(align(64))]
                #[derive(Clone)]
                struct Line(#[expect(dead_code, reason = "only its memory is used")] [u8; 64]);
                let mut scratch = vec![Line([0; 64]); attention.scratch(1).div_ceil(64)];
                let scratch = scratch.as_mut_ptr().cast();
                let tensors = node.tensors();
                group.bench_function(format!("{name}/{tier:?}"), |b| {
                    // SAFETY: the tensors are as large as the shape says.
                    b.iter(|| unsafe { attention.compute(&tensors, scratch, 0, 1) });
                });
            }
            if Tier::Avx512Vnni.is_available() {
                group.bench_function(format!("{name}/as ggml"), |b| {
                    // SAFETY: the tier implies the instructions.
                    b.iter(|| unsafe { black_box(&mut node).as_ggml() });
                });
            }
        };
        bench(
            "prefill 512",
            Node::new(heads, [512, 512], |token, cell| cell <= token),
        );
        for context in [128, 1024] {
            let node = Node::new(heads, [1, context], |_, _| true);
            bench(&format!("1 stream of {context}"), node);
        }
        // Each stream has a prompt in one piece, and then every n-th cell.
        for streams in [8, 32] {
            let pool = streams * 128;
            let node = Node::new(heads, [streams, pool], |token, cell| {
                match cell < pool / 2 {
                    true => cell / 64 == token,
                    false => cell % streams == token,
                }
            });
            bench(&format!("{streams} streams of 128"), node);
        }
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
