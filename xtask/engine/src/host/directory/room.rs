//! Scripts on a disk that is full: run again with room from the reserve.

use super::HostTarget;
use crate::cx::{Answer, Input};
use crate::error::Result;
use crate::host::script::room::{Room, is_full, make_room};
use std::time::Duration;

impl HostTarget<'_> {
    /// Runs a script that reads no stream, and again while it fails for want of room and the host has a reserve.
    pub(super) fn exec_with_room(&self, text: &str, input: &[u8]) -> Result<Answer> {
        loop {
            let mut answer = self.say(text, Input::Bytes(input), None, false)?;
            if answer.ok() || !self.made_room(&mut answer) {
                return Ok(answer);
            }
        }
    }

    /// Whether a script that failed is worth another try, because the host had no room and has some now. Where it has
    /// none to give, the answer gets a hint that says what is full.
    pub(super) fn made_room(&self, answer: &mut Answer) -> bool {
        if !is_full(&answer.stderr) && !is_full(&answer.stdout) {
            return false;
        }
        let room = self.say(&make_room(&self.root), Input::Empty, Some(Duration::from_secs(60)), false);
        let room = room.ok().filter(Answer::ok).map_or_else(Room::default, |answer| Room::parse(&answer.stdout));
        if room.made {
            self.cx.warn(format!("{}: the disk is full: using its reserve", self.url));
        } else {
            answer.stderr = format!("{}\nhint: {}\n", answer.stderr, room.hint(&self.root));
        }
        room.made
    }
}
