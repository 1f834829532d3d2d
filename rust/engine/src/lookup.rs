//! Prompt lookup: what a text says next is often what it said before after the
//! same words, where it quotes, rewrites or repeats. Such tokens are a draft
//! that the model verifies in one decode (Saxena 2023, "Prompt Lookup
//! Decoding").
//!
//! A draft is as long as the words in common allow: after each one that held
//! it about doubles, and after a wrong one it begins small again. That follows
//! SuffixDecoding (Oliaro et al. 2024, arXiv:2411.04975). How many words that
//! takes depends on what the model asks for the rows ([`Terms`]).

use crate::model::Token;

/// On what terms a model takes drafts: few words in common will do where a wrong
/// row costs little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Tokens in common before there is a draft.
    pub common: usize,
    /// The part of them for which there is none: a draft has as many tokens as
    /// are left, or the next fewer that `lengths` has.
    pub discount: usize,
    /// Tokens that a draft may have, ascending; none: there are no drafts.
    pub lengths: &'static [usize],
    /// Streams at most beside which there are drafts. Beside more, a row takes
    /// as long as its share of a step, and even a right draft gains nothing.
    pub streams: usize,
}

impl Terms {
    /// There are no drafts.
    pub const NONE: Self = Self {
        common: 0,
        discount: 0,
        lengths: &[],
        streams: 0,
    };

    /// Seven rows more take less time than the first: any draft is worth a try.
    pub const CHEAP: Self = Self {
        common: 3,
        discount: 2,
        lengths: &[1, 2, 3, 4, 5, 6, 7],
        streams: 4,
    };

    /// Each further row takes two thirds of the time of a single one, and the
    /// second more: a draft has to be long, and most of it right. There are few
    /// lengths, because each has to be proven. Found by replaying 64 texts of
    /// two models at that price.
    pub const DEAR: Self = Self {
        common: 20,
        discount: 5,
        lengths: &[15, 31],
        streams: 1,
    };

    /// Tokens of a draft at most; 0: there are none.
    pub fn longest(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// Leaves out drafts of more than `most` tokens.
    pub fn shorten(&mut self, most: usize) {
        let fit = self.lengths.partition_point(|&length| length <= most);
        self.lengths = &self.lengths[..fit];
    }

    /// The tokens of a draft after `common` ones in common.
    fn length(&self, common: usize, most: usize) -> usize {
        let allowed = common.saturating_sub(self.discount).min(most);
        let fit = self.lengths.partition_point(|&length| length <= allowed);
        self.lengths[..fit].last().copied().unwrap_or(0)
    }
}

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
    pub fn find(text: &[Token], terms: &Terms, most: usize) -> Self {
        let Some((&last, before)) = text.split_last() else {
            return Self::default();
        };
        let enough = terms.longest() + terms.discount;
        let mut best = Self::default();
        let mut longest = terms.common.saturating_sub(1);
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
                    len: terms.length(common, most),
                };
                if common == enough {
                    break;
                }
            }
        }
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
        draft_on(&Terms::CHEAP, text, most)
    }

    fn draft_on(terms: &Terms, text: &str, most: usize) -> String {
        let tokens: Vec<Token> = text.bytes().map(Token::from).collect();
        let draft = Draft::find(&tokens, terms, most);
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
        assert_eq!(draft(&"a".repeat(100), 99), "a".repeat(7));
    }

    #[test]
    fn where_rows_are_dear_drafts_are_for_long_stretches_and_of_few_lengths() {
        let alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let draft = |common: usize, most| {
            let text = format!("{alphabet}{}", &alphabet[..common]);
            draft_on(&Terms::DEAR, &text, most).len()
        };
        let lengths = [3, 19, 20, 35, 36, 50].map(|common| draft(common, 99));
        assert_eq!(lengths, [0, 0, 15, 15, 31, 31]);
        assert_eq!(draft(50, 30), 15);
        assert_eq!(draft(50, 14), 0);
        assert_eq!(draft_on(&Terms::NONE, &"a".repeat(100), 99), "");

        let mut terms = Terms::DEAR;
        terms.shorten(30);
        assert_eq!((terms.lengths, terms.longest()), (&[15][..], 15));
        terms.shorten(14);
        assert_eq!((terms.lengths, terms.longest()), (&[][..], 0));
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
