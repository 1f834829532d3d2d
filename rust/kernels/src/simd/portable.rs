//! Vectors in plain Rust.

use std::array::from_fn;

use super::{HIDDEN, Kernel, LANES, Simd};

/// No instructions beyond those of every CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type Vector = [f32; LANES];

impl Simd for Portable {
    type Vector = Vector;

    const REGISTERS: usize = 8;

    unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: forwarded.
        unsafe { kernel.run(self) }
    }

    fn splat(self, x: f32) -> Vector {
        [x; LANES]
    }

    unsafe fn load(self, from: *const f32) -> Vector {
        // SAFETY: 16 floats can be read.
        unsafe { from.cast::<Vector>().read_unaligned() }
    }

    unsafe fn store(self, to: *mut f32, x: Vector) {
        // SAFETY: 16 floats can be written.
        unsafe { to.cast::<Vector>().write_unaligned(x) }
    }

    unsafe fn load_f16(self, from: *const u16) -> Vector {
        // SAFETY: 16 F16 can be read.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| self.f16(bits))
    }

    unsafe fn load_i8(self, from: *const i8) -> Vector {
        // SAFETY: 16 bytes can be read.
        unsafe { from.cast::<[i8; LANES]>().read() }.map(f32::from)
    }

    fn f16(self, bits: u16) -> f32 {
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let x = match bits >> 10 & 31 {
            31 => f32::from_bits(magnitude | 0x7f80_0000),
            // Denormals are multiples of 2^-24.
            0 => f32::from(bits & 0x3ff) / (1 << 24) as f32,
            _ => f32::from_bits(magnitude + (112 << 23)),
        };
        x.copysign(if bits >> 15 == 0 { 1.0 } else { -1.0 })
    }

    fn add(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] + b[i])
    }

    fn sub(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] - b[i])
    }

    fn mul(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] * b[i])
    }

    fn div(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] / b[i])
    }

    fn fma(self, a: Vector, b: Vector, c: Vector) -> Vector {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    fn max(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    fn abs(self, x: Vector) -> Vector {
        x.map(f32::abs)
    }

    fn if_less(self, a: Vector, b: Vector, yes: Vector, no: Vector) -> Vector {
        from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    fn power_of_two(self, x: Vector) -> Vector {
        x.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(127 << 23)))
    }

    unsafe fn row_sums(self, rows: *const f32) -> Vector {
        from_fn(|i| {
            // SAFETY: row i of 16.
            let mut row = unsafe { self.load(rows.add(LANES * i)) };
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    row[lane] += row[lane + half];
                }
            }
            row[0]
        })
    }

    unsafe fn scan(self, mask: *const u16) -> (u32, u32) {
        // SAFETY: 32 F16 can be read.
        let mask = unsafe { mask.cast::<[u16; 32]>().read_unaligned() };
        let bits =
            |is: fn(u16) -> bool| (0..32).fold(0, |bits, i| bits | u32::from(is(mask[i])) << i);
        (bits(|x| x != HIDDEN), bits(|x| x & 0x7fff == 0))
    }
}
