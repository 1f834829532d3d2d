//! The search for all rules at once, over text that comes piece by piece.
//!
//! The rules are compiled into one NFA, and [`Search`] carries over from piece
//! to piece the states in which it is, each with the place where that match
//! began (Thompson's simulation, with places carried along as in Pike's `sam`).
//! Threads come in the order of their places and the earliest wins a state, so
//! there are at most as many as states, and the first tells from where on a
//! match is possible.
//!
//! Assertions look at the character after a place, which may not have come
//! yet. A thread therefore waits in front of its assertions: they are decided
//! when the next character is known, and once tentatively, for the end of the
//! text, after each piece.
//!
//! A lazy DFA would be faster by a constant, but it knows neither where a
//! match began nor Unicode word boundaries, and its cache must be bounded.

use std::mem;
use std::sync::Arc;

use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::look::{Look, LookMatcher};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::MAX_PROGRAM_SIZE;

/// What all replies with the same rules share.
pub(super) struct Program {
    nfa: NFA,
    /// The bytes with which a match can begin; all if it can be empty.
    first: [bool; 256],
    /// Whether some rule can match without taking a byte.
    matches_empty: bool,
}

impl Program {
    /// An error is the reason, on one line.
    pub(super) fn new(rules: &[Hir]) -> Result<Self, String> {
        let config = thompson::Config::new()
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(MAX_PROGRAM_SIZE));
        let nfa = thompson::Compiler::new()
            .configure(config)
            .build_many_from_hir(rules)
            .map_err(|error| match error.size_limit() {
                Some(limit) => format!("compiled, the stop rules take more than {limit} bytes"),
                None => error.to_string(),
            })?;
        let mut program = Self {
            nfa,
            first: [false; 256],
            matches_empty: false,
        };
        program.look_at_starts();
        Ok(program)
    }

    /// How many rules it has.
    pub(super) fn rule_count(&self) -> usize {
        self.nfa.pattern_len()
    }

    /// Sets `first` and `matches_empty`, taking every assertion for true.
    fn look_at_starts(&mut self) {
        let mut visited = vec![false; self.nfa.states().len()];
        let mut stack = vec![self.nfa.start_anchored()];
        while let Some(id) = stack.pop() {
            if mem::replace(&mut visited[id], true) {
                continue;
            }
            match self.nfa.state(id) {
                State::Look { next, .. } => stack.push(*next),
                State::Match { .. } => self.matches_empty = true,
                state => {
                    epsilon_targets(state, &mut stack);
                    for byte in 0..=255 {
                        self.first[usize::from(byte)] |= target(state, byte).is_some();
                    }
                }
            }
        }
        if self.matches_empty {
            self.first = [true; 256];
        }
    }
}

/// Where the state leads on this byte.
fn target(state: &State, byte: u8) -> Option<StateID> {
    match state {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(transitions) => transitions.matches_byte(byte),
        State::Dense(transitions) => transitions.matches_byte(byte),
        _ => None,
    }
}

/// Adds the states to which the state leads unconditionally, without a byte.
fn epsilon_targets(state: &State, to: &mut Vec<StateID>) {
    match state {
        State::Union { alternates } => to.extend_from_slice(alternates),
        State::BinaryUnion { alt1, alt2 } => to.extend([*alt1, *alt2]),
        State::Capture { next, .. } => to.push(*next),
        _ => {}
    }
}

/// A match that may be on its way.
#[derive(Clone, Copy)]
struct Thread {
    state: StateID,
    /// Where the match begins, in bytes of the reply.
    start: usize,
}

/// The simulation of the NFA on one reply.
pub(super) struct Search {
    program: Arc<Program>,
    /// In the order of their starts.
    threads: Vec<Thread>,
    /// The threads after the byte in hand; kept to keep its memory.
    next: Vec<Thread>,
    stack: Vec<StateID>,
    /// For each state the last step in which it was visited.
    visited: Vec<u64>,
    step: u64,
    /// The last character of the reply so far.
    last: Option<char>,
    /// Bytes of the reply so far.
    end: usize,
}

