//! The speed of the matrix products beside what the machine can do at best.
//!
//! `cargo run --release --example kernel_table --no-default-features [-- THREADS [TYPE]]`
//!
//! For each type and tier: one row (decode) in GB/s of weights and as a share of
//! the bandwidth of plain reads of as many bytes, over a matrix larger than the
//! caches (a part of which they keep all the same, in both cases); and
//! many rows in GOPS and as a share of the peak of `vpdpbusd`. Each figure is
//! the best of several runs that alternate with runs of the yardstick.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use llm_kernels::dispatch::Tier;
use llm_kernels::matmul::{Activations, GROUP, Layout, Output, Rows, WeightType};

/// Outputs and inner dimension of a matrix that exceeds the caches.
const LARGE: (usize, usize) = (40960, 4096);

/// How often reads and single rows take turns.
const ROUNDS: usize = 4;

/// Those of a matrix that does not.
const SMALL: (usize, usize) = (1536, 768);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments
        .next()
        .map_or(2, |n| n.parse().expect("a number of threads"));
    let only = arguments.next();
    let only_tier = arguments.next();
    for threads in 1..threads {
        yardsticks(threads);
    }
    let peak = yardsticks(threads);
    overheads();
    print!("{:18}", "");
    for title in ["1 GB/s", "large 4 GOPS", "large 8", "4", "8", "32", "512"] {
        print!(" {title:>13}");
    }
    println!();
    for tier in Tier::ALL
        .into_iter()
        .filter(|tier| tier.is_available() && *tier != Tier::Portable)
    {
        if only_tier
            .as_ref()
            .is_some_and(|only| *only != format!("{tier:?}"))
        {
            continue;
        }
        for kind in WeightType::ALL {
            if only
                .as_ref()
                .is_some_and(|only| only != "all" && *only != kind.to_string())
            {
                continue;
            }
            let mut line = format!("{:18}", format!("{tier:?} {kind}"));
            let mut case = Case::new(tier, kind, LARGE.0, LARGE.1, 1);
            let bytes = case.layout.bytes();
            // In turns: what the memory gives changes with the neighbours.
            let (mut rate, mut limit) = (0.0f64, 0.0f64);
            for _ in 0..ROUNDS {
                limit = limit.max(bandwidth(threads, bytes));
                rate = rate.max(bytes as f64 / case.run(threads).as_secs_f64());
            }
            line += &format!(" {:6.1} ({:3.0}%)", rate / 1e9, 100.0 * rate / limit);
            let large = [4, 8].map(|n| (LARGE, n));
            for ((rows, cols), n) in large.into_iter().chain([4, 8, 32, 512].map(|n| (SMALL, n))) {
                let time = Case::new(tier, kind, rows, cols, n).run(threads);
                let rate = (2 * rows * cols * n) as f64 / time.as_secs_f64();
                line += &format!(" {:6.0} ({:3.0}%)", rate / 1e9, 100.0 * rate / peak);
            }
            println!("{line}");
        }
    }
}

/// What the machine can do at best, printed: int8 operations and bytes read a
/// second. Returns the former.
fn yardsticks(threads: usize) -> f64 {
    let (peak, bandwidth) = (peak(threads), bandwidth(threads, 512 << 20));
    println!(
        "threads {threads}; vpdpbusd {:.0} GOPS; read {:.1} GB/s",
        peak / 1e9,
        bandwidth / 1e9
    );
    peak
}

/// What comes before a product, by one thread: packing at load, in GB/s of
/// weights, and quantizing activations, in G values a second.
fn overheads() {
    let (rows, cols, n) = (4096, 4096, 64);
    print!("pack GB/s:");
    for kind in WeightType::ALL {
        let tier = Tier::detect().expect("a tier for this CPU");
        let layout = Layout::new(tier, kind, rows, cols).expect("a size that fits");
        let source = vec![0x35; layout.bytes()];
        let packed = std::sync::Mutex::new(vec![0; layout.bytes()]);
        let time = best(1, |_| {
            layout.pack(&source, &mut packed.lock().expect("one thread"))
        });
        print!(
            " {kind} {:.2}",
            layout.bytes() as f64 / time.as_secs_f64() / 1e9
        );
    }
    print!("\nquantize G/s:");
    let x = vec![0.5; n * cols];
    let mut memory = vec![0u8; Activations::bytes(n, cols)];
    for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
        // SAFETY: allocations of this size are aligned; nobody else uses it.
        let activations = unsafe { Activations::new(memory.as_mut_ptr(), n, cols) };
        let time = best(1, |_| {
            activations.quantize(
                tier,
                Rows {
                    data: &x,
                    stride: cols,
                },
                0..n,
            )
        });
        print!(
            " {tier:?} {:.2}",
            (n * cols) as f64 / time.as_secs_f64() / 1e9
        );
    }
    println!();
}

