//! Who computes what in the next step. No model, no clock, no thread: a
//! function from what is known of each request to the next [`Plan`].
//!
//! All requests stand in one line, in order of arrival, and those that run are
//! always the first few of it. Starting the next one, or pausing the youngest
//! because the pool is full, moves the border between running and waiting by
//! one. From this follow the two promises made to users: strictly first come,
//! first served, and the oldest request always makes progress.
//!
//! There is no prompt phase and no reply phase. A request has `tokens` that
//! are known and `computed` ones whose keys and values are in cells; a plan
//! closes the gap, for a stream by one row, for a prompt (or a paused reply
//! that resumes) by a bounded piece. vLLM's scheduler has the same view.
//!
//! Where few streams and nothing else is to be computed, more rows cost little,
//! and a stream's row is followed by a draft of what may come next
//! ([`crate::lookup`]). It takes cells that nobody else has a use for, and only
//! for the step: those of tokens that turn out right become the request's.
//!
//! Where a request begins with tokens that are in cells already, it starts
//! with those ([`crate::prefix`]); if an older request is about to compute
//! them, it waits at the door until that is done.

mod blocks;
mod drafts;
mod entry;
mod plan;

use std::collections::VecDeque;
use std::ops::Range;

pub use self::plan::{Piece, Plan, Relief};

use self::entry::Entry;
use crate::lookup::{Draft, Terms, Trust};
use crate::model::{Reuse, SeqId, Token};
use crate::prefix::{Change, Live, Prefixes, WORTHWHILE};
use crate::request::RequestId;

/// What there is to hand out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that can run at once.
    pub sequences: usize,
    /// Sequences beyond these, which keep what finished requests computed.
    pub spare_sequences: usize,
    /// What other requests can use of a sequence.
    pub reuse: Reuse,
    /// Cells of the pool; at least the most that one request can need.
    pub cells: usize,
    /// Cells that the model gives a sequence together, where so many are free.
    pub block: usize,
    /// Rows of one decode; at least `sequences`.
    pub batch: usize,
    /// Prompt tokens a decode takes at most while replies are streaming, so
    /// that a long prompt slows them down but does not freeze them. At least 1.
    pub prompt_beside_streams: usize,
    /// Drafts, of which a decode takes as many rows as the longest has; none
    /// with [`Reuse::Whole`].
    pub drafts: Terms,
}

/// The line of requests and the pool they share.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    /// Sorted by id, which is the order of arrival.
    line: VecDeque<Entry>,
    /// The first so many of `line` run.
    running: usize,
    /// The cells, and who has them.
    prefixes: Prefixes,
    /// A decode found no room: nobody is let in until somebody leaves.
    crowded: bool,
    /// Rows of a decode at most while crowded.
    ceiling: usize,
}

