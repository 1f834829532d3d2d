//! Which instructions this CPU offers to the kernels.

/// A set of instructions that the kernels are written for. Every tier computes
/// the same bits: they differ in speed only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// Plain Rust: the reference of the tests, never worth installing.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with `vpdpbusd` on 256-bit registers.
    AvxVnni,
    /// AVX-512 F, BW, VL and VNNI.
    Avx512Vnni,
}

impl Tier {
    /// All tiers, slowest first.
    pub const ALL: [Tier; 4] = [Tier::Portable, Tier::Avx2, Tier::AvxVnni, Tier::Avx512Vnni];

    /// The best tier of this CPU; `None` where llama.cpp's own kernels are the
    /// better choice.
    pub fn detect() -> Option<Tier> {
        Tier::ALL
            .into_iter()
            .rev()
            .find(|tier| tier.is_available() && *tier != Tier::Portable)
    }

    /// Whether this CPU can run the tier.
    pub fn is_available(self) -> bool {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            match self {
                Tier::Portable => true,
                Tier::Avx2 => avx2,
                Tier::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Tier::Avx512Vnni => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            self == Tier::Portable
        }
    }
}