/// A product of random bits.
struct Case {
    layout: Layout,
    packed: Vec<u8>,
    quantized: Vec<u8>,
    n: usize,
}

impl Case {
    fn new(tier: Tier, kind: WeightType, rows: usize, cols: usize, n: usize) -> Self {
        let layout = Layout::new(tier, kind, rows, cols).expect("a size that fits");
        // Bytes that are no NaN as half floats.
        let byte = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8 & 0x3f;
        let mut packed: Vec<u8> = (0..layout.bytes() + 64).map(byte).collect();
        let skip = packed.as_ptr().align_offset(64);
        packed.drain(..skip);
        let x: Vec<f32> = (0..n * cols).map(|i| (i % 97) as f32 - 48.0).collect();
        let mut quantized = vec![0; Activations::bytes(n, cols)];
        // SAFETY: allocations of this size are aligned; nobody else uses it.
        let activations = unsafe { Activations::new(quantized.as_mut_ptr(), n, cols) };
        activations.quantize(
            tier,
            Rows {
                data: &x,
                stride: cols,
            },
            0..n,
        );
        Case {
            layout,
            packed,
            quantized,
            n,
        }
    }

    /// The best time of a product.
    fn run(&mut self, threads: usize) -> Duration {
        let Case {
            layout,
            packed,
            quantized,
            n,
        } = self;
        // SAFETY: as above; quantized before.
        let x = unsafe { Activations::new(quantized.as_mut_ptr(), *n, layout.cols()) };
        let mut out = vec![0.0; *n * layout.rows()];
        let out = Output::from_slice(&mut out, *n, layout.rows());
        best(threads, |thread| {
            let share = |thread| layout.groups() * thread / threads * GROUP;
            layout.multiply(packed, &x, share(thread)..share(thread + 1), &out);
        })
    }
}

/// The best time in which all threads have done `work(thread)`.
fn best(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let end = Instant::now() + Duration::from_millis(200);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let run = |thread| {
        let mut best = Duration::MAX;
        loop {
            if thread == 0 {
                stop.store(
                    Instant::now() > end && best < Duration::MAX,
                    std::sync::atomic::Ordering::SeqCst,
                );
            }
            barrier.wait();
            if stop.load(std::sync::atomic::Ordering::SeqCst) {
                return best;
            }
            let start = Instant::now();
            work(thread);
            barrier.wait();
            best = best.min(start.elapsed());
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        drop(handles);
        run(0)
    })
}

/// Bytes a second of plain reads of so many bytes.
fn bandwidth(threads: usize, bytes: usize) -> f64 {
    let share = bytes / threads / 512 * 64;
    let data = vec![1u64; threads * share];
    let time = best(threads, |thread| {
        black_box(read(&data[thread * share..][..share]));
    });
    (threads * share * 8) as f64 / time.as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
fn read(data: &[u64]) -> u64 {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn wide(data: &[u64]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        for lines in data.as_chunks::<64>().0 {
            for (line, sum) in lines.as_chunks::<8>().0.iter().zip(&mut sums) {
                // SAFETY: prefetches of any address are allowed; a line has 64 bytes.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(512).cast());
                    *sum = _mm512_xor_si512(*sum, _mm512_loadu_si512(line.as_ptr().cast()));
                }
            }
        }
        sums.into_iter()
            .fold(0, |sum, x| sum ^ _mm512_reduce_add_epi64(x) as u64)
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: just found.
        unsafe { wide(data) }
    } else {
        data.iter().sum()
    }
}

/// Multiplications and additions a second of `vpdpbusd` on registers.
#[cfg(target_arch = "x86_64")]
fn peak(threads: usize) -> f64 {
    use std::arch::x86_64::*;
    const ROUNDS: usize = 100_000;
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn wide() -> usize {
        let mut sums = [_mm512_setzero_si512(); 16];
        let (a, b) = (
            black_box(_mm512_set1_epi8(3)),
            black_box(_mm512_set1_epi8(5)),
        );
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        ROUNDS * 16 * 128
    }
    #[target_feature(enable = "avxvnni")]
    fn narrow() -> usize {
        let mut sums = [_mm256_setzero_si256(); 12];
        let (a, b) = (
            black_box(_mm256_set1_epi8(3)),
            black_box(_mm256_set1_epi8(5)),
        );
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        ROUNDS * 12 * 64
    }
    let work = || {
        if is_x86_feature_detected!("avx512vnni") {
            // SAFETY: just found.
            unsafe { wide() }
        } else if is_x86_feature_detected!("avxvnni") {
            // SAFETY: just found.
            unsafe { narrow() }
        } else {
            0
        }
    };
    let time = best(threads, |_| {
        black_box(work());
    });
    (threads * work()) as f64 / time.as_secs_f64()
}
