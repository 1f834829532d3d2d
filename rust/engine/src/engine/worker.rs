//! The engine thread's work: one [`Worker::step`] after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::inbox::Mail;
use super::reply::{Next, Reply};
use super::share::share;
use super::{Measures, Shared, Stats, lock};
use crate::Error;
use crate::model::{DecodeError, Model, Row, Token, Vocab};
use crate::prefix::Change;
use crate::request::{Event, EventKind, FinishReason, RequestId};
use crate::sampler::Scratch;
use crate::scheduler::{Limits, Plan, Relief, Scheduler};

/// Logits that a thread must have to look at for its start to pay: a tenth of
/// a millisecond of work or so.
const LOGITS_A_THREAD: usize = 1 << 19;

/// What the engine thread knows of its requests. It outlives the model's
/// context: after a panic it is what remains.
pub(super) struct Worker {
    shared: Arc<Shared>,
    vocab: Arc<dyn Vocab>,
    limits: Limits,
    scheduler: Scheduler,
    /// The replies of all requests in the scheduler's line.
    replies: BTreeMap<RequestId, Reply>,
    /// Events not yet published.
    events: Vec<Event>,
    /// The batch; kept to be used again.
    rows: Vec<Row>,
    /// One for each thread that samples.
    scratches: Vec<Scratch>,
    stats: Stats,
    measures: Measures,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, vocab: Arc<dyn Vocab>, limits: Limits) -> Self {
        Self {
            shared,
            vocab,
            limits,
            scheduler: Scheduler::new(limits),
            replies: BTreeMap::new(),
            events: Vec::new(),
            rows: Vec::new(),
            scratches: Vec::new(),
            stats: Stats {
                cells_total: limits.cells,
                ..Stats::default()
            },
            measures: Measures::default(),
        }
    }

    /// Steps until the inbox is closed; without requests, waits for one.
    pub fn serve(&mut self, model: &mut dyn Model) {
        while let Some(mail) = self.shared.inbox.take(self.replies.is_empty()) {
            self.step(model, mail);
        }
    }

    /// One round: who came and left, what is next, compute, sample, tell.
    fn step(&mut self, model: &mut dyn Model, mail: Mail) {
        self.accept(model, mail);
        self.end_overdue(model);
        self.deliver();

        let plan = self.schedule(model);
        if self.decode(model, &plan) {
            let tokens = self.sample(model, &plan);
            self.update(model, &plan, tokens);
        }
        self.deliver();
    }

    /// Takes submissions in, and cancelled requests out, wherever they stand.
    fn accept(&mut self, model: &mut dyn Model, mail: Mail) {
        for (id, mut reply) in mail.requests {
            let (limit, keep) = (reply.limit(), reply.keep());
            self.scheduler.submit(id, reply.take_prompt(), limit, keep);
            self.replies.insert(id, reply);
        }
        for id in mail.cancels {
            self.end(model, id, FinishReason::Cancelled);
        }
    }

    fn end_overdue(&mut self, model: &mut dyn Model) {
        let now = Instant::now();
        let overdue: Vec<RequestId> = self
            .replies
            .iter()
            .filter(|(_, reply)| reply.is_overdue(now))
            .map(|(&id, _)| id)
            .collect();
        for id in overdue {
            let mut text = String::new();
            let reason = self.reply(id).finish(FinishReason::Length, &mut text);
            self.say(id, text);
            self.end(model, id, reason);
        }
    }

    fn schedule(&mut self, model: &mut dyn Model) -> Plan {
        self.scheduler.draft_on(model.drafts());
        let plan = self
            .scheduler
            .plan(&|sequence, len| model.intact(sequence, len as i32));
        self.rearrange(model);
        for &id in &plan.paused {
            self.pause(id);
        }
        plan
    }

    /// Computes the plan; false if there is nothing to sample from.
    fn decode(&mut self, model: &mut dyn Model, plan: &Plan) -> bool {
        self.fill_batch(plan);
        if self.rows.is_empty() {
            return false;
        }
        let begun = Instant::now();
        match model.decode(&self.rows) {
            Ok(()) => {
                self.measures.decoded(
                    plan.pieces.len(),
                    self.rows.len(),
                    self.prompt_rows(plan),
                    begun.elapsed(),
                );
                self.scheduler.computed(plan);
                self.stats.decodes += 1;
                self.stats.computed_tokens += (plan.rows() - plan.drafted()) as u64;
                return true;
            }
            Err(DecodeError::NoRoom) => {
                let relief = self.scheduler.no_room(plan);
                self.rearrange(model);
                match relief {
                    Relief::Evicted | Relief::Smaller => {}
                    Relief::Paused(id) => self.pause(id),
                    Relief::Hopeless(id) => {
                        let error = Error::Decode("no room for one more token".into());
                        self.end(model, id, FinishReason::Error(error));
                    }
                }
            }
            Err(DecodeError::Failed(reason)) => {
                for piece in &plan.pieces {
                    let error = Error::Decode(reason.clone());
                    self.end(model, piece.id, FinishReason::Error(error));
                }
            }
        }
        false
    }

    fn fill_batch(&mut self, plan: &Plan) {
        let now = Instant::now();
        self.rows.clear();
        for piece in plan.batch() {
            let reply = self
                .replies
                .get_mut(&piece.id)
                .expect("every request has a reply");
            if reply.start(now, piece.start) && piece.start > 0 {
                self.stats.prefix_hits += 1;
                self.stats.prefix_tokens += piece.start as u64;
            }
            let tokens = self.scheduler.tokens(piece.id);
            let end = piece.start + piece.len;
            let known = tokens[piece.start..end].iter().copied();
            let rows = known.chain(piece.draft.tokens(tokens));
            self.rows
                .extend((piece.start..).zip(rows).map(|(position, token)| Row {
                    token,
                    position: position as i32,
                    sequence: piece.sequence,
                    logits: piece.samples && position + 1 >= end,
                }));
        }
    }

    /// Rows that are not the latest token of a reply.
    fn prompt_rows(&self, plan: &Plan) -> usize {
        let is_prompt = |id| self.replies.get(id).is_none_or(|reply| !reply.has_begun());
        plan.pieces
            .iter()
            .filter(|piece| piece.len > 1 || is_prompt(&piece.id))
            .map(|piece| piece.len)
            .sum()
    }

    /// Samples for every reply that has logits: a token, and one more for each
    /// that is as it was drafted. The draws share nothing but scratch memory,
    /// so that it does not matter which thread does which.
    fn sample(&mut self, model: &dyn Model, plan: &Plan) -> Vec<Vec<Token>> {
        // Both are in order of arrival.
        let mut samples = plan.samples().peekable();
        let mut logits = 0;
        let draws = self.replies.iter_mut().filter_map(|(&id, reply)| {
            let (_, rows) = samples.next_if(|(piece, _)| piece.id == id)?;
            let drafted = &self.rows[rows.start + 1..rows.end];
            let rows: Vec<&[f32]> = rows.map(|row| model.logits(row)).collect();
            logits += rows.len() * self.vocab.n_tokens();
            Some((reply, rows, drafted, Vec::new()))
        });
        let mut draws: Vec<_> = draws.collect();
        let threads =
            (logits / LOGITS_A_THREAD).clamp(1, draws.len().clamp(1, model.info().threads));
        self.scratches.resize_with(threads, Scratch::default);
        share(
            &mut draws,
            &mut self.scratches,
            |(reply, rows, drafted, tokens), scratch| {
                *tokens = reply.sample(rows, drafted, scratch);
            },
        );
        draws.into_iter().map(|(.., tokens)| tokens).collect()
    }

    /// Turns the tokens sampled after each piece into text, and decides what
    /// follows from them.
    fn update(&mut self, model: &mut dyn Model, plan: &Plan, tokens: Vec<Vec<Token>>) {
        let vocab = Arc::clone(&self.vocab);
        let now = Instant::now();
        for ((piece, _), tokens) in plan.samples().zip(tokens) {
            let id = piece.id;
            let mut text = String::new();
            // All but the last are as they were drafted.
            for (right, &token) in tokens.iter().enumerate() {
                let (is_first, time) = self.reply(id).tick(now);
                self.measures.sampled(is_first, time);
                let next = self.reply(id).push(token, &*vocab, &mut text);
                self.stats.sampled_tokens += 1;
                if matches!(next, Next::Continue) && right + 1 < tokens.len() {
                    self.scheduler.confirm(id, token);
                    continue;
                }
                self.stats.drafted_tokens += piece.draft.len as u64;
                self.stats.accepted_tokens += right as u64;
                self.stats.computed_tokens += right as u64;
                self.scheduler.judge(piece, right);
                self.say(id, std::mem::take(&mut text));
                self.follow(model, id, token, next);
                break;
            }
        }
    }

    /// Does what follows from the latest token.
    fn follow(&mut self, model: &mut dyn Model, id: RequestId, token: Token, next: Next) {
        match next {
            Next::Continue => self.scheduler.extend(id, token),
            Next::Shift { gap } => {
                self.scheduler.extend(id, token);
                self.scheduler.shift(id, gap);
                self.stats.shifts += 1;
            }
            Next::End(reason) => self.end(model, id, reason),
        }
        self.rearrange(model);
    }

    /// Does to the cells what the scheduler decided.
    fn rearrange(&mut self, model: &mut dyn Model) {
        for change in self.scheduler.changes() {
            match change {
                Change::Remove { sequence, from, to } => {
                    let to = to.map_or(-1, |to| to as i32);
                    model.remove(sequence, from as i32, to);
                }
                Change::Copy { from, to, len } => model.copy(from, to, 0, len as i32),
                Change::Shift {
                    sequence,
                    from,
                    to,
                    by,
                } => model.shift(sequence, from as i32, to as i32, -(by as i32)),
            }
        }
    }

    fn pause(&mut self, id: RequestId) {
        self.reply(id).pauses += 1;
        self.stats.pauses += 1;
    }

    /// Ends a request, if it has not ended yet. What it computed stays for
    /// others, unless something went wrong with it.
    fn end(&mut self, model: &mut dyn Model, id: RequestId, reason: FinishReason) {
        if self.replies.contains_key(&id) {
            match reason {
                FinishReason::Error(_) => self.scheduler.discard(id),
                _ => self.scheduler.remove(id),
            }
            self.rearrange(model);
            self.bow_out(id, reason);
        }
    }

    /// Ends all requests: their context is gone, another one will be made.
    pub fn start_over(&mut self, reason: &FinishReason) {
        self.stats.rebuilds += 1;
        self.end_all(reason);
    }

    /// Ends all requests, also those not yet taken in: nothing will be made.
    pub fn shut_down(&mut self, reason: &FinishReason) {
        self.replies.extend(self.shared.inbox.take_rest().requests);
        self.end_all(reason);
    }

    /// Decodes that succeeded so far.
    pub fn decodes(&self) -> u64 {
        self.stats.decodes
    }

    /// There is no model to free anything in, and after a panic the scheduler
    /// cannot be trusted.
    fn end_all(&mut self, reason: &FinishReason) {
        self.scheduler = Scheduler::new(self.limits);
        while let Some((&id, _)) = self.replies.first_key_value() {
            self.bow_out(id, reason.clone());
        }
        self.deliver();
    }

    fn bow_out(&mut self, id: RequestId, reason: FinishReason) {
        let Some(reply) = self.replies.remove(&id) else {
            return;
        };
        let usage = reply.usage();
        let counter = match reason {
            FinishReason::Cancelled => &mut self.stats.cancelled,
            FinishReason::Error(_) => &mut self.stats.failed,
            FinishReason::Stop | FinishReason::Length | FinishReason::StopRegex => {
                &mut self.stats.completed
            }
        };
        *counter += 1;
        self.events.push(Event {
            id,
            kind: EventKind::End { reason, usage },
        });
    }

    fn say(&mut self, id: RequestId, text: String) {
        if !text.is_empty() {
            self.events.push(Event {
                id,
                kind: EventKind::Delta(text),
            });
        }
    }

    /// Publishes the state and all events so far. Whoever reads an `End` finds
    /// the request's cells free and its place in the queue empty.
    fn deliver(&mut self) {
        self.stats.waiting = self.scheduler.waiting();
        self.stats.running = self.scheduler.running();
        self.stats.paused = self.scheduler.paused();
        self.stats.cells_used = self.scheduler.cells_used();
        self.stats.cells_cached = self.scheduler.cells_cached();
        self.stats.cells_evicted += self.scheduler.evicted();
        *lock(&self.shared.stats) = self.stats;
        *lock(&self.shared.measures) = self.measures;

        let ends = self
            .events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::End { .. }));
        self.shared.inbox.ended(ends.count());
        for id in self.shared.outbox.publish(&mut self.events) {
            self.shared.inbox.cancel(id);
        }
    }

    fn reply(&mut self, id: RequestId) -> &mut Reply {
        self.replies
            .get_mut(&id)
            .expect("every request has a reply")
    }
}
