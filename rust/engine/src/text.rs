//! Token bytes in, text out.

use std::mem;

/// Turns the bytes of one reply's tokens into its text.
///
/// A token may end in the middle of a character; what is there of it is held
/// back until the rest comes. Bytes that are not UTF-8 become U+FFFD, one for
/// each maximal subpart (Unicode, section 3.9). White space at the very start
/// of the reply is dropped. However the bytes are split over the pushes, all
/// that was appended is together
/// `String::from_utf8_lossy(all_bytes).trim_start()`.
#[derive(Debug, Default)]
pub struct TextDecoder {
    /// Before a push the beginning of a character, at most 3 bytes.
    pending: Vec<u8>,
    /// Whether something other than white space was seen.
    started: bool,
}

impl TextDecoder {
    /// A decoder at the start of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of one token and appends to `out` the characters that
    /// are now whole.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut pending = mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let whole = pending.len() - incomplete_tail(&pending);
        for chunk in pending[..whole].utf8_chunks() {
            self.append(chunk.valid(), out);
            if !chunk.invalid().is_empty() {
                self.append("\u{FFFD}", out);
            }
        }
        pending.drain(..whole);
        self.pending = pending;
    }

    /// Ends the reply: a character still incomplete is appended as U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !mem::take(&mut self.pending).is_empty() {
            self.append("\u{FFFD}", out);
        }
    }

    fn append(&mut self, mut text: &str, out: &mut String) {
        if !self.started {
            text = text.trim_start();
            self.started = !text.is_empty();
        }
        out.push_str(text);
    }
}

/// How many bytes at the end of `bytes` are the beginning of a character whose
/// rest may still come: 0 to 3.
fn incomplete_tail(bytes: &[u8]) -> usize {
    // No such beginning is longer than 3 bytes. Where these 3 start inside a
    // character, its last bytes are invalid alone, so the last chunk still
    // starts where it would if all bytes were looked at.
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let Some(chunk) = last.utf8_chunks().last() else {
        return 0;
    };
    let tail = chunk.invalid();
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::TextDecoder;

    fn decode(pieces: &[&[u8]]) -> String {
        let mut decoder = TextDecoder::new();
        let mut out = String::new();
        for piece in pieces {
            decoder.push(piece, &mut out);
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn a_split_character_waits_for_its_rest() {
        let mut decoder = TextDecoder::new();
        let mut out = String::new();
        for &byte in &"é🦙".as_bytes()[..5] {
            decoder.push(&[byte], &mut out);
        }
        assert_eq!(out, "é");
        decoder.push(&"🦙".as_bytes()[3..], &mut out);
        assert_eq!(out, "é🦙");
    }

    #[test]
    fn invalid_bytes_and_an_incomplete_end_become_replacement_characters() {
        assert_eq!(
            decode(&[b"a\xFFb\xE2\x82", b"c\xF0\x9F"]),
            "a\u{FFFD}b\u{FFFD}c\u{FFFD}"
        );
        assert_eq!(
            decode(&[b"\xED", b"\xA0", b"\x80"]),
            "\u{FFFD}\u{FFFD}\u{FFFD}"
        );
    }

    #[test]
    fn leading_white_space_is_dropped_across_tokens() {
        assert_eq!(
            decode(&[b" \n", "\u{3000}".as_bytes(), b"\t", b" a b", b" "]),
            "a b "
        );
        assert_eq!(decode(&[b" ", b"\xFF "]), "\u{FFFD} ");
    }

    /// The same set as Go's `unicode.IsSpace`.
    #[test]
    fn white_space_is_that_of_unicode() {
        let spaces: String = ('\0'..=char::MAX)
            .filter(|c| decode(&[c.to_string().as_bytes()]).is_empty())
            .collect();
        assert_eq!(
            spaces,
            "\t\n\u{b}\u{c}\r \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\
             \u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}"
        );
    }
}
