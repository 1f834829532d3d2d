//! Products with packed weights: ggml's MUL_MAT and MUL_MAT_ID.

use std::ops::Range;
use std::slice::from_raw_parts;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use super::buffer::packed_buffer;
use super::experts::Experts;
use super::memory::Memory;
use super::tensor::{Floats, is_empty, source};
use super::weights::Packing;
use super::workspace::{Selection, Workspace};
use crate::dispatch::Tier;
use crate::gate::Activation;
use crate::matmul::{Activations, GROUP, Gate, Output};
use crate::norm::RmsNorm;

/// Up to this many activation rows each thread quantizes all of them for
/// itself: that takes less time than waiting for the others.
const FEW_ROWS: usize = 4;

/// Bytes of weights that a thread multiplies at once: what stays in the
/// second-level cache while all activation rows pass.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks for each thread, so that a thread that is held up has less to do.
const CHUNKS_PER_THREAD: usize = 4;

/// A node of a graph that we compute, with what `fuse.rs` has joined to it.
pub(super) struct Product {
    tier: Tier,
    pub matrix: Matrix,
    /// The rows to multiply, or what they are the norm of.
    pub inputs: Floats,
    pub norm: Option<Norm>,
    /// What the results are multiplied by.
    pub gate: Option<(Activation, Matrix)>,
    /// What is added to them.
    pub addend: Option<Floats>,
    /// The results: one row for each row of inputs, or for each selected one.
    pub output: Floats,
    experts: Option<Experts>,
    /// Whether the inputs are not in the workspace yet.
    pub quantizes: bool,
    /// How many chunks of each thread's share are taken.
    taken: Box<[Taken]>,
}

/// Packed weights.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    packing: Packing,
    data: *const u8,
}

impl Matrix {
    /// All packed bytes.
    ///
    /// # Safety
    /// The weights are loaded.
    unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: the packed tensor, which nobody writes after loading.
        unsafe { from_raw_parts(self.data, self.packing.bytes()) }
    }
}

/// Inputs are the norm of rows: with weights, as many as a row has values.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub weight: *const f32,
    pub epsilon: f32,
}

/// A counter in cache lines of its own: two, as they are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicUsize);

/// Whether we compute this operation. Its weights may have no memory yet.
pub(super) fn takes(tier: Tier, op: &Tensor) -> bool {
    is_empty(op) || Product::new(tier, op).is_some()
}

impl Product {
    /// `None`: ggml computes this node.
    pub fn new(tier: Tier, op: &Tensor) -> Option<Product> {
        let experts = match op.op {
            sys::GGML_OP_MUL_MAT => None,
            sys::GGML_OP_MUL_MAT_ID => Some(Experts::new(op)?),
            _ => return None,
        };
        let weights = source(op, 0)?;
        packed_buffer(weights)?;
        let packing = Packing::of(tier, weights)?;
        let (inputs, output) = (Floats::of(source(op, 1)?)?, Floats::of(op)?);
        let fits = (experts.is_some() || packing.matrices == 1)
            && inputs.cols == packing.layout.cols()
            && output.cols == packing.layout.rows();
        fits.then_some(Product {
            tier,
            matrix: Matrix {
                packing,
                data: weights.data.cast(),
            },
            inputs,
            norm: None,
            gate: None,
            addend: None,
            output,
            experts,
            quantizes: true,
            taken: Box::default(),
        })
    }

    /// Whether results can be multiplied by, or added to, others.
    pub fn is_plain(&self) -> bool {
        self.experts.is_none() && self.gate.is_none() && self.addend.is_none()
    }

    /// Makes room; `None` if there is no memory.
    pub fn reserve(&mut self, workspace: &mut Workspace) -> Option<()> {
        self.taken = (0..workspace.threads()).map(|_| Taken::default()).collect();
        let Floats { rows, cols, .. } = self.inputs;
        if rows <= FEW_ROWS {
            return Some(());
        }
        workspace.reserve_shared(Activations::bytes(rows, cols))
    }

    /// Makes ready for a computation.
    pub fn begin(&mut self) {
        for taken in &mut self.taken {
            *taken.0.get_mut() = 0;
        }
    }

