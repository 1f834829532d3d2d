//! The weight types and what a packed matrix of each looks like.
//!
//! Rows (outputs) are packed in groups of [`GROUP`]. A group is a sequence of
//! chunks along k, one for each ggml block of its rows, and holds the very bits
//! of these blocks in another order:
//!
//! ```text
//! chunk  = header, then `blocks` times: high bits, low bits     (a block: 32 values of k)
//! header = the scales (and minima) of the 32 rows, field by field, row by row
//! low    = for 4 values of k, for 32 rows: 4 bytes              (8 such steps a block;
//!          4-bit codes: step s in the low nibbles, s + 4 in the high ones)
//! high   = 5-bit codes: for 32 rows 4 bytes; bit s of byte c is bit 4 of value 4 s + c
//!          6-bit codes: twice that; bits 2 u, 2 u + 1 of byte c of part t are
//!          bits 4 and 5 of value 16 t + 4 u + c
//! ```
//!
//! So one 64-byte load brings 4 values of k for 16 rows, which is one operand
//! of `vpdpbusd`; the other one is 4 activation bytes broadcast to all lanes.
//! Codes are unsigned: value = scale * (code - offset) + minimum.

use std::fmt;

/// Rows (outputs) that are packed together: the unit in which the outputs of a
/// matrix are shared out among threads.
pub const GROUP: usize = 32;

/// Values of k that share a scale of the activations.
pub const BLOCK: usize = 32;

/// The types of weights that there are kernels for, as ggml names and stores them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, non_camel_case_types)]
pub enum WeightType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How the scales of a chunk are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// A half float a row.
    Plain,
    /// Scale and minimum: two half floats a row.
    Minimum,
    /// Two half floats a row and 12 bytes with 6-bit factors of 8 blocks
    /// (Q4_K, Q5_K); minima are subtracted.
    Factors6,
    /// A half float a row, and for each 16 values a signed factor (Q6_K).
    Factors8,
}

/// The constants of a type.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// Bits of a code.
    pub bits: usize,
    /// Blocks of 32 values a chunk.
    pub blocks: usize,
    pub scales: Scales,
    /// The offset of the codes is `1 << shift`; `None`: codes have none.
    pub shift: Option<u32>,
    /// Whether codes are indices into [`IQ4_NL_CODES`].
    pub table: bool,
}

impl Spec {
    /// Bytes of the header of a packed chunk.
    pub const fn header(self) -> usize {
        GROUP
            * match self.scales {
                Scales::Plain => 2,
                Scales::Minimum => 4,
                Scales::Factors6 => 2 + 2 + 12,
                Scales::Factors8 => 2 + 16,
            }
    }

    /// Bytes of the high bits of a packed block.
    pub const fn high(self) -> usize {
        match self.bits {
            5 => GROUP * 4,
            6 => GROUP * 8,
            _ => 0,
        }
    }

    /// Bytes of the low bits of a packed block.
    pub const fn low(self) -> usize {
        if self.bits == 8 {
            GROUP * BLOCK
        } else {
            GROUP * BLOCK / 2
        }
    }

    /// Bytes of a packed chunk.
    pub const fn chunk(self) -> usize {
        self.header() + self.blocks * (self.high() + self.low())
    }

    /// Bytes of ggml's block: what a row has in a chunk.
    pub const fn ggml_block(self) -> usize {
        self.chunk() / GROUP
    }

    /// Values of k in a chunk.
    pub const fn values(self) -> usize {
        self.blocks * BLOCK
    }

    /// Whether values have a minimum.
    pub const fn has_minimum(self) -> bool {
        matches!(self.scales, Scales::Minimum | Scales::Factors6)
    }

    /// Whether the two halves of a block have scales of their own.
    pub const fn is_split(self) -> bool {
        matches!(self.scales, Scales::Factors8)
    }
}

/// The values of IQ4_NL (`kvalues_iq4nl` of ggml) plus 128.
pub(crate) const IQ4_NL_CODES: [u8; 16] = [
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
];

impl WeightType {
    /// All types.
    pub const ALL: [WeightType; 9] = [
        WeightType::Q4_0,
        WeightType::Q4_1,
        WeightType::Q5_0,
        WeightType::Q5_1,
        WeightType::Q8_0,
        WeightType::Q4_K,
        WeightType::Q5_K,
        WeightType::Q6_K,
        WeightType::IQ4_NL,
    ];

    pub(crate) const fn spec(self) -> Spec {
        use Scales::{Factors6, Factors8, Minimum, Plain};
        let (bits, blocks, scales, shift) = match self {
            WeightType::Q4_0 => (4, 1, Plain, Some(3)),
            WeightType::Q4_1 => (4, 1, Minimum, None),
            WeightType::Q5_0 => (5, 1, Plain, Some(4)),
            WeightType::Q5_1 => (5, 1, Minimum, None),
            WeightType::Q8_0 => (8, 1, Plain, Some(7)),
            WeightType::Q4_K => (4, 8, Factors6, None),
            WeightType::Q5_K => (5, 8, Factors6, None),
            WeightType::Q6_K => (6, 8, Factors8, Some(5)),
            WeightType::IQ4_NL => (4, 1, Plain, Some(7)),
        };
        Spec {
            bits,
            blocks,
            scales,
            shift,
            table: matches!(self, WeightType::IQ4_NL),
        }
    }

    /// Values of k in a ggml block: rows hold a whole number of these.
    pub const fn block_values(self) -> usize {
        self.spec().values()
    }

    /// Bytes of a ggml block.
    pub const fn block_bytes(self) -> usize {
        self.spec().ggml_block()
    }
}

/// A weight type as a type, for kernels that are compiled once for each.
pub(crate) trait Format {
    const KIND: WeightType;
    const SPEC: Spec = Self::KIND.spec();
}

/// Calls `$function::<Format>($arguments)` with the format of `$kind`.
macro_rules! with_format {
    ($kind:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        use $crate::matmul::format::{WeightType, formats};
        match $kind {
            WeightType::Q4_0 => $function::<formats::Q4_0>($($argument),*),
            WeightType::Q4_1 => $function::<formats::Q4_1>($($argument),*),
            WeightType::Q5_0 => $function::<formats::Q5_0>($($argument),*),
            WeightType::Q5_1 => $function::<formats::Q5_1>($($argument),*),
            WeightType::Q8_0 => $function::<formats::Q8_0>($($argument),*),
            WeightType::Q4_K => $function::<formats::Q4_K>($($argument),*),
            WeightType::Q5_K => $function::<formats::Q5_K>($($argument),*),
            WeightType::Q6_K => $function::<formats::Q6_K>($($argument),*),
            WeightType::IQ4_NL => $function::<formats::IQ4_NL>($($argument),*),
        }
    }};
}
pub(crate) use with_format;

/// A type for each [`WeightType`].
#[allow(non_camel_case_types)]
pub(crate) mod formats {
    use super::{Format, WeightType};

    macro_rules! format {
        ($($name:ident),*) => {$(
            pub struct $name;
            impl Format for $name {
                const KIND: WeightType = WeightType::$name;
            }
        )*};
    }
    format!(Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL);
}
