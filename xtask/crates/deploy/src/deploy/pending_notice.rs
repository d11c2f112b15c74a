//! The notice of a deploy that runs.

use gangplank_model::notify::Notice;
use std::cell::{Cell, RefCell};

/// The notice that is sent when the locks of a deploy are free again.
#[derive(Default)]
pub struct PendingNotice {
    /// Whether a host had to be reverted.
    pub(super) was_switched: Cell<bool>,
    pub(super) notice: RefCell<Option<Notice>>,
}

impl PendingNotice {
    /// Whether there is a notice.
    pub(super) fn is_kept(&self) -> bool {
        self.notice.borrow().is_some()
    }
}
