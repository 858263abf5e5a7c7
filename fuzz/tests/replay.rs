//! The corpus through all targets, without libFuzzer: what fuzzing has found once is found again by a plain
//! `cargo test`. `ELBUS_CORPUS` names one more folder of the same form.
#![cfg(test)]

use elbus_fuzz::TARGETS;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of the whole committed corpus, so that a clone stays small.
const CORPUS_BYTES: u64 = 300 << 10;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let folders = [Some(committed()), env::var_os("ELBUS_CORPUS").map(PathBuf::from)];
    let (mut count, mut slowest, mut peak) = (0, Duration::ZERO, 0);
    for folder in folders.into_iter().flatten() {
        for file in inputs(&folder.join(target)) {
            let data = fs::read(&file).unwrap();
            // A failure is reported by file.
            eprintln!("{}", file.display());
            let cost = elbus_fuzz::check(target, &data);
            (count, slowest, peak) = (count + 1, slowest.max(cost.time), peak.max(cost.peak));
        }
    }
    assert!(count > 0, "there is no corpus of {target}");
    println!("C31: {target}: {count} inputs replayed, slowest {slowest:?}, most memory {peak} bytes");
}

macro_rules! replays {
    ($($name:ident $target:literal)+) => {
        $(#[test]
        fn $name() {
            replay($target);
        })+

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|target| target.name), [$($target),+]);
        }
    };
}

replays! {
    c31_server_frames "server_frames"
    c31_client_frames "client_frames"
    c31_login "login"
    c31_rpc_event "rpc_event"
    c31_topic "topic"
    c31_mask "mask"
    c31_msgpack_params "msgpack_params"
}

#[test]
fn the_committed_corpus_is_small() {
    let files = TARGETS.iter().flat_map(|target| inputs(&committed().join(target.name)));
    let bytes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES, "{bytes} bytes");
}
