//! What is computed with the products beside it: norms, gates and sums.

use llama_cpp_sys_2 as sys;

use crate::bench::{Bench, error, read};

type Tensor = *mut sys::ggml_tensor;

/// Both sides round activations to 8 bits, here twice.
const TOLERANCE: f64 = 1e-3;

const COLS: i64 = 256;
const HIDDEN: i64 = 512;

/// What is in memory that nobody has written.
const UNTOUCHED: f32 = 12345.0;

/// A part of a model's layer.
struct Layer {
    norm: Tensor,
    weighted: Tensor,
    query: Tensor,
    gate: Tensor,
    up: Tensor,
    unit: Tensor,
    down: Tensor,
    sum: Tensor,
}

impl Layer {
    /// What is joined, and so not computed by itself.
    fn between(&self) -> [Tensor; 5] {
        [self.norm, self.weighted, self.gate, self.up, self.down]
    }

    fn results(&self) -> [Tensor; 3] {
        [self.query, self.unit, self.sum]
    }
}

/// The same layer with our weights and with llama.cpp's.
struct Case {
    bench: Bench,
    inputs: Tensor,
    layers: [Layer; 2],
    weights: Vec<[Tensor; 2]>,
    norm_weight: Tensor,
}

impl Case {
    fn new(seed: u64, kind: sys::ggml_type, rows: i64, threads: i32, gelu: bool) -> Case {
        let bench = Bench::new(seed, threads);
        let matrix = |cols, outputs| bench.weights(kind, [cols, outputs, 1]);
        let weights = vec![
            matrix(COLS, 96),
            matrix(COLS, HIDDEN),
            matrix(COLS, HIDDEN),
            matrix(HIDDEN, COLS),
        ];
        let inputs = bench.inputs([COLS, rows, 1]);
        let norm_weight = bench.inputs([COLS, 1, 1]);
        let context = bench.contexts[2];
        let layer = |side: usize| unsafe {
            let product = |index: usize, x| {
                let weights: &[Tensor; 2] = &weights[index];
                sys::ggml_mul_mat(context, weights[side], x)
            };
            let norm = sys::ggml_rms_norm(context, inputs, 1e-5);
            let weighted = sys::ggml_mul(context, norm, norm_weight);
            let query = product(0, weighted);
            let (gate, up) = (product(1, weighted), product(2, weighted));
            let unit = match gelu {
                true => sys::ggml_geglu_split(context, gate, up),
                false => sys::ggml_swiglu_split(context, gate, up),
            };
            let down = product(3, unit);
            let sum = sys::ggml_add(context, down, inputs);
            Layer {
                norm,
                weighted,
                query,
                gate,
                up,
                unit,
                down,
                sum,
            }
        };
        let layers = [layer(0), layer(1)];
        Case {
            bench,
            inputs,
            layers,
            weights,
            norm_weight,
        }
    }

    /// Gives everything memory and numbers.
    fn fill(&mut self) {
        self.bench.allocate();
        for &weights in &self.weights {
            self.bench.fill_weights(weights);
        }
        for tensor in [self.norm_weight, self.inputs] {
            self.bench.fill_inputs(tensor);
        }
        for tensor in self.layers.iter().flat_map(Layer::between) {
            let values = vec![UNTOUCHED; read(tensor).len()];
            write(tensor, &values);
        }
    }

    /// Computes the layers, and what else is asked for.
    fn compute(&self, others: &[Tensor]) {
        let results = self.layers.iter().flat_map(Layer::results);
        let all: Vec<Tensor> = results.chain(others.iter().copied()).collect();
        self.bench.compute(&all);
    }

    fn assert_close(&self, what: &str) {
        let [ours, theirs] = &self.layers;
        for (ours, theirs) in ours.results().into_iter().zip(theirs.results()) {
            let error = error(ours, theirs);
            assert!(error < TOLERANCE, "{what}: {error:e}");
        }
    }
}

fn write(tensor: Tensor, values: &[f32]) {
    unsafe {
        assert_eq!(sys::ggml_nbytes(tensor), size_of_val(values));
        let bytes = size_of_val(values);
        sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, bytes);
    }
}

fn is_untouched(tensor: Tensor) -> bool {
    read(tensor).iter().all(|&x| x == UNTOUCHED)
}

#[test]
fn layers_are_those_of_llama_cpp() {
    let mut random = fastrand::Rng::with_seed(1);
    let kinds = [
        sys::GGML_TYPE_Q4_1,
        sys::GGML_TYPE_Q8_0,
        sys::GGML_TYPE_Q4_K,
        sys::GGML_TYPE_Q6_K,
    ];
    for kind in kinds {
        for rows in [1, 2, 4, 5, 9, 70] {
            for gelu in [false, true] {
                let threads = random.i32(1..=8);
                let mut case = Case::new(random.u64(..), kind, rows, threads, gelu);
                case.fill();
                case.compute(&[]);
                let what = format!("type {kind}, {rows} rows, {threads} threads");
                case.assert_close(&what);
                let ours = case.layers[0].between();
                assert!(ours.into_iter().all(is_untouched), "{what}: not joined");
            }
        }
    }
}

