//! The syntax of stop regexes: RE2's as Go has it, on top of the parser of
//! Rust's regex crate.
//!
//! The two agree but in details. Where RE2 reads characters literally in which
//! the Rust parser sees an operator, or has an escape that the parser lacks,
//! the pattern is rewritten: `\Q…\E`, octal escapes, `\<`, `\>`, `\p{^…}`, a
//! `{` that begins no repetition, and `[`, `&&`, `--`, `~~` within a class.
//! One difference is on purpose: `\d`, `\s`, `\w` and `\b` know all of
//! Unicode; `(?-u:\b)` is RE2's. A repetition of nothing, as in `a(?i)*`, is
//! refused, and one of a repetition, as in `a**`, is not.

use std::fmt::Write;

use regex_syntax::ParserBuilder;
use regex_syntax::ast;
use regex_syntax::hir::Hir;

/// How deep groups and repetitions can be nested.
const MAX_NESTING: u32 = 100;

/// Parses an RE2 pattern. An error is the parser's message, on one line, with
/// the part of the pattern in question.
pub(super) fn parse(pattern: &str) -> Result<Hir, String> {
    let mut parser = ParserBuilder::new().nest_limit(MAX_NESTING).build();
    parser
        .parse(&to_rust(pattern)?)
        .map_err(|error| match &error {
            regex_syntax::Error::Parse(error) => {
                message(&error.kind().to_string(), error.pattern(), error.span())
            }
            regex_syntax::Error::Translate(error) => {
                message(&error.kind().to_string(), error.pattern(), error.span())
            }
            _ => error.to_string(),
        })
}

fn message(kind: &str, pattern: &str, span: &ast::Span) -> String {
    let part: String = pattern[span.start.offset..span.end.offset]
        .chars()
        .take(40)
        .collect();
    if part.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}: {part:?}")
    }
}

/// The pattern as the Rust parser has to see it.
fn to_rust(pattern: &str) -> Result<String, String> {
    let mut rewrite = Rewrite {
        rest: pattern,
        out: String::with_capacity(pattern.len()),
    };
    while !rewrite.rest.is_empty() {
        rewrite.item()?;
    }
    Ok(rewrite.out)
}

struct Rewrite<'a> {
    rest: &'a str,
    out: String,
}

impl Rewrite<'_> {
    /// Copies the next `len` bytes.
    fn copy(&mut self, len: usize) {
        let (copied, rest) = self.rest.split_at(len);
        self.out.push_str(copied);
        self.rest = rest;
    }

    fn copy_char(&mut self) {
        self.copy(self.rest.chars().next().map_or(0, char::len_utf8));
    }

    fn literal(&mut self, c: char) {
        write!(self.out, "\\x{{{:X}}}", u32::from(c)).expect("a String takes everything");
    }

    /// One element of the pattern outside of a class.
    fn item(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let (quoted, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            quoted.chars().for_each(|c| self.literal(c));
            self.rest = rest;
        } else if self.rest.starts_with('\\') {
            self.escape();
        } else if self.rest.starts_with('[') {
            self.class()?;
        } else if self.rest.starts_with('{') && !begins_repetition(self.rest) {
            self.out.push('\\');
            self.copy(1);
        } else {
            self.copy_char();
        }
        Ok(())
    }

    /// A backslash and what belongs to it.
    fn escape(&mut self) {
        if let Some((c, len)) = octal(self.rest) {
            self.literal(c);
            self.rest = &self.rest[len..];
            return;
        }
        let (escape, rest) = self.rest.split_at(escape_len(self.rest));
        self.rest = rest;
        if let "\\<" | "\\>" = escape {
            self.out.push_str(&escape[1..]);
        } else if let Some(name) = escape.strip_prefix("\\p{^") {
            self.out.extend(["\\P{", name]);
        } else if let Some(name) = escape.strip_prefix("\\P{^") {
            self.out.extend(["\\p{", name]);
        } else {
            self.out.push_str(escape);
        }
    }

    /// A bracketed class. Like RE2 this takes one element at a time and then
    /// looks for a `-`, so that every other `-` is literal.
    fn class(&mut self) -> Result<(), String> {
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut first = true;
        while !self.rest.is_empty() && (first || !self.rest.starts_with(']')) {
            first = false;
            let is_set = self.class_element()?;
            if !is_set && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.copy(1);
                self.class_char();
            }
        }
        if !self.rest.is_empty() {
            self.copy(1);
        }
        Ok(())
    }

    /// A character, an escape, or `[:name:]`. Whether it is a set of its own
    /// and begins no range.
    fn class_element(&mut self) -> Result<bool, String> {
        let named = self
            .rest
            .strip_prefix("[:")
            .and_then(|rest| rest.split_once(":]"));
        if let Some((name, _)) = named {
            // The parser would take an unknown one for a class in the class.
            if ast::ClassAsciiKind::from_name(name.trim_start_matches('^')).is_none() {
                return Err(format!("there is no class \"[:{name}:]\""));
            }
            self.copy("[::]".len() + name.len());
            return Ok(true);
        }
        let escaped = self.rest.strip_prefix('\\');
        let is_set =
            escaped.is_some_and(|c| c.starts_with(['d', 'D', 's', 'S', 'w', 'W', 'p', 'P']));
        self.class_char();
        Ok(is_set)
    }

    fn class_char(&mut self) {
        if self.rest.starts_with('\\') {
            self.escape();
            return;
        }
        if self.rest.starts_with(['[', ']', '&', '-', '~', '^']) {
            self.out.push('\\');
        }
        self.copy_char();
    }
}

/// Whether `{` begins `{n}`, `{n,}` or `{n,m}`.
fn begins_repetition(text: &str) -> bool {
    let Some((bounds, _)) = text[1..].split_once('}') else {
        return false;
    };
    let (min, max) = bounds.split_once(',').unwrap_or((bounds, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !min.is_empty() && digits(min) && digits(max)
}

/// The length of an escape: two characters or, with a code or a name, more.
fn escape_len(escape: &str) -> usize {
    let mut chars = escape[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('x' | 'p' | 'P' | 'u' | 'U'), Some('{')) => {
            escape.find('}').map_or(escape.len(), |end| end + 1)
        }
        (Some('x'), Some('0'..='9' | 'A'..='F' | 'a'..='f')) if escape.is_char_boundary(4) => 4,
        (Some('p' | 'P'), Some(name)) => 2 + name.len_utf8(),
        (escaped, _) => 1 + escaped.map_or(0, char::len_utf8),
    }
}

/// `\0`, `\12`, `\123` and the like, and their length. `\1` to `\9` alone are
/// back references, which RE2 doesn't have.
fn octal(escape: &str) -> Option<(char, usize)> {
    let digits: String = escape[1..]
        .chars()
        .take(3)
        .take_while(|c| c.is_digit(8))
        .collect();
    if digits.len() < 2 && digits != "0" {
        return None;
    }
    let code = u32::from_str_radix(&digits, 8).ok()?;
    Some((char::from_u32(code)?, 1 + digits.len()))
}
