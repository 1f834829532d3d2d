//! Products of quantized weight matrices with f32 activations.
//!
//! A weight matrix is repacked once ([`Layout::pack`]). For a product the
//! activation rows are quantized to 8 bits in blocks of 32
//! ([`Activations::quantize`]; the result does not depend on the type of the
//! weights, so matrices with the same input can share it) and multiplied
//! ([`Layout::multiply`]). Both steps can be shared out among threads: the
//! first by rows, the second by outputs, with a barrier in between.
//!
//! A row's result does not depend on the other rows, nor on how many there
//! are, nor on the [`Tier`](crate::dispatch::Tier): integers are exact and the
//! f32 operations of an output are the same ones in the same order everywhere.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod format;
mod output;
mod pack;
mod portable;

use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice::from_raw_parts_mut;

pub use crate::quantize::{Activations, Rows};
pub use format::{BLOCK, GROUP, WeightType};
pub use output::Output;

use crate::dispatch::Tier;
use crate::gate::Activation;
use crate::quantize::ActivationBlock;
pub(crate) use format::Spec;

/// Activation rows that one pass over a group of weights multiplies: their
/// sums (128 bytes each) and their block of k stay in the first-level cache.
const TILE: usize = 128;

/// How a weight matrix of `rows` outputs and inner dimension `cols` is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    tier: Tier,
    kind: WeightType,
    rows: usize,
    cols: usize,
}

/// What products are multiplied by: those of the same rows with a matrix of
/// the same size, through an activation.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// What becomes of the gates.
    pub activation: Activation,
    /// How the matrix is packed.
    pub layout: &'a Layout,
    /// The matrix.
    pub packed: &'a [u8],
}

/// Which activation row makes which row of the output
/// ([`Layout::multiply_selected`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selected {
    /// Row of the activations.
    pub input: u32,
    /// Row of the output.
    pub output: u32,
}

impl Gate<'_> {
    /// Whether the matrix is as large as the one it is the gate of.
    fn fits(&self, layout: &Layout) -> bool {
        let Layout {
            tier, rows, cols, ..
        } = *self.layout;
        (tier, rows, cols) == (layout.tier, layout.rows, layout.cols)
            && self.packed.len() >= self.layout.bytes()
    }
}

impl Layout {
    /// `None` where there is no kernel for this matrix, or where packing would
    /// take more memory than it is worth: leave it to llama.cpp.
    pub fn new(tier: Tier, kind: WeightType, rows: usize, cols: usize) -> Option<Layout> {
        let padding = rows.next_multiple_of(GROUP) - rows;
        let fits = rows > 0 && cols > 0 && cols.is_multiple_of(kind.block_values());
        (fits && padding * 32 <= rows).then_some(Layout {
            tier,
            kind,
            rows,
            cols,
        })
    }

    /// Rows (outputs) of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The inner dimension.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Groups of [`GROUP`] rows, the last one maybe not full.
    pub fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// Bytes of the packed matrix: those of ggml's, with the last group full.
    pub fn bytes(&self) -> usize {
        self.groups() * self.group_bytes()
    }

    /// Bytes of a row in ggml's layout.
    pub fn ggml_row_bytes(&self) -> usize {
        self.chunks() * self.spec().ggml_block()
    }

    /// Packs all rows. `source` has ggml's rows back to back. `packed` is best
    /// aligned to 64 bytes.
    pub fn pack(&self, source: &[u8], packed: &mut [u8]) {
        let packed = &mut packed[..self.bytes()];
        self.pack_groups(0..self.groups(), source, packed);
    }

    /// Packs some groups (threads can share out a matrix): `source` has all of
    /// ggml's rows, `packed` has room for just these groups.
    pub fn pack_groups(&self, groups: Range<usize>, source: &[u8], packed: &mut [u8]) {
        let row_bytes = self.ggml_row_bytes();
        assert_eq!(source.len(), self.rows * row_bytes);
        assert_eq!(packed.len(), groups.len() * self.group_bytes());
        for (group, packed) in groups.zip(packed.chunks_exact_mut(self.group_bytes())) {
            let rows = self.group_rows(group);
            let source = &source[rows.start * row_bytes..rows.end * row_bytes];
            pack::pack_group(self.tier, self.kind, source, row_bytes, packed);
        }
    }

