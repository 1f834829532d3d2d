//! A vocabulary of bytes: token 0 to 255 is that byte, control tokens follow.

use crate::Error;
use crate::model::{Span, Token, Vocab};

pub(super) const BOS: Token = 256;
pub(super) const EOS: Token = 257;
const IM_START: Token = 258;
const IM_END: Token = 259;
/// Ends every prompt, so that a context shows where the reply begins.
pub(super) const REPLY: Token = 260;

const CONTROL: [(&str, Token); 5] = [
    ("<s>", BOS),
    ("</s>", EOS),
    ("<|im_start|>", IM_START),
    ("<|im_end|>", IM_END),
    ("<|reply|>", REPLY),
];

const CHAT_TEMPLATE: &str = "\
{% for message in messages %}\
<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The vocabulary of the scripted model. A prompt begins with BOS and ends
/// with a control token of its own, `<|reply|>`.
#[derive(Debug, Clone, Copy)]
pub struct FakeVocab;

impl Vocab for FakeVocab {
    fn n_tokens(&self) -> usize {
        256 + CONTROL.len()
    }

    fn tokenize(&self, prompt: &[Span]) -> Result<Vec<Token>, Error> {
        let mut tokens = vec![BOS];
        for run in prompt.chunk_by(|a, b| a.is_data == b.is_data) {
            let text: String = run.iter().map(|span| span.text.as_str()).collect();
            if run[0].is_data {
                tokens.extend(text.bytes().map(Token::from));
            } else {
                parse(&text, &mut tokens);
            }
        }
        if tokens.get(1) == Some(&BOS) {
            tokens.remove(0);
        }
        if tokens.last() != Some(&REPLY) {
            tokens.push(REPLY);
        }
        Ok(tokens)
    }

    fn piece(&self, token: Token, out: &mut Vec<u8>) {
        out.extend(u8::try_from(token));
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        self.end_of_generation().contains(&token)
    }

    fn end_of_generation(&self) -> &[Token] {
        &[EOS, IM_END]
    }

    fn newline(&self) -> Option<Token> {
        Some(Token::from(b'\n'))
    }

    fn chat_template(&self) -> Option<&str> {
        Some(CHAT_TEMPLATE)
    }

    fn bos_text(&self) -> &str {
        "<s>"
    }

    fn eos_text(&self) -> &str {
        "</s>"
    }
}

/// Bytes and control tokens.
fn parse(mut text: &str, tokens: &mut Vec<Token>) {
    while let Some(first) = text.chars().next() {
        let control = CONTROL.iter().find(|(name, _)| text.starts_with(name));
        let (taken, rest) = text.split_at(control.map_or(first.len_utf8(), |(name, _)| name.len()));
        match control {
            Some(&(_, token)) => tokens.push(token),
            None => tokens.extend(taken.bytes().map(Token::from)),
        }
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenize(spans: &[(&str, bool)]) -> Vec<Token> {
        let spans = spans.iter().map(|&(text, is_data)| Span {
            text: text.into(),
            is_data,
        });
        FakeVocab.tokenize(&spans.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn data_never_becomes_a_control_token() {
        let tokens = tokenize(&[("<s><|im_st", false), ("art|>é", false), ("</s>", true)]);
        let mut expected = vec![BOS, IM_START];
        expected.extend("é</s>".bytes().map(Token::from));
        expected.push(REPLY);
        assert_eq!(tokens, expected);
    }
}