impl Search {
    /// At the start of a reply.
    pub(super) fn new(program: Arc<Program>) -> Self {
        Self {
            threads: Vec::new(),
            next: Vec::new(),
            stack: Vec::new(),
            visited: vec![0; program.nfa.states().len()],
            step: 0,
            last: None,
            end: 0,
            program,
        }
    }

    /// Takes more text. Where the leftmost match in the reply so far starts,
    /// if there is one.
    pub(super) fn extend(&mut self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        let mut found = None;
        let mut at = 0;
        while at < bytes.len() {
            if self.threads.is_empty() {
                if found.is_some() {
                    break;
                }
                let first = &self.program.first;
                match bytes[at..]
                    .iter()
                    .position(|&byte| first[usize::from(byte)])
                {
                    Some(skipped) => at += skipped,
                    None => break,
                }
            }
            // Only an earlier start is of interest once a match is found.
            if found.is_none() && self.program.first[usize::from(bytes[at])] {
                self.begin(self.end + at);
            }
            let (before, after) = text.split_at(at);
            let here = after.chars().next();
            let place = Place::between(before.chars().next_back().or(self.last), here);
            for &byte in &bytes[at..at + here.map_or(0, char::len_utf8)] {
                found = self.advance(&place, Some(byte)).or(found);
                mem::swap(&mut self.threads, &mut self.next);
                at += 1;
            }
        }
        self.end += text.len();
        self.last = text.chars().next_back();
        // Nothing advances over the end: the threads stay where they are, as
        // more text may come. (A match begun here is begun again by it, which
        // changes nothing.)
        if found.is_none() && self.program.matches_empty {
            self.begin(self.end);
        }
        let end = Place::between(self.last, None);
        self.advance(&end, None).or(found)
    }

    /// Bytes of the reply so far.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Where the earliest match starts that more text may complete, or the
    /// end of the reply so far.
    pub(super) fn earliest(&self) -> usize {
        self.threads.first().map_or(self.end, |oldest| oldest.start)
    }

    fn begin(&mut self, start: usize) {
        self.threads.push(Thread {
            state: self.program.nfa.start_anchored(),
            start,
        });
    }

    /// Follows the threads over the assertions at `place` and then over
    /// `byte`, into `next`. The start of the earliest that has matched at
    /// `place`; later threads are then not followed.
    fn advance(&mut self, place: &Place, byte: Option<u8>) -> Option<usize> {
        let nfa = &self.program.nfa;
        self.step += 1;
        self.next.clear();
        for &Thread { state, start } in &self.threads {
            self.stack.push(state);
            while let Some(id) = self.stack.pop() {
                if mem::replace(&mut self.visited[id], self.step) == self.step {
                    continue;
                }
                match nfa.state(id) {
                    State::Match { .. } => {
                        self.stack.clear();
                        return Some(start);
                    }
                    State::Look { look, next } => {
                        if place.satisfies(*look) {
                            self.stack.push(*next);
                        }
                    }
                    state => match byte.and_then(|byte| target(state, byte)) {
                        Some(state) => self.next.push(Thread { state, start }),
                        None => epsilon_targets(state, &mut self.stack),
                    },
                }
            }
        }
        None
    }
}

/// A place in the reply as assertions see it: the characters around it.
struct Place {
    around: [u8; 8],
    at: usize,
    len: usize,
}

impl Place {
    /// `None` before: the start of the reply; after: its end.
    fn between(before: Option<char>, after: Option<char>) -> Self {
        let mut around = [0; 8];
        let at = before.map_or(0, |c| c.encode_utf8(&mut around).len());
        let len = at + after.map_or(0, |c| c.encode_utf8(&mut around[at..]).len());
        Self { around, at, len }
    }

    fn satisfies(&self, look: Look) -> bool {
        LookMatcher::new().matches(look, &self.around[..self.len], self.at)
    }
}
