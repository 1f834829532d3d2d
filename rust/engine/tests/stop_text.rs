//! The text decoder, which is in front of the stop rules, against the standard
//! library with all bytes at hand.

use fastrand::Rng;
use llm_engine::text::TextDecoder;

#[test]
fn the_decoder_agrees_with_from_utf8_lossy() {
    const PIECES: &[&[u8]] = &[
        b"a",
        b" ",
        b"\n",
        "é".as_bytes(),
        "🦙".as_bytes(),
        "\u{3000}".as_bytes(),
        b"\xFF",
        b"\x80",
        b"\xC3",
        b"\xE2\x82",
        b"\xE2",
        b"\xF0\x9F",
        b"\xF0\x9F\xA6",
        b"\xED\xA0",
        b"\xF4\x90",
        b"\xC0",
        b"\xE0\x80",
        b"\xF0\x80",
    ];
    let mut rng = Rng::with_seed(4);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(..8) {
            match rng.u8(..8) {
                0 => bytes.push(rng.u8(..)),
                _ => bytes.extend_from_slice(PIECES[rng.usize(..PIECES.len())]),
            }
        }
        let mut decoder = TextDecoder::new();
        let mut text = String::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (token, after) = rest.split_at(rng.usize(..=rest.len().min(5)));
            decoder.push(token, &mut text);
            rest = after;
            // Nothing but the beginning of one character waits.
            let so_far = &bytes[..bytes.len() - rest.len()];
            let expected = String::from_utf8_lossy(so_far);
            let expected = expected.trim_start();
            let whole = expected.strip_suffix('\u{FFFD}').unwrap_or(expected);
            assert!(text == expected || text == whole, "{so_far:x?}: {text:?}");
        }
        decoder.finish(&mut text);
        assert_eq!(
            text,
            String::from_utf8_lossy(&bytes).trim_start(),
            "{bytes:x?}"
        );
    }
}
