//! The targets of `fuzz/` on mutated inputs, a little of what a fuzzer does, the same in each run.
//!
//! `ABIDE_FUZZ_INPUTS` is how many inputs each target gets, and `ABIDE_FUZZ_SEED` which.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "also the helpers of a test fail by panicking"
)]

mod memory;

use abide::testing::fuzzing::{Target, targets};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest input.
const MAX_BYTES: usize = 8_192;

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap())
}

/// Bytes that mean something: to MessagePack, to the tuple layer, as a length.
const TELLING: &[u8] = &[
    0x00, 0x01, 0x02, 0x15, 0x33, 0x7f, 0x80, 0x90, 0x9f, 0xa0, 0xc0, 0xc1, 0xc4, 0xc6, 0xc9, 0xca,
    0xcb, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff, b'"', b'[', b'{', b'$', b'\n',
];

fn mutated(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..16)).min(input.len());
        match random.random_range(0..9) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 if at < input.len() => input[at] = TELLING[random.random_range(0..TELLING.len())],
            3 => drop(input.drain(at..end)),
            4 => input.insert(at, TELLING[random.random_range(0..TELLING.len())]),
            5 => {
                let copy = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                input.splice(to..to, copy);
            }
            6 => {
                // The end of another seed.
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            7 => {
                // One of its lines once more, somewhere else.
                let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
                let Some(line) = lines.get(random.random_range(0..lines.len().max(1))) else {
                    continue;
                };
                let line = line.to_vec();
                let starts: Vec<usize> = (0..=input.len())
                    .filter(|at| *at == 0 || input[at - 1] == b'\n')
                    .collect();
                let to = starts[random.random_range(0..starts.len())];
                input.splice(to..to, line);
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(MAX_BYTES);
    input
}

/// How many bytes an input may take at most: some for itself, and some for each of its bytes.
fn allowance(target: &Target, input: &[u8]) -> usize {
    // A store in memory, and pages of all that an operator can look at.
    let itself = if target.is_fast { 100_000 } else { 400_000 };
    itself + 200 * input.len()
}

fn drive(target: &Target, inputs: u64) {
    let mut random = StdRng::seed_from_u64(number("ABIDE_FUZZ_SEED").unwrap_or(1));
    // What is allocated once and stays.
    for seed in &target.seeds {
        (target.run)(seed);
    }
    let mut largest = 0;
    for _ in 0..inputs {
        let input = mutated(&mut random, &target.seeds);
        let run = || catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let (ran, most) = memory::measured(run);
        largest = largest.max(most);
        assert!(
            most <= allowance(target, &input),
            "the target `{}` took {most} bytes for b\"{}\"",
            target.name,
            input.escape_ascii()
        );
        assert!(
            ran.is_ok(),
            "the target `{}` panicked on b\"{}\"",
            target.name,
            input.escape_ascii()
        );
    }
    eprintln!("{}: {largest} bytes at most for an input", target.name);
}

fn named(name: &str) {
    let target = targets().into_iter().find(|target| target.name == name);
    let target = target.unwrap();
    let few = if target.is_fast { 20_000 } else { 1_500 };
    drive(&target, number("ABIDE_FUZZ_INPUTS").unwrap_or(few));
}

#[test]
fn arbitrary_keys_and_paths_are_an_error_or_what_was_written() {
    named("keys");
}

#[test]
fn arbitrary_messages_and_records_are_an_error_or_what_was_written() {
    named("messages");
}

#[test]
fn arbitrary_replies_are_an_error_or_what_was_written() {
    named("replies");
}

#[test]
fn arbitrary_leaves_are_an_error_or_a_state() {
    named("leaves");
}

#[test]
fn arbitrary_json_is_an_error_or_a_value() {
    named("json");
}

#[test]
fn arbitrary_lines_are_refused_or_imported() {
    named("import_lines");
}

#[test]
fn arbitrary_rows_are_looked_at_and_reported() {
    named("rows");
}

#[test]
fn every_target_has_a_file_and_seeds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in targets() {
        assert!(!target.seeds.is_empty());
        // A packaged crate is without them.
        let directory = root.join("fuzz/fuzz_targets");
        if directory.exists() {
            assert!(directory.join(format!("{}.rs", target.name)).exists());
        }
    }
}