    /// Computes the share of thread `thread` of `threads`.
    ///
    /// # Safety
    /// All tensors of the node have their memory; all threads call this for
    /// the same products in the same order, with a barrier between products;
    /// `workspace` has room for it and is used by this graph alone.
    pub unsafe fn compute(&self, workspace: &Workspace, thread: usize, threads: usize) {
        if self.inputs.rows == 0 {
            return;
        }
        // SAFETY: each thread has a place of its own.
        let own = unsafe { workspace.own(thread) };
        let (rows, normed) = (&mut own.rows, &mut own.normed);
        // SAFETY: as the caller promises.
        let inputs = unsafe { self.quantized(workspace, rows, normed, thread, threads) };
        // SAFETY: the memory of the node; chunks are disjoint. Addends are
        // where results go, or elsewhere, as `fuse.rs` has looked.
        let output = unsafe {
            let Floats { data, stride, .. } = self.output;
            let output = Output::new(data, self.output.rows, self.output.cols, stride);
            match self.addend {
                None => output,
                Some(addend) => output.adding_to(addend.data, addend.stride),
            }
        };
        let Packing { layout, matrices } = &self.matrix.packing;
        // SAFETY: graphs are computed after loading.
        let weights = unsafe { self.matrix.bytes() };
        let gate = self.gate.as_ref().map(|(activation, matrix)| Gate {
            activation: *activation,
            layout: &matrix.packing.layout,
            // SAFETY: as above.
            packed: unsafe { matrix.bytes() },
        });
        match &self.experts {
            None => self.chunks(1, thread, threads, |_, range| {
                layout.multiply_gated(weights, gate.as_ref(), &inputs, range, &output);
            }),
            Some(experts) => {
                // SAFETY: the ids have their memory, as the caller promises.
                unsafe { experts.select(*matrices, &mut own.selection) };
                let matrices: Vec<&[u8]> = weights.chunks(layout.bytes()).collect();
                self.chunks(matrices.len(), thread, threads, |expert, range| {
                    let Selection { rows, starts } = &own.selection;
                    let selected = &rows[starts[expert]..starts[expert + 1]];
                    layout.multiply_selected(matrices[expert], &inputs, selected, range, &output);
                });
            }
        }
    }

    /// The inputs in 8 bits.
    ///
    /// # Safety
    /// As for [`compute`](Self::compute).
    unsafe fn quantized<'a>(
        &self,
        workspace: &'a Workspace,
        own: &'a mut Memory,
        normed: &mut Vec<f32>,
        thread: usize,
        threads: usize,
    ) -> Activations<'a> {
        let Floats { rows, cols, .. } = self.inputs;
        let few = rows <= FEW_ROWS;
        if few {
            let room = own.reserve(Activations::bytes(FEW_ROWS, cols));
            room.expect("memory for a few activation rows");
        }
        let memory = if few {
            own.as_ptr()
        } else {
            workspace.shared()
        };
        // SAFETY: `reserve` has made room, here or before; with few rows nobody else has
        // the memory, else each thread writes rows of its own and waits before
        // it reads others.
        let activations = unsafe { Activations::new(memory, rows, cols) };
        if !self.quantizes {
            return activations;
        }
        let own_rows = if few {
            0..rows
        } else {
            share(rows, thread, threads)
        };
        for row in own_rows {
            // SAFETY: the memory of the inputs, which an earlier node wrote.
            let values = unsafe {
                let data = self.inputs.data.add(row * self.inputs.stride);
                from_raw_parts(data, cols)
            };
            let values = match &self.norm {
                None => values,
                Some(norm) => {
                    normed.resize(cols, 0.0);
                    // SAFETY: as above; a model's weights stay as they are.
                    let weight = unsafe { from_raw_parts(norm.weight, cols) };
                    let epsilon = norm.epsilon;
                    RmsNorm { weight, epsilon }.apply(self.tier, values, normed);
                    &*normed
                }
            };
            activations.quantize_row(self.tier, row, values);
        }
        // Results may go where the inputs of others are, which ggml thinks
        // nobody reads any more.
        if threads > 1 && (!few || self.output.overlap(&self.inputs)) {
            workspace.barrier.wait(threads);
        }
        activations
    }

    /// Calls `multiply` with parts of the outputs of `matrices` matrices until
    /// all threads together have taken all. A thread begins with parts that
    /// follow each other in memory, and then helps the others.
    fn chunks(
        &self,
        matrices: usize,
        thread: usize,
        threads: usize,
        multiply: impl Fn(usize, Range<usize>),
    ) {
        let layout = &self.matrix.packing.layout;
        let groups = layout.groups();
        let cached = CHUNK_BYTES / layout.group_bytes();
        let even = groups * matrices / (threads * CHUNKS_PER_THREAD);
        let chunk = cached.min(even).clamp(1, groups);
        // As many for each thread, if there are enough: none waits for another.
        let chunks = groups.div_ceil(chunk).next_multiple_of(threads).min(groups);
        for other in (thread..threads).chain(0..thread) {
            let share = share(chunks * matrices, other, threads);
            loop {
                let index = share.start + self.taken[other].0.fetch_add(1, Ordering::Relaxed);
                if index >= share.end {
                    break;
                }
                let (matrix, index) = (index / chunks, index % chunks);
                let Range { start, end } = self::share(groups, index, chunks);
                multiply(matrix, start * GROUP..(end * GROUP).min(layout.rows()));
            }
        }
    }
}

/// The part of `count` things for thread `thread` of `threads`.
fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    count * thread / threads..count * (thread + 1) / threads
}

/// Whether a source of `op` is in one of our buffers.
pub(super) fn reads_packed(op: &Tensor) -> bool {
    op.src.iter().any(|source| {
        // SAFETY: sources are null or valid, as their buffers are.
        unsafe { source.as_ref() }.is_some_and(|source| packed_buffer(source).is_some())
    })
}