impl Scheduler {
    /// An empty line and an empty pool.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.sequences > 0 && limits.batch >= limits.sequences);
        assert!(limits.prompt_beside_streams > 0);
        assert!(limits.drafts.longest() == 0 || limits.reuse != Reuse::Whole);
        let sequences = limits.sequences + limits.spare_sequences;
        Self {
            limits,
            line: VecDeque::new(),
            running: 0,
            prefixes: Prefixes::new(sequences, limits.cells, limits.block, limits.reuse),
            crowded: false,
            ceiling: limits.batch,
        }
    }

    /// Puts a request at the end of the line. Ids must come in ascending
    /// order; `1 <= tokens <= limit <= Limits::cells`. A context shift leaves
    /// the first `keep` tokens where they are; `None`: there will be none.
    pub fn submit(&mut self, id: RequestId, tokens: Vec<Token>, limit: usize, keep: Option<usize>) {
        assert!(!tokens.is_empty() && tokens.len() <= limit && limit <= self.limits.cells);
        assert!(self.line.back().is_none_or(|last| last.id < id));
        self.line.push_back(Entry {
            id,
            tokens,
            limit,
            fixed: keep.unwrap_or(usize::MAX),
            computed: 0,
            shifted: false,
            sequence: None,
            started: false,
            trust: Trust::default(),
        });
    }

    /// Takes a request out, wherever it stands. What it computed is kept.
    pub fn remove(&mut self, id: RequestId) {
        if let Some(mut entry) = self.take(id) {
            entry.leave(&mut self.prefixes);
        }
    }

    /// The same for one whose cells are in an unknown state.
    pub fn discard(&mut self, id: RequestId) {
        if let Some(mut entry) = self.take(id) {
            entry.vanish(&mut self.prefixes);
        }
    }

    /// What the model has to do with its cells, in this order, before the next
    /// decode. To be asked after every call that changes something.
    pub fn changes(&mut self) -> Vec<Change> {
        self.prefixes.changes()
    }

    /// The tokens known of a request.
    pub fn tokens(&self, id: RequestId) -> &[Token] {
        let at = self.find(id).expect("a request that has not ended");
        &self.line[at].tokens
    }

    /// Decides the next step. Empty only if there are no requests. `intact`
    /// is asked where the model may have dropped cells ([`Reuse::Window`]).
    pub fn plan(&mut self, intact: &dyn Fn(SeqId, usize) -> bool) -> Plan {
        let paused = self.grow();
        self.admit(intact);
        self.make_blocks();
        let mut pieces = self.cut();
        self.draft(&mut pieces);
        Plan { paused, pieces }
    }

    /// The plan's pieces are in their cells, and so are the drafts, which are
    /// nobody's until [`Self::judge`].
    pub fn computed(&mut self, plan: &Plan) {
        for piece in plan.batch() {
            self.running_entry(piece.id).computed += piece.len;
            self.prefixes.place(piece.sequence, piece.start + piece.len);
        }
    }

    /// This token was sampled, and the request goes on.
    pub fn extend(&mut self, id: RequestId, token: Token) {
        let entry = self.running_entry(id);
        entry.tokens.push(token);
        debug_assert!(entry.tokens.len() <= entry.limit);
    }

    /// Shifts the context: drops the tokens at `gap`, which are computed and
    /// begin where the fixed ones end.
    pub fn shift(&mut self, id: RequestId, gap: Range<usize>) {
        let entry = self.running_entry(id);
        assert_eq!(gap.start, entry.fixed);
        let (sequence, end) = (entry.running(), entry.computed);
        entry.tokens.drain(gap.clone());
        entry.computed -= gap.len();
        entry.shifted = true;
        self.prefixes.shift(sequence, gap.start, gap.end, end);
    }

    /// The decode of `plan` found no room in the model.
    pub fn no_room(&mut self, plan: &Plan) -> Relief {
        if self.prefixes.clear() {
            return Relief::Evicted;
        }
        self.crowded = true;
        if plan.drafted() > 0 {
            self.ceiling = plan.rows() - plan.drafted();
            return Relief::Smaller;
        }
        if self.running > 1 {
            self.running -= 1;
            let entry = &mut self.line[self.running];
            entry.vanish(&mut self.prefixes);
            return Relief::Paused(entry.id);
        }
        match plan.rows() {
            0 | 1 => Relief::Hopeless(self.line[0].id),
            rows => {
                self.ceiling = rows / 2;
                Relief::Smaller
            }
        }
    }

    /// Requests that never ran yet.
    pub fn waiting(&self) -> usize {
        self.line.len() - self.running - self.paused()
    }

    /// Requests that have a sequence.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests that ran and wait for cells to go on.
    pub fn paused(&self) -> usize {
        let waiting = self.line.range(self.running..);
        waiting.take_while(|entry| entry.started).count()
    }

    /// Cells set aside for running requests.
    pub fn cells_used(&self) -> usize {
        self.prefixes.live()
    }

    /// Cells that are kept for requests to come, and used by none.
    pub fn cells_cached(&self) -> usize {
        self.prefixes.kept()
    }

    /// Cells that were kept and given to others since the last call.
    pub fn evicted(&mut self) -> u64 {
        self.prefixes.evicted()
    }

    /// Sets cells aside for tokens sampled since the last plan, oldest request
    /// first; the youngest pay for it.
    fn grow(&mut self) -> Vec<RequestId> {
        let mut paused = Vec::new();
        let mut at = 0;
        while at < self.running {
            let entry = &self.line[at];
            let sequence = entry.running();
            let missing = entry.tokens.len() - self.prefixes.cells(sequence);
            if self.prefixes.grow(sequence, missing) {
                at += 1;
            } else {
                self.running -= 1;
                let entry = &mut self.line[self.running];
                entry.leave(&mut self.prefixes);
                paused.push(entry.id);
            }
        }
        paused
    }

    /// Lets requests in from the front of the waiting part of the line, while
    /// there is a sequence and room for them and some growth of all. A request
    /// alone always passes: its tokens and headroom are within its limit.
    fn admit(&mut self, intact: &dyn Fn(SeqId, usize) -> bool) {
        while !self.crowded && self.running < self.line.len().min(self.limits.sequences) {
            let growth: usize = self.line.range(..=self.running).map(Entry::headroom).sum();
            let entry = &self.line[self.running];
            let found = self
                .prefixes
                .find(&entry.tokens, entry.fixed, self.live(), intact);
            let have = found.best.map_or(0, |best| best.len);
            let needed = entry.tokens.len() - have + growth;
            if found.promised >= have + WORTHWHILE || needed > self.prefixes.available(found.best) {
                break;
            }
            let entry = &mut self.line[self.running];
            let sequence = self
                .prefixes
                .start(entry.tokens.len(), entry.fixed, found.best);
            entry.sequence = Some(sequence);
            entry.computed = have;
            entry.shifted = false;
            entry.started = true;
            self.running += 1;
        }
    }

    /// Requests in whose cells others may find their beginning.
    fn live(&self) -> impl Iterator<Item = Live<'_>> {
        self.line.range(..self.running).map(|entry| Live {
            sequence: entry.running(),
            tokens: &entry.tokens,
            computed: entry.computed,
        })
    }

    /// Cuts the step's batch: a row for every stream, then prompt pieces,
    /// oldest first, as far as the batch goes.
    fn cut(&self) -> Vec<Piece> {
        let running = || self.line.range(..self.running);
        let streams = running().filter(|entry| entry.pending() == 1).count();
        let mut room = match streams {
            0 => self.ceiling,
            _ => (self.ceiling - streams).min(self.limits.prompt_beside_streams),
        };
        let mut pieces = Vec::with_capacity(self.running);
        for entry in running() {
            let pending = entry.pending();
            let len = if pending == 1 { 1 } else { pending.min(room) };
            if pending > 1 {
                room -= len;
            }
            if len > 0 {
                pieces.push(Piece {
                    id: entry.id,
                    sequence: entry.running(),
                    start: entry.computed,
                    len,
                    samples: len == pending,
                    draft: Draft::default(),
                });
            }
        }
        pieces
    }

    /// Takes a request out of the line.
    fn take(&mut self, id: RequestId) -> Option<Entry> {
        let entry = self.line.remove(self.find(id)?)?;
        if entry.sequence.is_some() {
            self.running -= 1;
            self.crowded = false;
            self.ceiling = self.limits.batch;
        }
        Some(entry)
    }

    fn find(&self, id: RequestId) -> Option<usize> {
        self.line.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn running_entry(&mut self, id: RequestId) -> &mut Entry {
        let at = self.find(id).expect("a request of the plan is in the line");
        &mut self.line[at]
    }
}
