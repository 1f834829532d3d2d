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

use std::collections::VecDeque;

use crate::model::SeqId;
use crate::request::RequestId;

/// What there is to hand out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that can run at once.
    pub sequences: usize,
    /// Cells of the pool; at least the most that one request can need.
    pub cells: usize,
    /// Rows of one decode; at least `sequences`.
    pub batch: usize,
    /// Prompt tokens a decode takes at most while replies are streaming, so
    /// that a long prompt slows them down but does not freeze them. At least 1.
    pub prompt_beside_streams: usize,
}

/// Cells kept free for each running request when another one is let in. With
/// none, a pool that is nearly full would pause and resume at every step, each
/// time computing a whole prompt again.
const HEADROOM: usize = 32;

/// The next step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Requests that must give their cells back before the decode.
    pub paused: Vec<(RequestId, SeqId)>,
    /// What to decode: at most one piece a request, in order of arrival.
    pub pieces: Vec<Piece>,
}

impl Plan {
    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// The requests for which a token is to be sampled, each with the row of
    /// the batch whose logits it comes from.
    pub fn samples(&self) -> impl Iterator<Item = (RequestId, usize)> {
        let ends = self.pieces.iter().scan(0, |end, piece| {
            *end += piece.len;
            Some((piece, *end))
        });
        ends.filter(|(piece, _)| piece.samples)
            .map(|(piece, end)| (piece.id, end - 1))
    }
}

/// Tokens of one request to compute in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Whose tokens.
    pub id: RequestId,
    /// Where they go.
    pub sequence: SeqId,
    /// Index of the first token, which is also its position.
    pub start: usize,
    /// Tokens; at least 1.
    pub len: usize,
    /// Whether the piece ends with the last known token, so that the next one
    /// is to be sampled.
    pub samples: bool,
}

/// What to do about a decode that found no room, although by the count of
/// cells there was enough.
#[derive(Debug, PartialEq, Eq)]
pub enum Relief {
    /// This request was paused: free its sequence and plan again.
    Paused(RequestId, SeqId),
    /// The next plan is smaller.
    Smaller,
    /// A single row of the only running request does not fit.
    Hopeless(RequestId),
}

#[derive(Debug)]
struct Entry {
    id: RequestId,
    /// Tokens known: the prompt and the reply so far.
    tokens: usize,
    /// Tokens it can come to have at most.
    limit: usize,
    /// Tokens that are in cells.
    computed: usize,
    /// Cells set aside: all of `tokens` at the start, then one at a time.
    cells: usize,
    /// Set while it runs.
    sequence: Option<SeqId>,
    /// Whether it ever ran; if it waits, it is paused.
    started: bool,
}

impl Entry {
    fn pending(&self) -> usize {
        self.tokens - self.computed
    }

    fn headroom(&self) -> usize {
        HEADROOM.min(self.limit - self.tokens)
    }
}

