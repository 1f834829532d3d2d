//! What the context memory is made of: its types, and how attention reads it.

use std::str::FromStr;

use llama_cpp_sys_2 as sys;

use crate::Error;

/// What keys or values are stored as. All but F16 and Q8_0 are computed with
/// llama.cpp's own attention, whatever our kernels do for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheType(pub(super) sys::ggml_type);

impl CacheType {
    /// llama.cpp's default: half precision.
    pub const F16: Self = Self(sys::GGML_TYPE_F16);

    /// The types that llama.cpp's own tools offer, by ggml's names.
    const ALL: [(&str, sys::ggml_type); 9] = [
        ("f32", sys::GGML_TYPE_F32),
        ("f16", sys::GGML_TYPE_F16),
        ("bf16", sys::GGML_TYPE_BF16),
        ("q8_0", sys::GGML_TYPE_Q8_0),
        ("q5_1", sys::GGML_TYPE_Q5_1),
        ("q5_0", sys::GGML_TYPE_Q5_0),
        ("q4_1", sys::GGML_TYPE_Q4_1),
        ("q4_0", sys::GGML_TYPE_Q4_0),
        ("iq4_nl", sys::GGML_TYPE_IQ4_NL),
    ];

    /// Bytes of so many values.
    pub(super) fn bytes(self, values: u64) -> u64 {
        // SAFETY: these read ggml's table of types, of which this is one.
        let (size, of) = unsafe { (sys::ggml_type_size(self.0), sys::ggml_blck_size(self.0)) };
        values * size as u64 / u64::try_from(of).unwrap_or(1)
    }
}

impl FromStr for CacheType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|&(_, kind)| Self(kind)).ok_or_else(|| {
            let known = Self::ALL.map(|(known, _)| known).join(", ");
            Error::Unsupported(format!("no cache type {name}: use one of {known}"))
        })
    }
}

/// Whether attention is computed in one operation, which reads the cache once
/// and keeps no scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashAttention {
    /// Where the model and the devices can do it.
    Auto,
    On,
    Off,
}

impl FlashAttention {
    pub(super) fn to_llama(self) -> sys::llama_flash_attn_type {
        match self {
            Self::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Self::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Self::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        }
    }
}

impl FromStr for FlashAttention {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(Error::Unsupported(format!(
                "flash attention is auto, on or off, not {name}"
            ))),
        }
    }
}
