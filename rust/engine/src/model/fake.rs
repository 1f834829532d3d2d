//! The scripted twin of a model, for tests of schedules and faults.
//!
//! What it says next is a function of the tokens that it finds in its own
//! simulated cells, so a mistake in the engine's bookkeeping of cells comes out
//! as wrong text. It panics on calls that llama.cpp would reject or take badly.

mod cells;
mod control;
mod spec;
mod vocab;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

pub use self::control::Control;
pub use self::spec::{FakeSpec, Script};
pub use self::vocab::FakeVocab;

use self::cells::Cells;
use super::{DecodeError, Kernels, Loader, Model, ModelInfo, Reuse, Row, SeqId, Vocab};
use crate::Error;
use crate::lookup::Terms;

/// Few, so that tests come to their end.
const SPARE_SEQUENCES: usize = 4;

/// Makes the scripted model.
#[derive(Debug)]
pub struct FakeLoader {
    spec: FakeSpec,
    info: ModelInfo,
    control: Arc<Control>,
}

impl FakeLoader {
    /// A model with `cells` cells and at most 60 `sequences`.
    pub fn new(spec: FakeSpec, cells: usize, sequences: usize) -> Self {
        let info = ModelInfo {
            description: format!("scripted model: {:?}", spec.script),
            kernels: Kernels::Off,
            threads: 1,
            cells,
            block: spec.block,
            sequences,
            batch: spec.batch,
            trained_context: 0,
            drafts: match spec {
                FakeSpec { whole: true, .. } => Terms::NONE,
                FakeSpec { dear: true, .. } => Terms::DEAR,
                _ => Terms::CHEAP,
            },
            can_shift: spec.can_shift,
            spare_sequences: SPARE_SEQUENCES,
            reuse: spec.reuse(),
        };
        Self {
            spec,
            info,
            control: Arc::default(),
        }
    }

    /// The hand on the model, for whoever keeps it while the engine has the
    /// loader.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }
}

impl Loader for FakeLoader {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        Ok(Arc::new(FakeVocab))
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        if let Some(gate) = &self.spec.gate {
            std::fs::read(gate).map_err(|error| Error::ModelLoad(error.to_string()))?;
        }
        let room = self.spec.room.unwrap_or(self.info.cells);
        self.control.report_cells(0);
        serve(&mut FakeModel {
            spec: &self.spec,
            info: &self.info,
            control: &self.control,
            cells: Cells::new(
                room,
                self.spec.block,
                self.info.sequences + self.info.spare_sequences,
                self.spec.window,
            ),
            logits: HashMap::new(),
        });
        Ok(())
    }
}

struct FakeModel<'a> {
    spec: &'a FakeSpec,
    info: &'a ModelInfo,
    control: &'a Control,
    cells: Cells,
    /// By row of the last decode.
    logits: HashMap<usize, Vec<f32>>,
}

impl Model for FakeModel<'_> {
    fn info(&self) -> &ModelInfo {
        self.info
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        assert!(
            (1..=self.info.batch).contains(&rows.len()),
            "a batch of {} rows",
            rows.len()
        );
        self.control.pass(rows);
        if !self.spec.delay.is_zero() {
            thread::sleep(self.spec.delay);
        }
        if rows.len() > self.cells.free() {
            return Err(DecodeError::NoRoom);
        }
        self.logits.clear();
        self.cells.slide(rows);
        for (at, row) in rows.iter().enumerate() {
            self.cells.put(row);
            if row.logits {
                let tokens = self.cells.tokens(row.sequence);
                let order = self.cells.order(row.sequence);
                let [best, second] = self.spec.script.next(&tokens, &order);
                // Far enough apart for any temperature and penalty in use.
                let mut logits = vec![0.0; FakeVocab.n_tokens()];
                logits[second as usize] = 40.0;
                logits[best as usize] = 80.0;
                self.logits.insert(at, logits);
            }
        }
        self.control.report_cells(self.cells.used());
        self.control.report_scattered(self.cells.scattered());
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.logits
            .get(&row)
            .expect("logits of a row that asked for them")
    }

    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool {
        assert!(
            self.info.reuse != Reuse::Whole || (from, to) == (0, -1),
            "a part of a state"
        );
        self.cells.remove(sequence, from, to);
        self.control.report_cells(self.cells.used());
        true
    }

    fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32) {
        assert!(self.info.can_shift, "a shift of a model that cannot");
        self.cells.shift(sequence, from, to, delta);
    }

    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        assert!(self.info.reuse != Reuse::Whole, "a copy of a state");
        self.cells.copy(from, to, begin, end);
    }

    fn intact(&self, sequence: SeqId, len: i32) -> bool {
        self.cells.intact(sequence, len)
    }
}