/// The line of requests and the pool they share.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    /// Sorted by id, which is the order of arrival.
    line: VecDeque<Entry>,
    /// The first so many of `line` run.
    running: usize,
    /// Cells not set aside for anyone.
    free: usize,
    /// Sequences that nobody has.
    sequences: Vec<SeqId>,
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
        Self {
            limits,
            line: VecDeque::new(),
            running: 0,
            free: limits.cells,
            sequences: (0..limits.sequences as SeqId).rev().collect(),
            crowded: false,
            ceiling: limits.batch,
        }
    }

    /// Puts a request at the end of the line. Ids must come in ascending
    /// order; `1 <= tokens <= limit <= Limits::cells`.
    pub fn submit(&mut self, id: RequestId, tokens: usize, limit: usize) {
        assert!(0 < tokens && tokens <= limit && limit <= self.limits.cells);
        assert!(self.line.back().is_none_or(|last| last.id < id));
        self.line.push_back(Entry {
            id,
            tokens,
            limit,
            computed: 0,
            cells: 0,
            sequence: None,
            started: false,
        });
    }

    /// Takes a request out, wherever it stands. If it ran, its cells are the
    /// pool's again: returns the sequence that must be freed.
    pub fn remove(&mut self, id: RequestId) -> Option<SeqId> {
        let at = self.find(id)?;
        let entry = self.line.remove(at)?;
        let sequence = entry.sequence?;
        self.running -= 1;
        self.free += entry.cells;
        self.sequences.push(sequence);
        self.crowded = false;
        self.ceiling = self.limits.batch;
        Some(sequence)
    }

    /// Decides the next step. Empty only if there are no requests.
    pub fn plan(&mut self) -> Plan {
        let paused = self.grow();
        self.admit();
        let pieces = self.cut();
        Plan { paused, pieces }
    }

    /// The plan's pieces are in their cells.
    pub fn computed(&mut self, plan: &Plan) {
        for piece in &plan.pieces {
            self.running_entry(piece.id).computed += piece.len;
        }
    }

    /// One token was sampled, and the request goes on.
    pub fn extend(&mut self, id: RequestId) {
        let entry = self.running_entry(id);
        entry.tokens += 1;
        debug_assert!(entry.tokens <= entry.limit);
    }

    /// A context shift dropped `count` computed tokens; returns the sequence
    /// in which the model must drop them too.
    pub fn shorten(&mut self, id: RequestId, count: usize) -> SeqId {
        let entry = self.running_entry(id);
        entry.tokens -= count;
        entry.computed -= count;
        entry.cells -= count;
        let sequence = entry.sequence.expect("a running request has a sequence");
        self.free += count;
        sequence
    }

    /// The decode of `plan` found no room in the model.
    pub fn no_room(&mut self, plan: &Plan) -> Relief {
        self.crowded = true;
        if self.running > 1 {
            let (id, sequence) = self.pause_youngest();
            return Relief::Paused(id, sequence);
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
        self.limits.cells - self.free
    }

    /// Sets cells aside for tokens sampled since the last plan, oldest request
    /// first; the youngest pay for it.
    fn grow(&mut self) -> Vec<(RequestId, SeqId)> {
        let mut paused = Vec::new();
        let mut at = 0;
        while at < self.running {
            let entry = &mut self.line[at];
            let missing = entry.tokens - entry.cells;
            if missing <= self.free {
                entry.cells += missing;
                self.free -= missing;
                at += 1;
            } else {
                paused.push(self.pause_youngest());
            }
        }
        paused
    }

    /// Lets requests in from the front of the waiting part of the line, while
    /// there is a sequence and room for them and some growth of all. A request
    /// alone always passes: its tokens and headroom are within its limit.
    fn admit(&mut self) {
        while !self.crowded && self.running < self.line.len() {
            let growth: usize = self.line.range(..=self.running).map(Entry::headroom).sum();
            let entry = &mut self.line[self.running];
            if entry.tokens + growth > self.free {
                break;
            }
            let Some(sequence) = self.sequences.pop() else {
                break;
            };
            entry.sequence = Some(sequence);
            entry.cells = entry.tokens;
            entry.started = true;
            self.free -= entry.cells;
            self.running += 1;
        }
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
                    sequence: entry.sequence.expect("a running request has a sequence"),
                    start: entry.computed,
                    len,
                    samples: len == pending,
                });
            }
        }
        pieces
    }

    /// Moves the border between running and waiting by one.
    fn pause_youngest(&mut self) -> (RequestId, SeqId) {
        self.running -= 1;
        let entry = &mut self.line[self.running];
        let sequence = entry
            .sequence
            .take()
            .expect("a running request has a sequence");
        self.free += entry.cells;
        entry.cells = 0;
        entry.computed = 0;
        self.sequences.push(sequence);
        (entry.id, sequence)
    }

    fn find(&self, id: RequestId) -> Option<usize> {
        self.line.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn running_entry(&mut self, id: RequestId) -> &mut Entry {
        let at = self.find(id).expect("a request of the plan is in the line");
        &mut self.line[at]
    }
}