    /// The rows of group `group`.
    pub fn group_rows(&self, group: usize) -> Range<usize> {
        group * GROUP..((group + 1) * GROUP).min(self.rows)
    }

    fn spec(&self) -> Spec {
        self.kind.spec()
    }

    fn chunks(&self) -> usize {
        self.cols / self.spec().values()
    }

    /// Bytes of a packed group.
    pub fn group_bytes(&self) -> usize {
        self.chunks() * self.spec().chunk()
    }

    /// The inverse of [`pack`](Self::pack): ggml's bytes, exactly.
    pub fn unpack(&self, packed: &[u8], out: &mut [u8]) {
        let row_bytes = self.ggml_row_bytes();
        assert!(packed.len() >= self.bytes());
        assert_eq!(out.len(), self.rows * row_bytes);
        for group in 0..self.groups() {
            let rows = self.group_rows(group);
            let packed = &packed[group * self.group_bytes()..][..self.group_bytes()];
            let out = &mut out[rows.start * row_bytes..rows.end * row_bytes];
            pack::unpack_group(self.kind, packed, row_bytes, out);
        }
    }

    /// `out[i][j] = sum over k of x[i][k] * w[j][k]` for all rows i of `x` and
    /// the j of `outputs`, whose start is a multiple of [`GROUP`] and whose end
    /// is one or is [`rows`](Self::rows).
    pub fn multiply(&self, packed: &[u8], x: &Activations, outputs: Range<usize>, out: &Output) {
        self.multiply_gated(packed, None, x, outputs, out);
    }

    /// As [`multiply`](Self::multiply), where results are multiplied by those
    /// of the gate, if there is one, before anything is added.
    pub fn multiply_gated(
        &self,
        packed: &[u8],
        gate: Option<&Gate>,
        x: &Activations,
        outputs: Range<usize>,
        out: &Output,
    ) {
        assert!(x.rows() <= out.rows);
        let rows = (0..x.rows()).map(|row| (row, row));
        match x.rows() {
            1 => self.multiply_rows::<1>(packed, gate, x, rows, outputs, out),
            _ => self.multiply_rows::<TILE>(packed, gate, x, rows, outputs, out),
        }
    }

    /// As [`multiply`](Self::multiply), for the selected rows only:
    /// `out[s.output] = x[s.input] * w` (an expert's share of a batch).
    pub fn multiply_selected(
        &self,
        packed: &[u8],
        x: &Activations,
        selected: &[Selected],
        outputs: Range<usize>,
        out: &Output,
    ) {
        let rows = selected
            .iter()
            .map(|s| (s.input as usize, s.output as usize));
        match selected.len() {
            1 => self.multiply_rows::<1>(packed, None, x, rows, outputs, out),
            _ => self.multiply_rows::<TILE>(packed, None, x, rows, outputs, out),
        }
    }

