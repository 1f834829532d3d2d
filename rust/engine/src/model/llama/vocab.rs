//! The tokenizer.
//!
//! llama.cpp tokenizes in two passes: it cuts the text at special tokens, then
//! tokenizes the stretches between them. The first pass is done here, because
//! it decides which text may become a control token; the second is
//! llama.cpp's. For text without data the result is that of `llama_tokenize`
//! with `parse_special`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use llama_cpp_sys_2 as sys;

use super::backend::text;
use super::stack::deep;
use super::weights::Weights;
use crate::Error;
use crate::model::{Span, Token, Vocab};

/// A token that is matched in the text itself, before any merging.
#[derive(Debug)]
struct Special {
    token: Token,
    text: String,
    /// Means something to the model that text never may: data must not spell
    /// it.
    is_control: bool,
    /// llama.cpp matches it whether or not control tokens are asked for.
    is_user_defined: bool,
    /// Takes the white space on its left (right) with it.
    strips_left: bool,
    strips_right: bool,
}

#[derive(Debug)]
pub(super) struct LlamaVocab {
    vocab: NonNull<sys::llama_vocab>,
    n_tokens: usize,
    /// Longest first, the order in which llama.cpp tries them.
    specials: Vec<Special>,
    /// All matches of all `specials`, overlapping ones too.
    matcher: AhoCorasick,
    /// The token before every prompt, if the model wants one.
    bos: Option<Token>,
    end_of_generation: Vec<Token>,
    newline: Option<Token>,
    chat_template: Option<String>,
    bos_text: String,
    eos_text: String,
    /// Owns `vocab`.
    _weights: Arc<Weights>,
}

// SAFETY: a vocabulary does not change after loading, and llama.h says of the
// functions used here that they may be called from any thread.
unsafe impl Send for LlamaVocab {}
// SAFETY: as above.
unsafe impl Sync for LlamaVocab {}

impl LlamaVocab {
    pub(super) fn new(weights: Arc<Weights>) -> Result<Self, Error> {
        let failed = |reason: &str| Error::ModelLoad(reason.to_owned());
        // SAFETY: the model is valid; the vocabulary lives as long.
        let vocab = unsafe { sys::llama_model_get_vocab(weights.as_ptr()) };
        let vocab = NonNull::new(vocab.cast_mut()).ok_or_else(|| failed("no vocabulary"))?;
        let v = vocab.as_ptr();
        // SAFETY: `v` is valid, tokens are below the count, and the strings
        // live as long as the model.
        let (n_tokens, bos, eos, nl, add_bos, chat_template) = unsafe {
            let template = sys::llama_model_chat_template(weights.as_ptr(), std::ptr::null());
            (
                sys::llama_vocab_n_tokens(v),
                sys::llama_vocab_bos(v),
                sys::llama_vocab_eos(v),
                sys::llama_vocab_nl(v),
                sys::llama_vocab_get_add_bos(v),
                (!template.is_null()).then(|| text(template)),
            )
        };
        let text_of = |token: Token| match token {
            0.. if token < n_tokens => unsafe { text(sys::llama_vocab_get_text(v, token)) },
            _ => String::new(),
        };
        let mut specials: Vec<Special> = (0..n_tokens)
            // SAFETY: `token` is below the count.
            .map(|token| (token, unsafe { sys::llama_vocab_get_attr(v, token) }))
            .filter_map(|(token, attributes)| Special::new(token, attributes, text_of))
            .collect();
        specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let matcher = AhoCorasick::new(specials.iter().map(|special| &special.text))
            .map_err(|error| failed(&format!("special tokens: {error}")))?;
        let mut this = Self {
            vocab,
            n_tokens: n_tokens as usize,
            specials,
            matcher,
            bos: (add_bos && bos >= 0).then_some(bos),
            end_of_generation: (0..n_tokens)
                // SAFETY: `token` is below the count.
                .filter(|&token| unsafe { sys::llama_vocab_is_eog(v, token) })
                .collect(),
            newline: None,
            chat_template,
            bos_text: text_of(bos),
            eos_text: text_of(eos),
            _weights: weights,
        };
        // Vocabularies without a newline token have the padding token here.
        let mut newline = Vec::new();
        this.piece(nl, &mut newline);
        this.newline = (newline == b"\n").then_some(nl);
        Ok(this)
    }

