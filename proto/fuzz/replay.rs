//! A property over its corpus without libFuzzer, for `cargo test`: every input that is kept, and others made of them by
//! chance that is the same every time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// No input grows beyond this.
const LONGEST: usize = 16 * 1024;
/// What is put in for a byte: ends of ranges, and what JSON, TOML, PEM and tokens are made of.
const TELLING: &[u8] = b"\0\x01\x0f\x10\x7f\x80\xff\"\\{}[]:,.-_=+/ \n\r\t0179eEnu";

/// Holds `property` against each file of `corpus` and against `made` inputs made of them.
///
/// # Panics
/// When the corpus is empty, or the property does not hold; the text holds the input as a Rust literal.
pub fn replay(corpus: &Path, made: usize, property: fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let kept: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(kept.len() > 4, "{} has lost its inputs", corpus.display());
    for (file, input) in files.iter().zip(&kept) {
        hold(property, input, &file.display().to_string());
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for number in 0..made {
        let mut input = kept[chance.below(kept.len())].clone();
        for _ in 0..=chance.below(4) {
            chance.change(&mut input, &kept);
        }
        input.truncate(LONGEST);
        hold(property, &input, &format!("input {number} made of {}", corpus.display()));
    }
}

fn hold(property: fn(&[u8]), input: &[u8], name: &str) {
    if catch_unwind(AssertUnwindSafe(|| property(input))).is_err() {
        panic!("{name}: it does not hold for b\"{}\"", input.escape_ascii());
    }
}

/// Xorshift: the same numbers at every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Some stretch of `length` bytes, not a long one.
    fn stretch(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(32) + 1)
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let telling = TELLING[self.below(TELLING.len())];
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = telling,
            0..=2 => input.insert(at, telling),
            3 => drop(input.drain(self.stretch(input.len()))),
            4 => {
                let again = input[self.stretch(input.len())].to_vec();
                drop(input.splice(at..at, again));
            }
            5 => input.truncate(at),
            _ => {
                let other = &kept[self.below(kept.len())];
                let part = other[self.stretch(other.len())].to_vec();
                drop(input.splice(at..at, part));
            }
        }
    }
}
