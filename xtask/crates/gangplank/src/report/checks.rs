//! The result of `test` as text.

use crate::report::style::duration;
use crate::test::Tested;

/// The checks that passed.
pub fn tested(tested: &Tested) -> String {
    let checks: Vec<_> = tested.checks.iter().map(|it| format!("{} ({})", it.check, duration(it.ms))).collect();
    let skipped = match tested.skipped.len() {
        0 => String::new(),
        n => format!("; {n} skipped, see above"),
    };
    format!("passed: {}{skipped}\n", checks.join(", "))
}
