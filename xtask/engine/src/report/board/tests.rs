//! Tables of events and the lines that they become.

use super::*;
