//! A reply in the making: everything about one request but its place in line.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::model::{Row, Token, Vocab};
use crate::request::{FinishReason, Request, Usage};
use crate::sampler::{Sampler, Scratch};
use crate::stop::StopMatcher;
use crate::text::TextDecoder;

/// Tokens that a context shift always leaves room for, however many are kept.
const MIN_SHIFTED: usize = 4;

/// What follows from a token.
#[derive(Debug)]
pub(super) enum Next {
    /// Compute it and sample the next one.
    Continue,
    /// The same, after dropping the computed tokens at these positions.
    Shift { gap: Range<usize> },
    /// There is no next one.
    End(FinishReason),
}

pub(super) struct Reply {
    /// Until the scheduler has it.
    prompt: Vec<Token>,
    /// Tokens in the context: the prompt and what was generated, without what
    /// was shifted out.
    length: usize,
    /// Tokens the context may hold.
    context: usize,
    /// Tokens at the front that a context shift keeps; `None`: never shift.
    keep: Option<usize>,
    max_tokens: Option<u32>,
    deadline: Option<Instant>,
    sampler: Sampler,
    decoder: TextDecoder,
    stop: StopMatcher,
    /// Bytes of the latest token; kept to be used again.
    piece: Vec<u8>,
    prompt_tokens: u32,
    cached_tokens: u32,
    generated: u32,
    pub pauses: u32,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    latest_token: Option<Instant>,
}

impl Reply {
    /// `request.prompt` has fewer than `context` tokens, and at least one.
    pub fn new(request: Request, vocab: &dyn Vocab, context: usize) -> Self {
        let now = Instant::now();
        let banned = if request.ignore_eos {
            vocab.end_of_generation()
        } else {
            &[]
        };
        let mut sampler = Sampler::new(&request.sampling, vocab.newline(), banned.into());
        for &token in &request.prompt {
            sampler.accept(token);
        }
        let prompt_tokens = request.prompt.len();
        let keep = (request.n_keep as usize)
            .min(prompt_tokens)
            .min(context.saturating_sub(MIN_SHIFTED));
        Self {
            prompt: request.prompt,
            length: prompt_tokens,
            context,
            keep: (request.n_keep > 0).then_some(keep.max(1)),
            max_tokens: request.max_tokens,
            deadline: request.max_time.and_then(|time| now.checked_add(time)),
            sampler,
            decoder: TextDecoder::new(),
            stop: StopMatcher::new(&request.stop),
            piece: Vec::new(),
            prompt_tokens: prompt_tokens as u32,
            cached_tokens: 0,
            generated: 0,
            pauses: 0,
            submitted: now,
            started: None,
            first_token: None,
            latest_token: None,
        }
    }

    /// The tokens of the prompt, once.
    pub fn take_prompt(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.prompt)
    }

    /// Tokens at the front that a context shift leaves where they are; `None`:
    /// there will be no shift.
    pub fn keep(&self) -> Option<usize> {
        self.keep
    }

    /// Tokens it can come to have in the context at most.
    pub fn limit(&self) -> usize {
        let generated = self.max_tokens.map_or(self.context, |max| max as usize);
        self.context.min(self.length.saturating_add(generated))
    }

    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// A piece of it is about to be computed, after `cached` tokens. Returns
    /// whether it is the first one.
    pub fn start(&mut self, now: Instant, cached: usize) -> bool {
        let is_first = self.started.is_none();
        if is_first {
            self.started = Some(now);
            self.cached_tokens = cached as u32;
        }
        is_first
    }

    /// Samples from the first of `logits`, and on from the next as long as the
    /// token is that of the next row in `drafted`, behind which those are.
    pub fn sample(
        &mut self,
        logits: &[&[f32]],
        drafted: &[Row],
        scratch: &mut Scratch,
    ) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (at, logits) in logits.iter().enumerate() {
            let token = self.sampler.sample(logits, scratch);
            self.sampler.accept(token);
            tokens.push(token);
            if drafted.get(at).is_none_or(|row| row.token != token) {
                break;
            }
        }
        tokens
    }

    /// Whether a token was sampled.
    pub fn has_begun(&self) -> bool {
        self.first_token.is_some()
    }

    /// A token was sampled at this time. Returns whether it is the first, and
    /// the time since the one before or since the submission.
    pub fn tick(&mut self, now: Instant) -> (bool, Duration) {
        let is_first = !self.has_begun();
        self.first_token.get_or_insert(now);
        let before = self.latest_token.replace(now).unwrap_or(self.submitted);
        (is_first, now.saturating_duration_since(before))
    }

    /// Takes the sampled token in; appends what the client may see to `out`.
    pub fn push(&mut self, token: Token, vocab: &dyn Vocab, out: &mut String) -> Next {
        if vocab.is_end_of_generation(token) {
            return Next::End(self.finish(FinishReason::Stop, out));
        }
        self.length += 1;
        self.generated += 1;
        self.piece.clear();
        vocab.piece(token, &mut self.piece);
        let mut text = String::new();
        self.decoder.push(&self.piece, &mut text);
        if self.stop.push(&text, out) {
            return Next::End(FinishReason::StopRegex);
        }
        if self.max_tokens.is_some_and(|max| self.generated >= max) {
            return Next::End(self.finish(FinishReason::Length, out));
        }
        if self.length < self.context {
            return Next::Continue;
        }
        match self.shift() {
            Some(next) => next,
            None => Next::End(self.finish(FinishReason::Length, out)),
        }
    }

    /// Ends the text: what was held back is appended to `out`, up to a match
    /// of the stop rules, which then is the reason.
    pub fn finish(&mut self, reason: FinishReason, out: &mut String) -> FinishReason {
        let mut text = String::new();
        self.decoder.finish(&mut text);
        if self.stop.push(&text, out) {
            return FinishReason::StopRegex;
        }
        self.stop.finish(out);
        reason
    }

    pub fn usage(&self) -> Usage {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.generated,
            queue_time: started - self.submitted,
            prefill_time: first_token - started,
            decode_time: if self.first_token.is_some() {
                now - first_token
            } else {
                Duration::ZERO
            },
            pauses: self.pauses,
        }
    }

    /// Drops half of the tokens behind those kept. The last token is not
    /// computed yet and stays.
    fn shift(&mut self) -> Option<Next> {
        let keep = self.keep?;
        let dropped = (self.length - keep) / 2;
        if dropped == 0 {
            return None;
        }
        self.length -= dropped;
        Some(Next::Shift {
            gap: keep..keep + dropped,
        })
    }
}
