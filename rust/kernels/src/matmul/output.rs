//! Where results go.

use std::marker::PhantomData;
use std::ops::Range;

use super::GROUP;

/// The f32 results, to be written by several threads at once.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    pub(super) data: *mut f32,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    /// What is added to the results, and from one row of it to the next.
    addend: Option<(*const f32, usize)>,
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
    /// element while a call of [`Layout::multiply`](super::Layout::multiply) writes it: calls that run
    /// at the same time have disjoint `outputs` or disjoint rows.
    pub unsafe fn new(data: *mut f32, rows: usize, cols: usize, stride: usize) -> Self {
        Output {
            data,
            rows,
            cols,
            stride,
            addend: None,
            memory: PhantomData,
        }
    }

    /// Results are what is added to these rows, row i at `data + i * stride`.
    ///
    /// # Safety
    /// The rows are valid for reads for `'a`. They are those of the output, or
    /// have no memory in common with it, and nobody writes to them.
    pub unsafe fn adding_to(self, data: *const f32, stride: usize) -> Self {
        Output {
            addend: Some((data, stride)),
            ..self
        }
    }

    /// Writes results to the columns `range` of row `row`.
    ///
    /// # Safety
    /// They are within the output, and the caller may write there.
    pub(super) unsafe fn write(&self, row: usize, range: Range<usize>, results: &mut [f32; GROUP]) {
        // SAFETY: as the caller promises; the addend has as many rows and
        // columns, and is read before the same elements are written.
        unsafe {
            if let Some((data, stride)) = self.addend {
                let addend = data.add(row * stride + range.start);
                for (index, result) in results[..range.len()].iter_mut().enumerate() {
                    *result += addend.add(index).read();
                }
            }
            let target = self.data.add(row * self.stride + range.start);
            target.copy_from_nonoverlapping(results.as_ptr(), range.len());
        }
    }

    /// All of a matrix that nobody else uses.
    pub fn from_slice(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()));
        // SAFETY: the borrow is exclusive and long enough.
        unsafe { Self::new(data.as_mut_ptr(), rows, cols, cols) }
    }
}
