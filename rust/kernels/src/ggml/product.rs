//! Products with packed weights: ggml's MUL_MAT and MUL_MAT_ID.

use std::ops::Range;
use std::slice::from_raw_parts;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use super::buffer::packed_buffer;
use super::memory::Memory;
use super::tensor::{is_empty, is_plain, source};
use super::weights::Packing;
use super::workspace::{Selection, Workspace};
use crate::dispatch::Tier;
use crate::matmul::{Activations, GROUP, Output, Rows, Selected};

/// Up to this many activation rows each thread quantizes all of them for
/// itself: that takes less time than waiting for the others.
const FEW_ROWS: usize = 4;

/// Bytes of weights that a thread multiplies at once: what stays in the
/// second-level cache while all activation rows pass.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks for each thread, so that a thread that is held up has less to do.
const CHUNKS_PER_THREAD: usize = 4;

/// A node of a graph that we compute.
pub(super) struct Product {
    tier: Tier,
    packing: Packing,
    /// All packed matrices.
    weights: *const u8,
    inputs: Inputs,
    /// The results: one row for each row of inputs, or for each selected one.
    output: *mut f32,
    output_rows: usize,
    output_stride: usize,
    experts: Option<Experts>,
    /// Whether the inputs are not in the workspace yet.
    pub quantizes: bool,
    /// How many chunks of each thread's share are taken.
    taken: Box<[AtomicUsize]>,
}

/// Rows of f32.
#[derive(Clone, Copy)]
struct Inputs {
    data: *const f32,
    rows: usize,
    cols: usize,
    stride: usize,
}

/// Which experts multiply which rows.
struct Experts {
    ids: *const i32,
    tokens: usize,
    /// Experts of a token.
    used: usize,
    /// Ints from one token to the next.
    stride: usize,
    /// Rows of inputs of a token: as many as experts, or one for all.
    inputs: usize,
}

/// Whether we compute this operation. Its weights may have no memory yet.
pub(super) fn takes(tier: Tier, op: &Tensor) -> bool {
    is_empty(op) || Product::new(tier, op).is_some()
}

/// Bytes as a number of f32 or i32.
fn words(bytes: usize) -> Option<usize> {
    bytes.is_multiple_of(4).then_some(bytes / 4)
}

/// Rows in one stride: the number of rows of a tensor, and from one to the next.
fn rows(tensor: &Tensor) -> Option<(usize, usize)> {
    let [_, n1, n2, n3] = tensor.ne.map(|n| n as usize);
    let [nb0, nb1, nb2, nb3] = tensor.nb;
    let even = (n2 == 1 || nb2 == n1 * nb1) && (n3 == 1 || nb3 == n2 * nb2);
    (tensor.type_ == sys::GGML_TYPE_F32 && nb0 == 4 && even).then_some((n1 * n2 * n3, words(nb1)?))
}

impl Product {
    /// `None`: ggml computes this node.
    pub fn new(tier: Tier, op: &Tensor) -> Option<Product> {
        let experts = match op.op {
            sys::GGML_OP_MUL_MAT => None,
            sys::GGML_OP_MUL_MAT_ID => Some(Experts::new(op)?),
            _ => return None,
        };
        let (weights, input) = (source(op, 0)?, source(op, 1)?);
        packed_buffer(weights)?;
        let packing = Packing::of(tier, weights)?;
        let (input_rows, input_stride) = rows(input)?;
        let (output_rows, output_stride) = rows(op)?;
        let fits = is_plain(input)
            && is_plain(op)
            && (experts.is_some() || packing.matrices == 1)
            && input.ne[0] as usize == packing.layout.cols()
            && op.ne[0] as usize == packing.layout.rows();
        fits.then_some(Product {
            tier,
            packing,
            weights: weights.data.cast(),
            inputs: Inputs {
                data: input.data.cast(),
                rows: input_rows,
                cols: packing.layout.cols(),
                stride: input_stride,
            },
            output: op.data.cast(),
            output_rows,
            output_stride,
            experts,
            quantizes: true,
            taken: Box::default(),
        })
    }

