//! Prompt lookup: what a text says next is often what it said before after the
//! same words, where it quotes, rewrites or repeats. Such tokens are a draft
//! that the model verifies in one decode (Saxena 2023, "Prompt Lookup
//! Decoding").
//!
//! A draft is as long as the words in common allow: after each one that held
//! it about doubles, and after a wrong one it begins small again. That follows
//! SuffixDecoding (Oliaro et al. 2024, arXiv:2411.04975).

use crate::model::Token;

/// Tokens in common before there is a draft, and the part of them for which
/// there is none.
const COMMON: usize = 3;
const DISCOUNT: usize = 2;

/// Tokens of a draft at most. With the token before them they are 8 rows of one
/// sequence: of more, our kernels' attention makes a tile, whose rounding is not
/// that of single rows, and replies would not be those without drafts to the bit.
pub const LONGEST: usize = 7;

/// Steps without a draft at most, after drafts that were wrong in a row.
const LONGEST_REST: u32 = 64;

/// Tokens that may come next: those of the text from `from` on, over and over
/// should its end come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draft {
    /// Index of the first of them in the text.
    pub from: usize,
    /// How many they are.
    pub len: usize,
}

impl Draft {
    /// Looks for the latest tokens of `text` in what is before, and drafts up
    /// to `most` tokens that followed there. The longest stretch in common
    /// counts, the latest of several.
    pub fn find(text: &[Token], most: usize) -> Self {
        let Some((&last, before)) = text.split_last() else {
            return Self::default();
        };
        let enough = LONGEST + DISCOUNT;
        let mut best = Self::default();
        let mut longest = COMMON - 1;
        for (at, _) in before
            .iter()
            .enumerate()
            .rev()
            .filter(|&(_, &token)| token == last)
        {
            let pairs = before[..at].iter().rev().zip(before.iter().rev());
            let common = 1 + pairs.take(enough - 1).take_while(|(a, b)| a == b).count();
            if common > longest {
                longest = common;
                best = Self {
                    from: at + 1,
                    len: common - DISCOUNT,
                };
                if common == enough {
                    break;
                }
            }
        }
        best.len = best.len.min(most);
        best
    }

    /// The tokens, by the `text` that they were found in.
    pub fn tokens<'a>(&self, text: &'a [Token]) -> impl Iterator<Item = Token> + use<'a> {
        text[self.from..].iter().copied().cycle().take(self.len)
    }
}

/// Whether drafts pay in one request: those that are wrong for the most part
/// make it rest, each in a row twice as long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust {
    /// Wrong ones, less half of them for each right one.
    failures: u32,
    /// Steps to go without.
    rest: u32,
}

impl Trust {
    /// Whether to draft for this step.
    pub fn holds(&mut self) -> bool {
        let rested = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
        rested
    }

    /// Of a draft of `drafted` tokens the first `right` were.
    pub fn learn(&mut self, drafted: usize, right: usize) {
        if drafted == 0 {
            return;
        }
        if 2 * right >= drafted {
            self.failures /= 2;
        } else {
            self.failures += 1;
            self.rest = 1u32
                .checked_shl(self.failures)
                .map_or(LONGEST_REST, |rest| rest.min(LONGEST_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str, most: usize) -> String {
        let tokens: Vec<Token> = text.bytes().map(Token::from).collect();
        let draft = Draft::find(&tokens, most);
        draft
            .tokens(&tokens)
            .map(|token| token as u8 as char)
            .collect()
    }

    #[test]
    fn the_longer_the_stretch_in_common_the_longer_the_draft() {
        assert_eq!(draft("", 9), "");
        assert_eq!(draft("abcdefgh ab", 9), "");
        assert_eq!(draft("abcdefgh abc", 9), "d");
        assert_eq!(draft("abcdefgh abcde", 9), "fgh");
        assert_eq!(draft("abcdefgh abcde", 2), "fg");
        assert_eq!(draft("abcdefgh abcde", 0), "");
    }

    #[test]
    fn the_longest_stretch_counts_and_the_latest_of_several() {
        assert_eq!(draft("xabc1 yabc2 zabc3 abc", 1), "3");
        assert_eq!(draft("xabc1 yabc2 zabc3 xabc", 1), "1");
    }

    #[test]
    fn what_repeats_itself_goes_on_and_on() {
        assert_eq!(draft("ababababa", 9), "babab");
        assert_eq!(draft(&"a".repeat(100), 99), "a".repeat(LONGEST));
    }

    #[test]
    fn wrong_drafts_make_it_rest() {
        let mut trust = Trust::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            assert!(trust.holds());
            trust.learn(4, 0);
            let mut rest = 0;
            while !trust.holds() {
                rest += 1;
            }
            // The step that asked with success drafts nothing.
            trust.learn(0, 0);
            rests.push(rest);
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 64, 64, 64]);
        for _ in 0..4 {
            trust.learn(4, 2);
        }
        trust.learn(4, 1);
        assert_eq!(trust.rest, 2);
    }
}
