//! Tries the seeds, and many inputs like them.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use lock_fuzz::{attribute, duration, reply, template, url};
use lock_tests::Random;

/// How many inputs each target is given.
const INPUTS: usize = 20_000;

/// Characters that are significant in some syntax.
const CHARACTERS: &[u8] = b"(){}[]<>\"'~:;,.=_#r0195 \n\r*%@/";

/// Runs a target on its seeds, and on inputs made of pieces of them.
fn try_all(name: &str, target: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    let mut understood = 0;
    for seed in &seeds {
        target(seed);
    }
    let mut random = Random::new(7);
    for _ in 0..INPUTS {
        let input = mutated(&seeds, &mut random);
        let shown = String::from_utf8_lossy(&input).into_owned();
        match std::panic::catch_unwind(|| target(&input)) {
            Ok(meant) => understood += usize::from(meant),
            Err(_) => panic!("{name} fails on {shown:?}"),
        }
    }
    println!("{name}: {understood} of {INPUTS} understood");
    assert!(understood > INPUTS / 50, "{name}: {understood} of {INPUTS} understood");
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random, bound: usize| random.below(bound as u64 + 1) as usize;
    let seed = |random: &mut Random| &seeds[any(random, seeds.len() - 1)];
    let mut input = seed(random).clone();
    for _ in 0..=random.below(4) {
        let from = any(random, input.len());
        let to = (from + any(random, 8)).min(input.len());
        match random.below(4) {
            0 => input.splice(from..to, []).for_each(drop),
            1 => input.insert(from, random.any() as u8),
            2 => input.insert(from, CHARACTERS[any(random, CHARACTERS.len() - 1)]),
            _ => {
                let other = seed(random);
                let start = any(random, other.len());
                let end = (start + any(random, 24)).min(other.len());
                input.splice(from..to, other[start..end].iter().copied()).for_each(drop);
            }
        }
    }
    input
}

#[test]
fn any_arguments_of_an_attribute() {
    try_all("attribute", attribute);
}

#[test]
fn any_duration() {
    try_all("duration", duration);
}

#[test]
fn any_template() {
    try_all("template", template);
}

#[test]
fn any_url() {
    try_all("url", url);
}

#[test]
fn any_reply() {
    try_all("reply", reply);
}
