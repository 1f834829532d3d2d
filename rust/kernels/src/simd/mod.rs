//! The vector operations that attention, norms and gates are written in, for each
//! tier. A vector has 16 lanes on every tier and every operation rounds the
//! same way, so that all tiers compute the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

use crate::dispatch::Tier;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// F16 infinity, negative: what hides a cell in a mask.
pub(crate) const HIDDEN: u16 = 0xfc00;

/// Operations on vectors of 16 f32.
///
/// A value of the type is the proof that the CPU has the instructions, so that
/// the operations are safe. They are fast only within a [`Kernel`], into which
/// everything is inlined: code outside is not compiled for the instructions.
pub(crate) trait Simd: Copy {
    /// 16 floats.
    type Vector: Copy;

    /// Vectors that fit into the registers.
    const REGISTERS: usize;

    /// Runs a kernel with the instructions of this tier.
    ///
    /// # Safety
    /// What the kernel asks for.
    unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// 16 times x.
    fn splat(self, x: f32) -> Self::Vector;

    /// # Safety
    /// 16 floats can be read.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// # Safety
    /// 16 floats can be written.
    unsafe fn store(self, to: *mut f32, x: Self::Vector);

    /// 16 F16 as floats.
    ///
    /// # Safety
    /// 16 F16 can be read; any alignment.
    unsafe fn load_f16(self, from: *const u16) -> Self::Vector;

    /// 16 signed bytes as floats.
    ///
    /// # Safety
    /// 16 bytes can be read.
    unsafe fn load_i8(self, from: *const i8) -> Self::Vector;

    /// An F16 as float.
    fn f16(self, bits: u16) -> f32;

    /// a + b.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a - b.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a * b.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a / b.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a * b + c, rounded once.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `if a > b { a } else { b }`: b if one of them is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// |x|.
    fn abs(self, x: Self::Vector) -> Self::Vector;

    /// `if a < b { yes } else { no }`.
    fn if_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;

    /// 2^i for x = 1.5 * 2^23 + i with an integer i in -126..=127. (Adding
    /// 1.5 * 2^23 to a float leaves its nearest integer in the low bits.)
    fn power_of_two(self, x: Self::Vector) -> Self::Vector;

    /// Lane i is the sum of vector i's lanes: lane l with l + 8, then with
    /// l + 4, l + 2 and l + 1.
    ///
    /// # Safety
    /// 256 floats can be read.
    unsafe fn row_sums(self, rows: *const f32) -> Self::Vector;

    /// Which of 32 F16 of a mask are not -inf, and which are zero.
    ///
    /// # Safety
    /// 32 F16 can be read.
    unsafe fn scan(self, mask: *const u16) -> (u32, u32);

    /// Asks for a cache line ahead of time.
    fn prefetch(self, _at: *const u8) {}
}

/// A computation that is compiled for each tier, as a function of its own.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Computes; to be marked `#[inline(always)]`, as all that it calls.
    ///
    /// # Safety
    /// What the kernel asks for.
    unsafe fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the instructions of a tier.
///
/// # Safety
/// What the kernel asks for; the tier is available.
pub(crate) unsafe fn run<K: Kernel>(tier: Tier, kernel: K) -> K::Output {
    // SAFETY: forwarded; the tier implies the instructions.
    unsafe {
        match tier {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => Avx512::new().run(kernel),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni | Tier::Avx2 => Avx2::new().run(kernel),
            _ => Portable.run(kernel),
        }
    }
}
