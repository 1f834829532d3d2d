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

    /// The tier that the environment's `LLM_API_KERNELS` asks for by its name
    /// (`avx2`, `avx-vnni`, `avx512-vnni`), to measure on this CPU what a lesser
    /// one would do. An error says what is wrong with it.
    pub fn from_environment() -> Result<Option<Tier>, String> {
        let Ok(name) = std::env::var("LLM_API_KERNELS") else {
            return Ok(None);
        };
        let tier = match name.as_str() {
            "avx2" => Tier::Avx2,
            "avx-vnni" => Tier::AvxVnni,
            "avx512-vnni" => Tier::Avx512Vnni,
            _ => {
                return Err(format!(
                    "LLM_API_KERNELS={name}: use avx2, avx-vnni or avx512-vnni"
                ));
            }
        };
        match tier.is_available() {
            true => Ok(Some(tier)),
            false => Err(format!("LLM_API_KERNELS={name}: this CPU does not have it")),
        }
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