    /// Makes room; `None` if there is no memory.
    pub fn reserve(&mut self, workspace: &mut Workspace) -> Option<()> {
        self.taken = (0..workspace.threads())
            .map(|_| AtomicUsize::default())
            .collect();
        let Inputs { rows, cols, .. } = self.inputs;
        if rows <= FEW_ROWS {
            return Some(());
        }
        workspace.reserve_shared(Activations::bytes(rows, cols))
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
        // SAFETY: as the caller promises.
        let inputs = unsafe { self.quantized(workspace, &mut own.rows, thread, threads) };
        // SAFETY: the memory of the node; chunks are disjoint.
        let output = unsafe {
            let cols = self.packing.layout.rows();
            Output::new(self.output, self.output_rows, cols, self.output_stride)
        };
        // SAFETY: the packed tensor, which nobody writes after loading.
        let weights = unsafe { from_raw_parts(self.weights, self.packing.bytes()) };
        match &self.experts {
            None => self.chunks(1, thread, threads, |_, range| {
                self.packing
                    .layout
                    .multiply(weights, &inputs, range, &output);
            }),
            Some(experts) => {
                // SAFETY: the ids have their memory, as the caller promises.
                unsafe { experts.select(self.packing.matrices, &mut own.selection) };
                let matrices: Vec<&[u8]> = weights.chunks(self.packing.layout.bytes()).collect();
                self.chunks(matrices.len(), thread, threads, |expert, range| {
                    let Selection { rows, starts } = &own.selection;
                    let selected = &rows[starts[expert]..starts[expert + 1]];
                    self.packing.layout.multiply_selected(
                        matrices[expert],
                        &inputs,
                        selected,
                        range,
                        &output,
                    );
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
        thread: usize,
        threads: usize,
    ) -> Activations<'a> {
        let Inputs {
            data,
            rows,
            cols,
            stride,
        } = self.inputs;
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
        if self.quantizes {
            // SAFETY: the memory of the inputs, which an earlier node wrote.
            let values = unsafe { from_raw_parts(data, (rows - 1) * stride + cols) };
            let share = if few {
                0..rows
            } else {
                share(rows, thread, threads)
            };
            activations.quantize(
                self.tier,
                Rows {
                    data: values,
                    stride,
                },
                share,
            );
            if !few && threads > 1 {
                workspace.barrier.wait(threads);
            }
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
        let layout = &self.packing.layout;
        let groups = layout.groups();
        let cached = CHUNK_BYTES / layout.group_bytes();
        let even = groups * matrices / (threads * CHUNKS_PER_THREAD);
        let chunk = cached.min(even).clamp(1, groups);
        let chunks = groups.div_ceil(chunk);
        for other in (thread..threads).chain(0..thread) {
            let share = share(chunks * matrices, other, threads);
            loop {
                let index = share.start + self.taken[other].fetch_add(1, Ordering::Relaxed);
                if index >= share.end {
                    break;
                }
                let (matrix, index) = (index / chunks, index % chunks);
                let start = index * chunk * GROUP;
                multiply(matrix, start..(start + chunk * GROUP).min(layout.rows()));
            }
        }
    }
}

/// The part of `count` things for thread `thread` of `threads`.
fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    count * thread / threads..count * (thread + 1) / threads
}

impl Experts {
    /// `None`: ggml computes this node.
    fn new(op: &Tensor) -> Option<Experts> {
        let (input, ids) = (source(op, 1)?, source(op, 2)?);
        let [used, tokens, 1, 1] = ids.ne.map(|n| n as usize) else {
            return None;
        };
        let [_, inputs, input_tokens, 1] = input.ne.map(|n| n as usize) else {
            return None;
        };
        let fits = ids.type_ == sys::GGML_TYPE_I32
            && ids.nb[0] == 4
            && is_plain(ids)
            && input_tokens == tokens
            && (inputs == 1 || inputs == used);
        fits.then_some(Experts {
            ids: ids.data.cast(),
            tokens,
            used,
            stride: words(ids.nb[1])?,
            inputs,
        })
    }

    /// Sorts the rows by expert.
    ///
    /// # Safety
    /// The ids have their memory.
    unsafe fn select(&self, experts: usize, selection: &mut Selection) {
        let id = |token: usize, index: usize| {
            // SAFETY: within the tensor.
            let id = unsafe { self.ids.add(token * self.stride + index).read() };
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            assert!(id < experts, "no such expert");
            id
        };
        let all = || (0..self.tokens).flat_map(|token| (0..self.used).map(move |i| (token, i)));
        selection.starts.clear();
        selection.starts.resize(experts + 1, 0);
        for (token, index) in all() {
            selection.starts[id(token, index) + 1] += 1;
        }
        for expert in 0..experts {
            selection.starts[expert + 1] += selection.starts[expert];
        }
        let mut next = selection.starts.clone();
        selection.rows.clear();
        selection.rows.resize(
            self.tokens * self.used,
            Selected {
                input: 0,
                output: 0,
            },
        );
        for (token, index) in all() {
            let place = &mut next[id(token, index)];
            selection.rows[*place] = Selected {
                input: (token * self.inputs + index % self.inputs) as u32,
                output: (token * self.used + index) as u32,
            };
            *place += 1;
        }
    }
}

/// Whether a source of `op` is in one of our buffers.
pub(super) fn reads_packed(op: &Tensor) -> bool {
    op.src.iter().any(|source| {
        // SAFETY: sources are null or valid, as their buffers are.
        unsafe { source.as_ref() }.is_some_and(|source| packed_buffer(source).is_some())
    })
}
