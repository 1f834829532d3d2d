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
mod pack;
mod portable;

use std::marker::PhantomData;
use std::ops::Range;

pub use crate::quantize::{Activations, Rows};
pub use format::{BLOCK, GROUP, WeightType};

use crate::dispatch::Tier;
use crate::quantize::ActivationBlock;
pub(crate) use format::Spec;

/// Activation rows that one pass over a group of weights multiplies: their
/// sums (128 bytes each) and their block of k stay in the first-level cache.
const TILE: usize = 64;

/// How a weight matrix of `rows` outputs and inner dimension `cols` is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    tier: Tier,
    kind: WeightType,
    rows: usize,
    cols: usize,
}

/// The f32 results, to be written by several threads at once.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: `Output::new` asks for disjoint writes.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// `rows` rows of `cols` results, row i at `data + i * stride`.
    ///
    /// # Safety
    /// The rows are valid for writes for `'a`, and nobody reads or writes an
    /// element while a call of [`Layout::multiply`] writes it: calls that run
    /// at the same time have disjoint `outputs` or disjoint rows.
    pub unsafe fn new(data: *mut f32, rows: usize, cols: usize, stride: usize) -> Self {
        Output {
            data,
            rows,
            cols,
            stride,
            memory: PhantomData,
        }
    }

    /// All of a matrix that nobody else uses.
    pub fn from_slice(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()));
        // SAFETY: the borrow is exclusive and long enough.
        unsafe { Self::new(data.as_mut_ptr(), rows, cols, cols) }
    }
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
        assert!(x.rows() <= out.rows);
        let rows = (0..x.rows()).map(|row| (row, row));
        self.multiply_rows(packed, x, rows, outputs, out);
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
        self.multiply_rows(packed, x, rows, outputs, out);
    }

    fn multiply_rows(
        &self,
        packed: &[u8],
        x: &Activations,
        mut rows: impl ExactSizeIterator<Item = (usize, usize)>,
        outputs: Range<usize>,
        out: &Output,
    ) {
        assert!(self.tier.is_available());
        assert_eq!(x.cols(), self.cols);
        assert!(packed.len() >= self.bytes());
        assert!(outputs.start.is_multiple_of(GROUP));
        assert!(outputs.end.is_multiple_of(GROUP) || outputs.end == self.rows);
        assert!(outputs.end <= self.rows && outputs.end <= out.cols);
        let groups = outputs.start / GROUP..outputs.end.div_ceil(GROUP);

        // Tiles of nearly the same height.
        let tile_rows = match rows.len() {
            0 => return,
            n => n.div_ceil(n.div_ceil(TILE)),
        };
        let mut inputs = [std::ptr::null(); TILE];
        let mut targets = [std::ptr::null_mut(); TILE];
        let mut sums = [[0.0; GROUP]; TILE];
        loop {
            let mut height = 0;
            for (input, output) in rows.by_ref().take(tile_rows) {
                assert!(output < out.rows);
                inputs[height] = x.row(input);
                // SAFETY: the row is inside of the output.
                targets[height] = unsafe { out.data.add(output * out.stride) };
                height += 1;
            }
            if height == 0 {
                return;
            }
            for group in groups.clone() {
                let range = self.group_rows(group);
                for target in &targets[..height] {
                    prefetch(target.wrapping_add(range.start));
                }
                let start = group * self.group_bytes();
                let mut tile = Tile {
                    weights: &packed[start..start + self.group_bytes()],
                    inputs: &inputs[..height],
                    step: x.step(),
                    sums: &mut sums[..height],
                };
                // SAFETY: the tier is available; the inputs are rows of `x` and
                // as long as the rows of the weights.
                unsafe { self.multiply_tile(&mut tile) };
                for (sums, target) in sums.iter().zip(&targets[..height]) {
                    // SAFETY: `range` ends within the columns of the output,
                    // and `Output::new` allows us to write there.
                    unsafe {
                        let target = target.add(range.start);
                        target.copy_from_nonoverlapping(sums.as_ptr(), range.len());
                    }
                }
            }
        }
    }

    /// # Safety
    /// See [`Tile`]; the tier is available.
    unsafe fn multiply_tile(&self, tile: &mut Tile) {
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