    /// Appends the tokens of a stretch in which control tokens are plain text.
    fn append(&self, stretch: &str, tokens: &mut Vec<Token>) -> Result<(), Error> {
        let too_long = || Error::Unsupported("the prompt is larger than 2 GiB".into());
        let length = i32::try_from(stretch.len()).map_err(|_| too_long())?;
        let start = tokens.len();
        // Rarely more tokens than bytes; if so, llama.cpp says how many.
        let mut capacity = length.saturating_add(8);
        loop {
            tokens.resize(start + capacity as usize, 0);
            // SAFETY: text and buffer have the given sizes.
            let count = unsafe {
                sys::llama_tokenize(
                    self.vocab.as_ptr(),
                    stretch.as_ptr().cast(),
                    length,
                    tokens[start..].as_mut_ptr(),
                    capacity,
                    false,
                    false,
                )
            };
            match count {
                0.. => {
                    tokens.truncate(start + count as usize);
                    return Ok(());
                }
                i32::MIN => return Err(too_long()),
                _ => capacity = -count,
            }
        }
    }
}

impl Special {
    fn new(
        token: Token,
        attributes: sys::llama_token_attr,
        text_of: impl Fn(Token) -> String,
    ) -> Option<Self> {
        let has = |bits| attributes & bits != 0;
        let control = has(sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN);
        let is_user_defined = has(sys::LLAMA_TOKEN_ATTR_USER_DEFINED) && !control;
        if !control && !is_user_defined {
            return None;
        }
        let text = text_of(token);
        (!text.is_empty()).then(|| Self {
            token,
            is_control: control || looks_like_control(&text),
            text,
            is_user_defined,
            strips_left: has(sys::LLAMA_TOKEN_ATTR_LSTRIP),
            strips_right: has(sys::LLAMA_TOKEN_ATTR_RSTRIP),
        })
    }
}

/// Some models have their control tokens marked as user-defined, which would
/// let text spell them. These forms are what llama.cpp's converter goes by.
fn looks_like_control(text: &str) -> bool {
    let enclosed = |open, close| text.starts_with(open) && text.ends_with(close);
    enclosed("<|", "|>")
        || enclosed("<｜", "｜>")
        || matches!(
            text,
            "<start_of_turn>" | "<end_of_turn>" | "<bos>" | "<eos>" | "<s>" | "</s>" | "<pad>"
        )
}

/// The text of a prompt and what of it is data.
struct Joined {
    text: String,
    /// The stretches that are not data, in order; neighbours are one.
    trusted: Vec<Range<usize>>,
}

impl Joined {
    fn new(prompt: &[Span]) -> Self {
        let mut text = String::with_capacity(prompt.iter().map(|span| span.text.len()).sum());
        let mut trusted: Vec<Range<usize>> = Vec::new();
        for span in prompt.iter().filter(|span| !span.text.is_empty()) {
            let start = text.len();
            text.push_str(&span.text);
            if span.is_data {
                continue;
            }
            match trusted.last_mut() {
                Some(last) if last.end == start => last.end = text.len(),
                _ => trusted.push(start..text.len()),
            }
        }
        Self { text, trusted }
    }

    fn trusts(&self, range: &Range<usize>) -> bool {
        let after = self
            .trusted
            .partition_point(|stretch| stretch.start <= range.start);
        after > 0 && range.end <= self.trusted[after - 1].end
    }
}

/// Where a text is cut: special tokens by the place they take, white space
/// that they strip included, and points between which it is tokenized apart.
#[derive(Default)]
struct Cuts {
    tokens: BTreeMap<usize, (usize, Token)>,
    points: Vec<usize>,
}

impl Cuts {
    /// Takes `place` for `special`, unless an earlier one has some of it.
    fn take(&mut self, special: &Special, place: Range<usize>, text: &str) {
        let left = self.tokens.range(..place.end).next_back();
        let floor = left.map_or(0, |(_, (end, _))| *end);
        if floor > place.start {
            return;
        }
        let right = self.tokens.range(place.end..).next();
        let ceiling = right.map_or(text.len(), |(start, _)| *start);
        let (mut start, mut end) = (place.start, place.end);
        if special.strips_left {
            start = floor + trim_end(&text.as_bytes()[floor..start]);
        }
        if special.strips_right {
            end = ceiling - trim_end_reversed(&text.as_bytes()[end..ceiling]);
        }
        self.tokens.insert(start, (end, special.token));
    }
}