    /// By tiles of up to `HEIGHT` rows.
    fn multiply_rows<const HEIGHT: usize>(
        &self,
        packed: &[u8],
        gate: Option<&Gate>,
        x: &Activations,
        mut rows: impl ExactSizeIterator<Item = (usize, usize)>,
        outputs: Range<usize>,
        out: &Output,
    ) {
        assert!(self.tier.is_available());
        assert_eq!(x.cols(), self.cols);
        assert!(packed.len() >= self.bytes());
        assert!(gate.is_none_or(|gate| gate.fits(self)));
        assert!(outputs.start.is_multiple_of(GROUP));
        assert!(outputs.end.is_multiple_of(GROUP) || outputs.end == self.rows);
        assert!(outputs.end <= self.rows && outputs.end <= out.cols);
        let groups = outputs.start / GROUP..outputs.end.div_ceil(GROUP);

        // Tiles of nearly the same height.
        let tile_rows = match rows.len() {
            0 => return,
            n => n.div_ceil(n.div_ceil(HEIGHT)),
        };
        let mut inputs = [std::ptr::null(); HEIGHT];
        let mut targets = [0; HEIGHT];
        // Only rows that are there are written.
        let mut sums = Aligned([const { MaybeUninit::uninit() }; HEIGHT]);
        let mut gates = Aligned([const { MaybeUninit::uninit() }; HEIGHT]);
        loop {
            let mut height = 0;
            for (input, output) in rows.by_ref().take(tile_rows) {
                assert!(output < out.rows);
                inputs[height] = x.row(input);
                targets[height] = output;
                sums.0[height].write([0.0; GROUP]);
                gates.0[height].write([0.0; GROUP]);
                height += 1;
            }
            if height == 0 {
                return;
            }
            let (inputs, targets) = (&inputs[..height], &targets[..height]);
            // SAFETY: the rows of this tile were written just now.
            let (sums, gates): (&mut [[f32; GROUP]], &mut [[f32; GROUP]]) = unsafe {
                (
                    from_raw_parts_mut(sums.0.as_mut_ptr().cast(), height),
                    from_raw_parts_mut(gates.0.as_mut_ptr().cast(), height),
                )
            };
            for group in groups.clone() {
                let range = self.group_rows(group);
                for &target in targets {
                    prefetch(out.data.wrapping_add(target * out.stride + range.start));
                }
                // SAFETY: the tiers are available; the inputs are rows of `x`
                // and as long as the rows of both matrices.
                unsafe {
                    self.multiply_tile(packed, group, inputs, x.step(), sums);
                    if let Some(gate) = gate {
                        let Gate { layout, packed, .. } = gate;
                        layout.multiply_tile(packed, group, inputs, x.step(), gates);
                        gate.activation.gate(self.tier, gates, sums);
                    }
                }
                for (sums, &target) in sums.iter_mut().zip(targets) {
                    // SAFETY: `range` ends within the columns of the output,
                    // and target is one of its rows.
                    unsafe { out.write(target, range.clone(), sums) };
                }
            }
        }
    }

    /// The sums of some rows and a group of the weights.
    ///
    /// # Safety
    /// The tier is available; `inputs` are the first blocks of rows as long as
    /// those of the weights, block b at `input + b * step`.
    unsafe fn multiply_tile(
        &self,
        packed: &[u8],
        group: usize,
        inputs: &[*const ActivationBlock],
        step: usize,
        sums: &mut [[f32; GROUP]],
    ) {
        let mut tile = Tile {
            weights: &packed[group * self.group_bytes()..][..self.group_bytes()],
            inputs,
            step,
            sums,
        };
        let tile = &mut tile;
        // SAFETY: as the caller promises.
        unsafe {
            match self.tier {
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512Vnni => avx512::multiply(self.kind, tile),
                #[cfg(target_arch = "x86_64")]
                Tier::AvxVnni => avx2::multiply::<true>(self.kind, tile),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2 => avx2::multiply::<false>(self.kind, tile),
                _ => portable::multiply(self.kind, tile),
            }
        }
    }
}

/// Asks for the lines that the results of a group will go to.
#[inline]
#[cfg_attr(not(all(target_arch = "x86_64", not(miri))), allow(unused_variables))]
fn prefetch(target: *mut f32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in 0..2 {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: prefetches of any address are allowed.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(target.wrapping_add(16 * line).cast()) };
    }
}

/// Memory from the start of a cache line on: no vector in it is in two lines.
#[repr(align(64))]
struct Aligned<T>(T);

/// The product of a group of weights with up to [`TILE`] activation rows.
///
/// For the kernels: each of `inputs` points to a row of activations with the
/// blocks of all k of the weights, block b at `input + b * step`; `sums` has as
/// many rows as `inputs`.
pub(crate) struct Tile<'a> {
    weights: &'a [u8],
    inputs: &'a [*const ActivationBlock],
    step: usize,
    sums: &'a mut [[f32; GROUP]],
}
