//! Retries scripts that failed on a full disk, with room from the reserve.

use crate::host::directory::HostTarget;
use gangplank_model::error::Result;
use gangplank_model::release::id::ReleaseId;
use gangplank_model::script::room::{FILES, Room, is_full, make_room};
use gangplank_model::state::State;
use gangplank_system::context::{Input, Output};
use std::time::Duration;

/// The time limit of removing a file.
const LIMIT: Duration = Duration::from_secs(60);

impl HostTarget<'_> {
    /// Runs a script with fixed input; retries while the disk is full and the host has a reserve.
    pub(super) fn exec_with_room(&self, text: &str, input: &[u8]) -> Result<Output> {
        self.with_room(|| self.exec(text, Input::Bytes(input), None, false), |answer| answer)
    }

    /// Like [`Self::exec_with_room`], for any result that contains the output of a script.
    pub(super) fn with_room<T>(
        &self,
        run: impl Fn() -> Result<T>,
        answer: impl Fn(&mut T) -> &mut Output,
    ) -> Result<T> {
        let mut rounds = 0;
        loop {
            let mut done = run()?;
            let answer = answer(&mut done);
            if answer.ok() || !self.made_room(answer, rounds) {
                return Ok(done);
            }
            rounds += 1;
        }
    }

    /// Whether a failed script may be retried, because the disk was full and a reserve file was removed. Without a
    /// reserve, the output gets a hint that says what is full.
    pub(super) fn made_room(&self, answer: &mut Output, rounds: u32) -> bool {
        if rounds > FILES || (!is_full(&answer.stderr) && !is_full(&answer.stdout)) {
            return false;
        }
        let room = self.exec(&make_room(&self.root), Input::Empty, Some(LIMIT), false);
        let room = room.ok().filter(Output::ok).map_or_else(Room::default, |answer| Room::parse(&answer.stdout));
        if room.made {
            self.ctx.warn(format!("{}: the disk is full; using its reserve", self.url));
        } else {
            let spare = self.look().ok().and_then(|state| spare(&state));
            answer.stderr = format!("{}\nhint: {}\n", answer.stderr, room.hint(&self.root, spare.as_ref()));
        }
        room.made
    }
}

/// The oldest release that is neither live nor a rollback target.
fn spare(state: &State) -> Option<ReleaseId> {
    let needed = state.history.needed(2);
    state.installed.keys().find(|id| state.live() != Some(*id) && !needed.contains(*id)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_that_a_rollback_needs_is_not_spare() {
        let id = |n: u32| format!("2026080{n}T000000-000000{n}");
        let line = |event: &str, n: u32| {
            format!(
                r#"{{"at":"2026-08-01T00:00:00Z","event":"{event}","verb":"deploy","release":"{}","from":null,"commit":null,"by":"ana","ci":null,"reason":null}}"#,
                id(n)
            )
        };
        let check = |installed: &[u32], history: &[(&str, u32)], want: Option<u32>| {
            let releases: String = installed.iter().map(|n| format!("release {} x\n", id(*n))).collect();
            let history: Vec<_> = history.iter().map(|(event, n)| line(event, *n)).collect();
            let live = installed.last().map(|n| id(*n)).unwrap_or_default();
            let text = format!("root /srv\ncurrent releases/{live}\n{releases}history\n{}\n", history.join("\n"));
            let found = spare(&State::parse(&text)).map(|id| id.as_str().to_owned());
            assert_eq!(found, want.map(id), "{text}");
        };
        check(&[1, 2, 3], &[("live", 1), ("live", 2), ("live", 3)], Some(1));
        check(&[1, 2, 3], &[("live", 1), ("failed", 2), ("live", 3)], Some(2));
        check(&[1, 2], &[("live", 1), ("live", 2)], None);
        check(&[], &[], None);
    }
}
