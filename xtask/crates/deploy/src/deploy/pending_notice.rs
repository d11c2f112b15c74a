//! What a deploy leaves to be told.

use gangplank_model::notify::Notice;
use std::cell::{Cell, RefCell};

/// What is to be told of a deploy when its locks are free again.
#[derive(Default)]
pub struct PendingNotice {
    /// Whether a switch was begun on any host.
    pub(super) was_switched: Cell<bool>,
    pub(super) notice: RefCell<Option<Notice>>,
}
