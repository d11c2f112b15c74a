//! What a deploy leaves to be told.

use gangplank_model::notify::Notice;
use std::cell::{Cell, RefCell};

/// What is to be told of a deploy when its locks are free again.
#[derive(Default)]
pub struct PendingNotice {
    /// Whether a host had to be reverted.
    pub(super) was_switched: Cell<bool>,
    pub(super) notice: RefCell<Option<Notice>>,
}

impl PendingNotice {
    /// Whether there is anything to be told.
    pub(super) fn is_kept(&self) -> bool {
        self.notice.borrow().is_some()
    }
}
