//! Stop rules over the growing reply.
//!
//! After each token the rules mean what a search over the whole reply so far
//! would mean: `foo$` matches as soon as the text ends in "foo", `^` only at
//! the start of the reply. Yet a token costs time only for its own bytes: see
//! `search.rs`. What may still become part of a match is held back.

mod search;
mod syntax;

use std::fmt;
use std::mem;
use std::sync::Arc;

use regex_syntax::hir::Hir;

use self::search::{Program, Search};
use crate::Error;

/// Bytes of a reply that are held back at most because they may become part
/// of a match.
///
/// When a possible match grows longer, its oldest bytes are sent, and if it
/// then completes, the reply ends with what was sent. `.*foo` holds a whole
/// line, `(?s).*foo` all that it may.
pub const HOLD_BACK: usize = 4096;

/// Rules that one reply can have at most.
pub const MAX_RULES: usize = 64;

/// Bytes that the text of one rule can have at most. It is less than
/// [`HOLD_BACK`], so no part of a literal stop is ever sent.
pub const MAX_RULE_LEN: usize = 1024;

/// Bytes that the rules of one reply can take together, compiled. It is enough
/// for 50 Unicode classes such as `\w` or 2000 times `.`, and bounds what a
/// byte of the reply can cost: at most a visit of every state.
pub const MAX_PROGRAM_SIZE: usize = 1024 * 1024;

/// Compiled stop rules: immutable, shared, cheap to clone.
#[derive(Clone, Default)]
pub struct StopRules(Option<Arc<Program>>);

impl StopRules {
    /// No rules: everything is sent at once.
    pub fn none() -> Self {
        Self(None)
    }

    /// Compiles regular expressions and literal strings. The order doesn't
    /// matter.
    ///
    /// The syntax is RE2's as Go's `regexp` has it, but `\d`, `\s`, `\w` and
    /// `\b` know all of Unicode.
    ///
    /// # Errors
    /// [`Error::StopPattern`] with the parser's message for a malformed
    /// pattern, and for an empty literal or when a limit is passed:
    /// [`MAX_RULES`], [`MAX_RULE_LEN`], [`MAX_PROGRAM_SIZE`].
    pub fn compile(patterns: &[String], literals: &[String]) -> Result<Self, Error> {
        let rules: Vec<&String> = patterns.iter().chain(literals).collect();
        if rules.is_empty() {
            return Ok(Self::none());
        }
        if let Some(rule) = rules.get(MAX_RULES) {
            return Err(refusal(
                rule,
                format!("there are more than {MAX_RULES} stop rules"),
            ));
        }
        if let Some(rule) = rules.iter().find(|rule| rule.len() > MAX_RULE_LEN) {
            return Err(refusal(
                rule,
                format!("it is longer than {MAX_RULE_LEN} bytes"),
            ));
        }
        let mut parsed = Vec::with_capacity(rules.len());
        for pattern in patterns {
            parsed.push(syntax::parse(pattern).map_err(|reason| refusal(pattern, reason))?);
        }
        for literal in literals {
            if literal.is_empty() {
                return Err(refusal(
                    literal,
                    "a literal stop cannot be empty".to_owned(),
                ));
            }
            parsed.push(Hir::literal(literal.as_bytes()));
        }
        match Program::new(&parsed) {
            Ok(program) => Ok(Self(Some(Arc::new(program)))),
            Err(reason) => {
                let passing = (1..parsed.len()).find(|&n| Program::new(&parsed[..n]).is_err());
                Err(refusal(rules[passing.unwrap_or(rules.len()) - 1], reason))
            }
        }
    }
}

impl fmt::Debug for StopRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.as_ref().map_or(0, |program| program.rule_count());
        write!(f, "StopRules({rules})")
    }
}

fn refusal(pattern: &str, reason: String) -> Error {
    Error::StopPattern {
        pattern: pattern.to_owned(),
        reason,
    }
}

/// The stop rules on one reply.
pub struct StopMatcher {
    search: Option<Search>,
    /// The end of the reply so far, not sent yet.
    held: String,
}

impl StopMatcher {
    /// A matcher at the start of a reply.
    pub fn new(rules: &StopRules) -> Self {
        Self {
            search: rules.0.clone().map(Search::new),
            held: String::new(),
        }
    }

    /// Takes the text of one token and appends to `out` what may be sent.
    ///
    /// True: a rule matches the reply so far. Then everything before the
    /// leftmost match has been sent, and nothing more will be; the matcher is
    /// not to be pushed to again. A rule that matches the empty string matches
    /// at the first text. An empty `text` changes nothing.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        let Some(search) = &mut self.search else {
            out.push_str(text);
            return false;
        };
        if text.is_empty() {
            return false;
        }
        let found = search.extend(text);
        self.held.push_str(text);
        let sent = search.end() - self.held.len();
        if let Some(start) = found {
            out.push_str(&self.held[..start.saturating_sub(sent)]);
            self.held.clear();
            return true;
        }
        let bound = search.end().saturating_sub(HOLD_BACK);
        let mut cut = search.earliest().max(bound).max(sent) - sent;
        while !self.held.is_char_boundary(cut) {
            cut += 1;
        }
        out.push_str(self.held.drain(..cut).as_str());
        false
    }

    /// Ends the reply without a match: appends to `out` what was held back.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&mem::take(&mut self.held));
    }
}
