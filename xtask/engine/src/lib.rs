//! stub
pub mod ci;
