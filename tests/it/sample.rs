//! Samples of cases that are too many for each run. They are drawn by the commit, so each commit tries others, and by
//! the name of the test; the variable draws the same ones again.

use crate::project::root;
use gangplank_suite::SEED;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;
use std::sync::OnceLock;

/// Different numbers of 1 to `of`, in order.
pub fn draw(test: &str, of: u32, count: usize) -> Vec<u32> {
    let mut numbers: Vec<_> = (1..=of).collect();
    numbers.sort_by_key(|n| hash((seed(), test, n)));
    numbers.truncate(count);
    numbers.sort_unstable();
    eprintln!("{test}: drew {numbers:?} of {of} by {SEED}={}", seed());
    numbers
}

/// The seed of a generator.
pub fn bytes(test: &str) -> [u8; 32] {
    eprintln!("{test}: drawn by {SEED}={}", seed());
    let mut bytes = [0; 32];
    for (n, piece) in bytes.chunks_mut(8).enumerate() {
        piece.copy_from_slice(&hash((seed(), test, n)).to_le_bytes());
    }
    bytes
}

/// What the variable says, or else the commit that is checked out.
fn seed() -> &'static str {
    static SEED_OF_THIS_RUN: OnceLock<String> = OnceLock::new();
    SEED_OF_THIS_RUN.get_or_init(|| {
        std::env::var(SEED).unwrap_or_else(|_| {
            let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output();
            head.map(|head| String::from_utf8_lossy(&head.stdout).trim().to_owned()).unwrap_or_default()
        })
    })
}

fn hash(value: impl Hash) -> u64 {
    // The one hasher of the standard library with fixed keys.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn draw_gives_different_numbers_in_order() {
    let numbers = draw("a", 20, 5);
    assert!(numbers.len() == 5 && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_eq!(draw("a", 20, 5), numbers);
    assert_eq!(draw("a", 3, 9), [1, 2, 3]);
    assert_ne!(bytes("a"), bytes("b"));
}
