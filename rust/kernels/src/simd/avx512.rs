//! Vectors in one 512-bit register.

use std::arch::x86_64::*;

use super::{HIDDEN, Kernel, LANES, Simd};

/// AVX-512 F, BW and VL, with what AVX2 CPUs have.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU has AVX-512 F, BW and VL, AVX2, FMA and F16C.
    pub(crate) unsafe fn new() -> Self {
        Avx512(())
    }
}

// SAFETY of all blocks below: the value of this type proves that the CPU has
// the instructions; what is read or written is the caller's to prove.
impl Simd for Avx512 {
    type Vector = __m512;

    const REGISTERS: usize = 32;

    unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        /// # Safety
        /// What the kernel asks for.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c,bmi1,bmi2,popcnt")]
        unsafe fn inner<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            // SAFETY: forwarded.
            unsafe { kernel.run(simd) }
        }
        // SAFETY: forwarded; CPUs with AVX-512 have BMI and POPCNT.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        // SAFETY: see above.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits.into()))) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_abs_ps(x) }
    }

    #[inline(always)]
    fn if_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }

    #[inline(always)]
    fn power_of_two(self, x: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(x));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)))
        }
    }

    #[inline(always)]
    unsafe fn row_sums(self, rows: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { row_sums(rows) }
    }

    #[inline(always)]
    unsafe fn scan(self, mask: *const u16) -> (u32, u32) {
        // SAFETY: see above.
        unsafe {
            let mask = _mm512_loadu_si512(mask.cast());
            let hidden = _mm512_set1_epi16(HIDDEN.cast_signed());
            let magnitude = _mm512_set1_epi16(0x7fff);
            (
                _mm512_cmpneq_epi16_mask(mask, hidden),
                _mm512_testn_epi16_mask(mask, magnitude),
            )
        }
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn row_sums(rows: *const f32) -> __m512 {
    // SAFETY: row < 16.
    unsafe {
        let row = |row: usize| _mm512_loadu_ps(rows.add(LANES * row));
        // Each step adds the halves of what is left of its rows and joins
        // them; the order is such that the last step ends with 0, 1, ….
        let halves = |a, b| {
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
            )
        };
        let quarters = |a, b| {
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
            )
        };
        let four = |i| quarters(halves(row(i), row(i + 4)), halves(row(i + 8), row(i + 12)));
        let pairs = |a, b| {
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
            )
        };
        let a = pairs(four(0), four(1));
        let b = pairs(four(2), four(3));
        _mm512_add_ps(
            _mm512_shuffle_ps::<0b10_00_10_00>(a, b),
            _mm512_shuffle_ps::<0b11_01_11_01>(a, b),
        )
    }
}
