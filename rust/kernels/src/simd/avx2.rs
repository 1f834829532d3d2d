//! Vectors in two 256-bit registers.

use std::arch::x86_64::*;

use super::{HIDDEN, Kernel, LANES, Simd};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    pub(crate) unsafe fn new() -> Self {
        Avx2(())
    }
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Vector(__m256, __m256);

// SAFETY of all blocks below: the value of this type proves that the CPU has
// the instructions; what is read or written is the caller's to prove.
impl Simd for Avx2 {
    type Vector = Vector;

    const REGISTERS: usize = 8;

    unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        /// # Safety
        /// What the kernel asks for.
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt")]
        unsafe fn inner<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            // SAFETY: forwarded.
            unsafe { kernel.run(simd) }
        }
        // SAFETY: forwarded; CPUs with AVX2 and FMA have BMI and POPCNT.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Vector) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, x.0);
            _mm256_storeu_ps(to.add(8), x.1);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Vector {
        // SAFETY: see above.
        unsafe {
            Vector(
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Vector {
        // SAFETY: see above.
        unsafe {
            Vector(
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()))),
            )
        }
    }

    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        // SAFETY: see above.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits.into()))) }
    }

    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, a: Vector, b: Vector) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Vector, b: Vector) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Vector, b: Vector) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Vector, b: Vector, c: Vector) -> Vector {
        // SAFETY: see above.
        unsafe {
            Vector(
                _mm256_fmadd_ps(a.0, b.0, c.0),
                _mm256_fmadd_ps(a.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    fn max(self, a: Vector, b: Vector) -> Vector {
        // SAFETY: see above.
        unsafe { Vector(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn abs(self, x: Vector) -> Vector {
        // SAFETY: see above.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Vector(_mm256_andnot_ps(sign, x.0), _mm256_andnot_ps(sign, x.1))
        }
    }

    #[inline(always)]
    fn if_less(self, a: Vector, b: Vector, yes: Vector, no: Vector) -> Vector {
        // SAFETY: see above.
        unsafe {
            Vector(
                _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)),
                _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)),
            )
        }
    }

    #[inline(always)]
    fn power_of_two(self, x: Vector) -> Vector {
        // SAFETY: see above.
        unsafe {
            let one = _mm256_set1_epi32(127 << 23);
            let a = _mm256_slli_epi32::<23>(_mm256_castps_si256(x.0));
            let b = _mm256_slli_epi32::<23>(_mm256_castps_si256(x.1));
            Vector(
                _mm256_castsi256_ps(_mm256_add_epi32(a, one)),
                _mm256_castsi256_ps(_mm256_add_epi32(b, one)),
            )
        }
    }

    #[inline(always)]
    unsafe fn row_sums(self, rows: *const f32) -> Vector {
        // SAFETY: see above.
        unsafe { row_sums(rows) }
    }

    #[inline(always)]
    unsafe fn scan(self, mask: *const u16) -> (u32, u32) {
        // SAFETY: see above.
        unsafe { scan(mask) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: see above; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

// Closures of a function have its instructions; those of a method above would
// have none.

/// # Safety
/// 256 floats can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn row_sums(rows: *const f32) -> Vector {
    // SAFETY: row < 16.
    unsafe {
        let row = |row: usize| {
            let row = rows.add(LANES * row);
            _mm256_add_ps(_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(8)))
        };
        // Each step adds the halves of what is left of its rows and joins
        // them; the order is such that the last step ends with 0, 1, ….
        let halves = |a, b| {
            _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(a, b),
                _mm256_permute2f128_ps::<0x31>(a, b),
            )
        };
        let pairs = |a, b| {
            let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
            _mm256_add_ps(
                _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)),
            )
        };
        let eight = |i| {
            let two = |i| halves(row(i), row(i + 4));
            let a = pairs(two(i), two(i + 1));
            let b = pairs(two(i + 2), two(i + 3));
            _mm256_add_ps(
                _mm256_shuffle_ps::<0b10_00_10_00>(a, b),
                _mm256_shuffle_ps::<0b11_01_11_01>(a, b),
            )
        };
        Vector(eight(0), eight(8))
    }
}

/// # Safety
/// 32 F16 can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scan(mask: *const u16) -> (u32, u32) {
    // SAFETY: see above.
    unsafe {
        let a = _mm256_loadu_si256(mask.cast());
        let b = _mm256_loadu_si256(mask.add(16).cast());
        // The pack works within 128-bit lanes; the permutation restores
        // the order.
        let bits = |a, b| {
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(a, b));
            _mm256_movemask_epi8(packed).cast_unsigned()
        };
        let hidden = _mm256_set1_epi16(HIDDEN.cast_signed());
        let magnitude = _mm256_set1_epi16(0x7fff);
        let is_zero =
            |x| _mm256_cmpeq_epi16(_mm256_and_si256(x, magnitude), _mm256_setzero_si256());
        (
            !bits(_mm256_cmpeq_epi16(a, hidden), _mm256_cmpeq_epi16(b, hidden)),
            bits(is_zero(a), is_zero(b)),
        )
    }
}
