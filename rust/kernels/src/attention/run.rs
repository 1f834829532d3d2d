//! Attention over slices, checked.

use super::{Attention, Part, Shape, Strides, Tensors};

/// The inputs of [`Attention::run`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Queries.
    pub query: &'a [f32],
    /// Keys.
    pub key: &'a [u8],
    /// Values.
    pub value: &'a [u8],
    /// Mask (the bits of its F16), if the shape has one.
    pub mask: Option<&'a [u16]>,
    /// A sink logit for each head.
    pub sinks: Option<&'a [f32]>,
}

impl Attention {
    /// Computes the node on `threads` threads of its own.
    ///
    /// # Panics
    /// If a slice is too short for the shape, or there is a mask where the
    /// shape has none or the other way round.
    pub fn run(&self, inputs: &Inputs, output: &mut [f32], threads: usize) {
        let shape = &self.shape;
        let (tokens, cells) = (shape.tokens, shape.cells);
        let check = |strides: Strides, rows, heads, row_bytes, slice_bytes| {
            let last = (rows - 1) * strides.row
                + (heads - 1) * strides.head
                + (shape.streams - 1) * strides.stream;
            assert!(
                last + row_bytes <= slice_bytes,
                "a slice is shorter than its tensor"
            );
        };
        let key_bytes = shape.key_type.row_bytes(shape.key_dim);
        let value_bytes = shape.value_type.row_bytes(shape.value_dim);
        check(
            shape.query,
            tokens,
            shape.heads,
            4 * shape.key_dim,
            size_of_val(inputs.query),
        );
        check(
            shape.key,
            cells,
            shape.kv_heads,
            key_bytes,
            inputs.key.len(),
        );
        check(
            shape.value,
            cells,
            shape.kv_heads,
            value_bytes,
            inputs.value.len(),
        );
        check(
            shape.output,
            tokens,
            shape.heads,
            4 * shape.value_dim,
            size_of_val(output),
        );
        assert_eq!(shape.mask.is_some(), inputs.mask.is_some());
        if let (Some(strides), Some(mask)) = (shape.mask, inputs.mask) {
            check(strides, tokens, 1, 2 * cells, size_of_val(mask));
        }
        assert!(inputs.sinks.is_none_or(|sinks| sinks.len() >= shape.heads));
        assert!(self.has_disjoint_results());
        let tensors = Tensors {
            query: inputs.query.as_ptr(),
            key: inputs.key.as_ptr(),
            value: inputs.value.as_ptr(),
            mask: inputs.mask.map_or(std::ptr::null(), <[u16]>::as_ptr),
            sinks: inputs.sinks.map_or(std::ptr::null(), <[f32]>::as_ptr),
            output: output.as_mut_ptr(),
        };
        let mut scratch = vec![CacheLine([0; 64]); self.scratch(threads).div_ceil(64)];
        let run = Run {
            attention: self,
            tensors,
            scratch: scratch.as_mut_ptr().cast(),
        };
        run.part(Part::Compute, threads);
        if self.is_split(threads) {
            run.part(Part::Merge, threads);
        }
    }

    /// Whether no two results share memory.
    fn has_disjoint_results(&self) -> bool {
        let Shape {
            output,
            value_dim,
            heads,
            tokens,
            streams,
            ..
        } = self.shape;
        let mut dims = [
            (output.row, tokens),
            (output.head, heads),
            (output.stream, streams),
        ];
        dims.sort_unstable();
        let mut extent = 4 * value_dim;
        dims.iter()
            .filter(|(_, count)| *count > 1)
            .all(|&(stride, count)| {
                let fits = stride >= extent;
                extent += stride * (count - 1);
                fits
            })
    }
}

/// A run of [`Attention::run`].
struct Run<'a> {
    attention: &'a Attention,
    tensors: Tensors,
    scratch: *mut u8,
}

// SAFETY: the pointers are of slices that `Attention::run` has borrowed, and
// threads write to disjoint parts of them.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn part(&self, part: Part, threads: usize) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let Run {
                        attention,
                        tensors,
                        scratch,
                    } = self;
                    // SAFETY: `Attention::run` has checked the extents of the
                    // tensors and made the scratch; the scope ends when all
                    // threads have returned.
                    unsafe { attention.share(part, tensors, *scratch, thread, threads) }
                });
            }
        });
    }
}

/// Memory with the alignment of scratch.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct CacheLine(#[expect(dead_code, reason = "only its memory is used")] [u8; 64]);