#[test]
fn a_row_is_the_same_beside_others() {
    let layer = |rows: i64, threads, numbers: Option<&[f32]>| {
        let mut case = Case::new(2, sys::GGML_TYPE_Q4_K, rows, threads, true);
        case.fill();
        if let Some(numbers) = numbers {
            write(case.inputs, numbers);
        }
        case.compute(&[]);
        (read(case.inputs), case.layers[0].results().map(read))
    };
    for (rows, threads) in [(2, 1), (4, 3), (5, 2), (8, 4), (70, 2)] {
        let (inputs, together) = layer(rows, threads, None);
        for (row, inputs) in inputs.chunks(COLS as usize).enumerate() {
            let (_, alone) = layer(1, 2, Some(inputs));
            for (together, alone) in together.iter().zip(&alone) {
                let together = &together[row * alone.len()..][..alone.len()];
                assert!(together == alone, "row {row} of {rows}");
            }
        }
    }
}

/// What else may read an intermediate result, or ask for it.
#[test]
fn what_others_want_is_computed() {
    for rows in [1, 6] {
        for index in 0..5 {
            for reader in ["output", "node", "view"] {
                let mut case = Case::new(3, sys::GGML_TYPE_Q8_0, rows, 2, false);
                let context = case.bench.contexts[2];
                let read_again = case.layers.each_ref().map(|layer| unsafe {
                    let tensor = layer.between()[index];
                    let cols = (*tensor).ne[0];
                    match reader {
                        "output" => {
                            sys::ggml_set_output(tensor);
                            layer.sum
                        }
                        "node" => sys::ggml_scale(context, tensor, 2.0),
                        _ => {
                            let view = sys::ggml_view_1d(context, tensor, cols / 2, 4);
                            sys::ggml_scale(context, view, 2.0)
                        }
                    }
                });
                case.fill();
                case.compute(&read_again);
                let what = format!("{reader} of {index}, {rows} rows");
                case.assert_close(&what);
                let error = error(read_again[0], read_again[1]);
                assert!(error < TOLERANCE, "{what}: {error:e}");
                let [ours, theirs] = case.layers.each_ref().map(|layer| layer.between()[index]);
                let error = crate::bench::error(ours, theirs);
                assert!(error < TOLERANCE, "{what}: {error:e}");
            }
        }
    }
}

#[test]
fn sums_may_be_in_place_of_either() {
    for rows in [1, 5, 40] {
        let mut bench = Bench::new(4, 2);
        let [ours, theirs] = bench.weights(sys::GGML_TYPE_Q5_0, [COLS, COLS, 1]);
        let inputs = bench.inputs([COLS, rows, 1]);
        let [first, second, third] = [(); 3].map(|()| bench.inputs([COLS, rows, 1]));
        let context = bench.contexts[2];
        let results = unsafe {
            let product = |weights| sys::ggml_mul_mat(context, weights, inputs);
            [
                [
                    sys::ggml_add_inplace(context, product(ours), first),
                    sys::ggml_add(context, product(theirs), first),
                ],
                [
                    sys::ggml_add_inplace(context, second, product(ours)),
                    sys::ggml_add(context, product(theirs), third),
                ],
            ]
        };
        bench.allocate();
        bench.fill_weights([ours, theirs]);
        for tensor in [inputs, first, second] {
            bench.fill_inputs(tensor);
        }
        write(third, &read(second));
        let order = [results[0][0], results[0][1], results[1][1], results[1][0]];
        bench.compute(&order);
        for [ours, theirs] in results {
            assert!(error(ours, theirs) < TOLERANCE, "{rows} rows");
        }
    }
}

#[test]
fn sums_may_be_in_place_of_the_inputs() {
    // Threads that are ahead write to what the others still have to read.
    for rows in [1, 2, 4, 20] {
        for seed in 0..20 {
            let mut bench = Bench::new(seed, 4);
            let weights = bench.weights(sys::GGML_TYPE_Q8_0, [HIDDEN, HIDDEN, 1]);
            let inputs = [(); 2].map(|()| bench.inputs([HIDDEN, rows, 1]));
            let context = bench.contexts[2];
            let [ours, theirs] = [0, 1].map(|side| unsafe {
                let product = sys::ggml_mul_mat(context, weights[side], inputs[side]);
                sys::ggml_add_inplace(context, inputs[side], product)
            });
            bench.allocate();
            bench.fill_weights(weights);
            bench.fill_inputs(inputs[0]);
            write(inputs[1], &read(inputs[0]));
            bench.compute(&[ours, theirs]);
            let error = error(ours, theirs);
            assert!(error < TOLERANCE, "{rows} rows, seed {seed}: {error:e}");
        }
    }
}

#[test]
fn a_sum_with_itself_is_twice_the_product() {
    let mut bench = Bench::new(5, 2);
    let weights = bench.weights(sys::GGML_TYPE_Q4_0, [COLS, COLS, 1]);
    let inputs = bench.inputs([COLS, 1, 1]);
    let context = bench.contexts[2];
    let [ours, theirs] = weights.map(|weights| unsafe {
        let product = sys::ggml_mul_mat(context, weights, inputs);
        sys::ggml_add(context, product, product)
    });
    bench.allocate();
    bench.fill_weights(weights);
    bench.fill_inputs(inputs);
    bench.compute(&[ours, theirs]);
    assert!(error(ours, theirs) < TOLERANCE);
}