/// White space as C's `isspace` has it.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The length of `bytes` without the white space at its end.
fn trim_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| !is_space(byte))
        .map_or(0, |last| last + 1)
}

/// The length of `bytes` without the white space at its start.
fn trim_end_reversed(bytes: &[u8]) -> usize {
    let spaces = bytes.iter().position(|byte| !is_space(byte));
    bytes.len() - spaces.unwrap_or(bytes.len())
}

impl LlamaVocab {
    fn cuts(&self, prompt: &Joined) -> Cuts {
        // By length of the token, then by place: llama.cpp's order.
        let mut matches: Vec<(usize, Range<usize>)> = self
            .matcher
            .find_overlapping_iter(&prompt.text)
            .map(|found| (found.pattern().as_usize(), found.range()))
            .collect();
        matches.sort_unstable_by_key(|(special, range)| (*special, range.start));

        let mut cuts = Cuts::default();
        for (special, range) in matches {
            let special = &self.specials[special];
            if !special.is_control || prompt.trusts(&range) {
                cuts.take(special, range, &prompt.text);
            } else if special.is_user_defined {
                // llama.cpp would find it in a whole stretch: cut behind its
                // first character.
                let first = special.text.chars().next().map_or(1, char::len_utf8);
                cuts.points.push(range.start + first);
            }
        }
        cuts.points.sort_unstable();
        cuts
    }

    fn append_between(
        &self,
        prompt: &Joined,
        range: Range<usize>,
        points: &[usize],
        tokens: &mut Vec<Token>,
    ) -> Result<(), Error> {
        let mut start = range.start;
        let first = points.partition_point(|&point| point <= range.start);
        for &point in points[first..]
            .iter()
            .take_while(|&&point| point < range.end)
        {
            if point > start {
                self.append(&prompt.text[start..point], tokens)?;
                start = point;
            }
        }
        if start < range.end {
            self.append(&prompt.text[start..range.end], tokens)?;
        }
        Ok(())
    }
}

impl LlamaVocab {
    fn tokenize_here(&self, prompt: &[Span]) -> Result<Vec<Token>, Error> {
        let prompt = Joined::new(prompt);
        let cuts = self.cuts(&prompt);
        let mut tokens = Vec::new();
        let mut start = 0;
        for (&at, &(end, token)) in &cuts.tokens {
            self.append_between(&prompt, start..at, &cuts.points, &mut tokens)?;
            tokens.push(token);
            start = end;
        }
        self.append_between(&prompt, start..prompt.text.len(), &cuts.points, &mut tokens)?;
        if let Some(bos) = self.bos
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }
}

impl Vocab for LlamaVocab {
    fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    fn tokenize(&self, prompt: &[Span]) -> Result<Vec<Token>, Error> {
        let bytes = prompt.iter().map(|span| span.text.len()).sum();
        deep(bytes, || self.tokenize_here(prompt))
    }

    fn piece(&self, token: Token, out: &mut Vec<u8>) {
        if !(0..self.n_tokens as Token).contains(&token) {
            return;
        }
        let start = out.len();
        let mut capacity = 32;
        loop {
            out.resize(start + capacity, 0);
            // SAFETY: the token exists, and the buffer has the given size.
            let length = unsafe {
                sys::llama_token_to_piece(
                    self.vocab.as_ptr(),
                    token,
                    out[start..].as_mut_ptr().cast(),
                    capacity as i32,
                    0,
                    false,
                )
            };
            if length >= 0 {
                return out.truncate(start + length as usize);
            }
            capacity = length.unsigned_abs() as usize;
        }
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        self.end_of_generation.binary_search(&token).is_ok()
    }

    fn end_of_generation(&self) -> &[Token] {
        &self.end_of_generation
    }

    fn newline(&self) -> Option<Token> {
        self.newline
    }

    fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    fn bos_text(&self) -> &str {
        &self.bos_text
    }

    fn eos_text(&self) -> &str {
        &self.eos_text
    }
}
