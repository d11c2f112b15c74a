//! `bench`: how we compare with what others do, measured side by side on this machine. Numbers from another day or
//! another machine say nothing, so nobody has to believe ours: the command measures anew.
//!
//! A bench is a module with options and a report, a word in `cli`, and a table in `report::bench`.

pub mod figures;
pub mod fleet;
