//! What the scripted model is told to do, and how that is written.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::vocab::{BOS, EOS, REPLY};
use crate::Error;
use crate::model::{Reuse, Token};

/// How the reply comes from the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// The prompt once more, then the end.
    Echo,
    /// This text, then the end.
    Text(String),
    /// Letters that depend on every token in the context; endless.
    Hash,
    /// Letters that repeat themselves for a while, and then others that depend
    /// on every token so far; endless.
    Refrain,
    /// The same, where the others depend on the order of the cells as well.
    Places,
}

/// Tokens of one refrain.
const REFRAIN: usize = 23;

/// The script and the properties of the model, written `echo`, `text:Hello`,
/// `hash`, `refrain` or `places`. Before it, each ended by a semicolon, there
/// may be `delay=5ms` (what a decode takes, in `us`, `ms` or `s`), `batch=64`
/// (rows of a decode at most), `room=100` (cells that are really there, whatever
/// the model says), `block=16` (cells that a sequence gets together), `window=16`
/// (tokens that a token looks back on, itself included: what slid out is lost),
/// `whole` (only whole sequences can be removed or continued), `dear` (drafts are
/// taken as if rows were dear), `no-shift`, and `gate=/a/fifo` (a file that is
/// read to its end before each context is made).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSpec {
    /// What it says.
    pub script: Script,
    /// What a decode takes.
    pub delay: Duration,
    /// Rows of a decode at most.
    pub batch: usize,
    /// Cells that are really there; `None`: as many as the model says.
    pub room: Option<usize>,
    /// Cells that a sequence gets together.
    pub block: usize,
    /// Tokens that a token looks back on; `None`: all.
    pub window: Option<usize>,
    /// Whether sequences have no parts.
    pub whole: bool,
    /// Whether rows of drafts are dear.
    pub dear: bool,
    /// Whether positions can be moved.
    pub can_shift: bool,
    /// Read before each context is made: a named pipe holds it up.
    pub gate: Option<PathBuf>,
}

impl From<Script> for FakeSpec {
    fn from(script: Script) -> Self {
        Self {
            script,
            delay: Duration::ZERO,
            batch: 512,
            room: None,
            block: 1,
            window: None,
            whole: false,
            dear: false,
            can_shift: true,
            gate: None,
        }
    }
}

impl FromStr for FakeSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
            .ok_or_else(|| Error::ModelLoad(format!("{text:?} is no scripted model's description")))
    }
}

impl FakeSpec {
    /// What other requests can use of a sequence.
    pub fn reuse(&self) -> Reuse {
        match (self.whole, self.window) {
            (true, _) => Reuse::Whole,
            (false, Some(_)) => Reuse::Window,
            (false, None) => Reuse::Any,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(script) = Script::parse(text) {
            return Some(script.into());
        }
        let (property, rest) = text.split_once(';')?;
        let spec = Self::parse(rest)?;
        match property.split_once('=').unwrap_or((property, "")) {
            ("no-shift", "") => Some(Self {
                can_shift: false,
                ..spec
            }),
            ("whole", "") => Some(Self {
                whole: true,
                ..spec
            }),
            ("dear", "") => Some(Self { dear: true, ..spec }),
            ("window", value) => Some(Self {
                window: Some(value.parse().ok()?),
                ..spec
            }),
            ("delay", value) => Some(Self {
                delay: duration(value)?,
                ..spec
            }),
            ("batch", value) => Some(Self {
                batch: value.parse().ok()?,
                ..spec
            }),
            ("block", value) => Some(Self {
                block: value.parse().ok()?,
                ..spec
            }),
            ("gate", value) => Some(Self {
                gate: Some(value.into()),
                ..spec
            }),
            ("room", value) => Some(Self {
                room: Some(value.parse().ok()?),
                ..spec
            }),
            _ => None,
        }
    }
}

impl Script {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "echo" => Some(Self::Echo),
            "hash" => Some(Self::Hash),
            "refrain" => Some(Self::Refrain),
            "places" => Some(Self::Places),
            _ => text
                .strip_prefix("text:")
                .map(|text| Self::Text(text.to_owned())),
        }
    }

    /// The likeliest token after `context`, and the second. `order`: the indices
    /// of the context's tokens in the order of their cells.
    pub fn next(&self, context: &[Token], order: &[usize]) -> [Token; 2] {
        let second = Token::from(b'.');
        if let Self::Hash = self {
            return [Token::from(b'a' + (hash(context) % 26) as u8), second];
        }
        if let Self::Refrain | Self::Places = self {
            let before = context.len() - context.len() % REFRAIN;
            let last = context.last().copied().unwrap_or(0);
            let mut seen = context[..before].to_vec();
            if let Self::Places = self {
                let order = order.iter().filter(|&&at| at < before);
                seen.extend(order.map(|&at| at as Token));
            }
            let letter = hash(&[hash(&seen) as Token, last]) % 4;
            return [Token::from(b'a' + letter as u8), second];
        }
        let end = context.iter().position(|&token| token == REPLY);
        let best = end.and_then(|end| {
            let at = context.len() - end - 1;
            match self {
                Self::Text(text) => text.as_bytes().get(at).map(|&byte| Token::from(byte)),
                _ => {
                    let begin = usize::from(context[0] == BOS);
                    context[begin..end].get(at).copied()
                }
            }
        });
        [best.unwrap_or(EOS), second]
    }
}

/// FNV-1a over the tokens.
fn hash(tokens: &[Token]) -> u64 {
    let hash = tokens
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &token| {
            (hash ^ token as u64).wrapping_mul(0x0000_0100_0000_01b3)
        });
    // The low bits of FNV depend on the low bits of the tokens only.
    hash >> 32
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number = number.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions() {
        let spec: FakeSpec =
            "delay=5ms;no-shift;room=100;block=16;gate=/a b;batch=64;window=8;whole;dear;text:a;b=c"
                .parse()
                .unwrap();
        assert_eq!(
            spec,
            FakeSpec {
                script: Script::Text("a;b=c".into()),
                delay: Duration::from_millis(5),
                batch: 64,
                room: Some(100),
                block: 16,
                window: Some(8),
                whole: true,
                dear: true,
                can_shift: false,
                gate: Some("/a b".into()),
            }
        );
        assert_eq!("echo".parse(), Ok(FakeSpec::from(Script::Echo)));
        for wrong in [
            "",
            "ech",
            "delay=5;echo",
            "delay=ms;echo",
            "size=1;echo",
            "echo;no-shift",
        ] {
            assert!(wrong.parse::<FakeSpec>().is_err(), "{wrong}");
        }
    }
}
