//! Params of `.broker` that are meant to cost memory or stack (C22), each with the most memory that one call took.
//! The counting allocator is that of the fuzz targets.
#![cfg(test)]

use elbus_fuzz::{Answer, client_list};

/// C22.
const MOST_BYTES: usize = 1 << 20;
/// JSON-RPC: cannot be parsed.
const PARSE: i16 = -32_700;

fn nested(byte: u8, depth: usize) -> Vec<u8> {
    vec![byte; depth]
}

#[test]
fn c22_depth_claims_and_trailing_bytes() {
    let mut bombs: Vec<(String, Vec<u8>)> = Vec::new();
    for depth in [17, 1_000, 100_000, 1_000_000] {
        bombs.push((format!("{depth} arrays"), nested(0x91, depth)));
        bombs.push((format!("{depth} maps"), nested(0x81, depth)));
        let value = [&b"\x81\xa1x"[..], &nested(0x91, depth)].concat();
        bombs.push((format!("{depth} arrays under an unknown key"), value));
        let key = [&b"\x81"[..], &nested(0x91, depth)].concat();
        bombs.push((format!("{depth} arrays as a key"), key));
    }
    for (title, bytes) in [
        ("array of 2^32 - 1", &b"\xdd\xff\xff\xff\xff"[..]),
        ("map of 2^32 - 1", b"\xdf\xff\xff\xff\xff"),
        ("map of 2^32 - 1 with a filter", b"\xdf\xff\xff\xff\xff\xa6filter\xa1a"),
        ("text of 2^32 - 1", b"\x81\xa6filter\xdb\xff\xff\xff\xffabc"),
        ("bytes of 2^32 - 1", b"\x81\xa6filter\xc6\xff\xff\xff\xffabc"),
        ("key of 2^32 - 1", b"\x81\xdb\xff\xff\xff\xffabc"),
        ("extension of 2^32 - 1 under an unknown key", b"\x81\xa1x\xc9\xff\xff\xff\xff\x01abc"),
        ("array of 2^32 - 1 under an unknown key", b"\x82\xa1x\xdd\xff\xff\xff\xff\x01"),
        ("byte behind", b"\x81\xa6filter\xa1a\xc0"),
        ("second map behind", b"\x81\xa6filter\xa1a\x81\xa6filter\xa1a"),
        ("reserved byte", b"\xc1"),
        ("filter twice", b"\x82\xa6filter\xa1a\xa6filter\xa1b"),
        ("number as a filter", b"\x81\xa6filter\x01"),
    ] {
        bombs.push((title.to_owned(), bytes.to_vec()));
    }
    let behind = [&b"\x81\xa6filter\xc0"[..], &vec![0; 1 << 20]].concat();
    bombs.push(("a million bytes behind".to_owned(), behind));
    let mut worst = 0;
    for (title, params) in &bombs {
        // The copy of the params that the call itself needs is the caller's.
        let Answer { code, peak } = client_list(params);
        assert_eq!(code, Err(PARSE), "{title}");
        let own = peak.saturating_sub(3 * params.len());
        assert!(own <= MOST_BYTES, "{title}: {own} bytes");
        worst = worst.max(own);
        // Whoever asks next is answered.
        assert_eq!(client_list(b"\x81\xa6filter\xa6caller").code, Ok(1), "after {title}");
    }
    println!(
        "C22: {} bombs of up to 10^6 levels, all -32700, most memory beyond the params {worst} bytes",
        bombs.len()
    );
}

/// What is within the limits is taken, so that the refusals above are no refusals of everything.
#[test]
fn c22_what_is_no_bomb_is_answered() {
    for (params, expected) in [
        (&b""[..], Ok(6)),
        (b"\x80", Ok(6)),
        (b"\x81\xa6filter\xc0", Ok(6)),
        (b"\x81\xa6filter\xa9client.22", Ok(1)),
        (b"\x82\xa6filter\xa6caller\xa1x\x93\x01\x02\x03", Ok(1)),
    ] {
        assert_eq!(client_list(params).code, expected, "{params:?}");
    }
}
